package httpd

import (
	"context"
	"net/http"
)

// Starting answers for a node that does not serve yet; why tells the reason, as
// Backend.Ready does. /ping answers that the process is there, all else 503.
func Starting(version string, why func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hd := w.Header()
		hd.Set("X-Influxdb-Version", InfluxVersion)
		hd.Set("X-Influxdb-Build", "OSS")
		hd.Set("X-Dsdb-Version", version)
		h := Handler{backend: starting{why: why}}
		switch r.URL.Path {
		case "/ping":
			h.servePing(w, r)
		case "/health":
			h.serveHealth(w, r)
		default:
			hd.Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, why().Error())
		}
	})
}

// starting is the Backend of a node that does not serve.
type starting struct {
	Backend
	why func() error
}

// Ready implements Backend.
func (s starting) Ready(context.Context) error { return s.why() }
