package httpd

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	points      prometheus.Counter
	writeBytes  prometheus.Counter
	writeErrors *prometheus.CounterVec
	queries     *prometheus.HistogramVec
	queryRows   prometheus.Counter
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dsdb_http_requests_total",
			Help: "Requests answered by the HTTP API."}, []string{"path", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dsdb_http_request_duration_seconds",
			Help:    "Time from the request line to the end of the answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"path"}),
		points: prometheus.NewCounter(prometheus.CounterOpts{Name: "dsdb_write_points_total",
			Help: "Points that were parsed and stored."}),
		writeBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "dsdb_write_bytes_total",
			Help: "Bytes of line protocol after inflating."}),
		writeErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dsdb_write_errors_total",
			Help: "Writes that were refused in whole or in part."}, []string{"reason"}),
		queries: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dsdb_query_duration_seconds",
			Help:    "Time from a statement's start to its last row.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 60}}, []string{"statement"}),
		queryRows: prometheus.NewCounter(prometheus.CounterOpts{Name: "dsdb_query_rows_total",
			Help: "Rows sent as answers to queries."}),
	}
	reg.MustRegister(m.requests, m.duration, m.points, m.writeBytes, m.writeErrors, m.queries, m.queryRows)
	return m
}

func (m *metrics) observe(path, method string, code int, d time.Duration) {
	if !knownMethod(method) {
		method = "OTHER"
	}
	m.requests.WithLabelValues(path, method, strconv.Itoa(code)).Inc()
	m.duration.WithLabelValues(path).Observe(d.Seconds())
}

// knownMethod keeps a stranger from making label values of his own.
func knownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH":
		return true
	}
	return false
}

func metricsHandler(reg *prometheus.Registry) http.HandlerFunc {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}).ServeHTTP
}

// varsHandler is /debug/vars: what /metrics says as JSON objects of the shape
// that Telegraf's influxdb input reads (name, tags, values), and runtime's memory figures.
func varsHandler(reg *prometheus.Registry, version string) http.HandlerFunc {
	started := time.Now()
	return func(w http.ResponseWriter, r *http.Request) {
		families, err := reg.Gather()
		if err != nil {
			writeError(w, http.StatusInternalServerError, "gather metrics: "+err.Error())
			return
		}
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		out := map[string]any{"cmdline": os.Args[:1], "memstats": mem,
			"system": map[string]any{"started": started.UTC(), "uptime": time.Since(started).Seconds(), "version": version, "currentTime": time.Now().UTC()}}
		for _, f := range families {
			for i, m := range f.GetMetric() {
				tags := map[string]string{}
				for _, l := range m.GetLabel() {
					tags[l.GetName()] = l.GetValue()
				}
				values := map[string]any{}
				switch {
				case m.Counter != nil:
					values["value"] = m.Counter.GetValue()
				case m.Gauge != nil:
					values["value"] = m.Gauge.GetValue()
				case m.Histogram != nil:
					values["count"], values["sum"] = m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum()
				}
				out[f.GetName()+":"+strconv.Itoa(i)] = map[string]any{"name": f.GetName(), "tags": tags, "values": values}
			}
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		_ = enc.Encode(out) // the client may be gone
	}
}

func (h *Handler) routePprof() {
	for path, fn := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline,
		"profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		h.handle("/debug/pprof/"+path, h.gate.adminOnly(fn), "GET", "POST")
	}
}
