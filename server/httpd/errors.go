package httpd

import (
	"net/http"
	"strconv"

	"github.com/dasudian/dsdb"
)

// status maps the kind of an error to the HTTP status of a write or of a whole
// query request. Overload and doubt are 503, never 429: Telegraf drops points
// for good on any 4xx.
func status(err error) int {
	switch dsdb.KindOf(err) {
	case dsdb.KindInvalid, dsdb.KindConflict:
		return http.StatusBadRequest
	case dsdb.KindNotFound:
		return http.StatusNotFound
	case dsdb.KindUnauthorized:
		return http.StatusUnauthorized
	case dsdb.KindForbidden:
		return http.StatusForbidden
	case dsdb.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case dsdb.KindUnavailable, dsdb.KindTimeout, dsdb.KindCanceled, dsdb.KindNotLeader:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// writeError sends {"error": text} as InfluxDB does, also as a header, with a
// newline at the end.
func writeError(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Influxdb-Error", headerText(text))
	if code == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "1")
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="InfluxDB"`)
	}
	body := append(appendJSONString([]byte(`{"error":`), text), '}', '\n')
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client may be gone
}

// headerText makes text fit for a header: no control characters, at most 1 KiB.
func headerText(s string) string {
	b := []byte(s[:min(len(s), 1024)])
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}
