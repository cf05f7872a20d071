package httpd

import (
	"context"
	"net/http"
	"time"
)

// servePing is /ping: 204, or 200 with the version for ?verbose=true. With
// ?wait_for_leader=10s it answers once the node is ready, or 503 after that time.
func (h *Handler) servePing(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if wait := q.Get("wait_for_leader"); wait != "" {
		d, err := time.ParseDuration(wait)
		if err != nil || d < 0 {
			writeError(w, http.StatusBadRequest, "wait_for_leader wants a duration such as 10s")
			return
		}
		if !h.waitReady(r.Context(), min(d, time.Minute)) {
			writeError(w, http.StatusServiceUnavailable, "no leader within "+wait)
			return
		}
	}
	if v := q.Get("verbose"); v != "" && v != "0" && v != "false" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"version":"` + InfluxVersion + "\"}\n"))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) waitReady(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if h.backend.Ready(ctx) == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// serveStatus is 0.10's /status: 204 if the node can serve, else 503.
func (h *Handler) serveStatus(w http.ResponseWriter, r *http.Request) {
	if err := h.backend.Ready(r.Context()); err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveHealth is /health of InfluxDB 1.8 and 2.x clients: the process answers.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	code, state, message := http.StatusOK, "pass", "ready for queries and writes"
	if err := h.backend.Ready(r.Context()); err != nil {
		code, state, message = http.StatusServiceUnavailable, "fail", err.Error()
	}
	w.WriteHeader(code)
	b := appendJSONString([]byte(`{"checks":[],"message":`), message)
	b = append(b, `,"name":"influxdb","status":"`+state+`","version":"`+InfluxVersion+"\"}\n"...)
	_, _ = w.Write(b)
}

// serveReady is /ready: 200 if a write would be taken now, else 503 with the reason.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := h.backend.Ready(r.Context()); err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write([]byte("{\"status\":\"ready\"}\n"))
}

// serveFlux tells 2.x clients that Flux is not spoken here.
func (h *Handler) serveFlux(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "Flux is not supported; send InfluxQL to /query")
}
