// Package httpd is the client side of a node: InfluxDB's HTTP API. It decodes
// requests (bounding every body before it is inflated), parses line protocol
// into column batches and text into statements, hands both to its Backend, and
// encodes frames of result rows as JSON, CSV or MessagePack straight into the
// response. It knows no storage and no cluster: those are behind Backend.
//
// The mapping from error kinds to status codes and from outcomes to InfluxDB's
// wording stands in errors.go and write.go, and nowhere else.
package httpd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/ql"
)

// InfluxVersion is what X-Influxdb-Version says: clients parse it to learn
// which dialect they may speak (Chronograf reads "-c" as Enterprise: never use it).
const InfluxVersion = "1.8.10"

// WriteRequest is one parsed /write. The batch is the handler's and is reused
// as soon as Write returns.
type WriteRequest struct {
	Database, Policy string // Policy "": the default one
	Consistency      string // any, one, quorum, all or ""
	Batch            *column.WriteBatch
	Refused          int    // points of the body that are not in Batch, for they may not be stored
	Reason           string // of the first of them

	Hinted bool // set by the backend: some points are durable on this node only, for want of a leader
}

// ReadConsistency says what a query may miss.
type ReadConsistency string

// The levels of read consistency.
const (
	ReadLinearizable ReadConsistency = "linearizable" // nothing that was acknowledged before it; "" means the same
	ReadLeader       ReadConsistency = "leader"       // what a new leader acknowledged that the old one has not heard of yet
	ReadStale        ReadConsistency = "stale"        // what the replica asked has not heard of; needs no quorum
)

// QueryRequest is one statement of a /query.
type QueryRequest struct {
	Statement        ql.Statement
	Database, Policy string
	Read             ReadConsistency
	MaxStaleness     time.Duration // of ReadStale: what was acknowledged longer ago is not missed; 0: anything may be
	ChunkRows        int           // most rows per frame
	User             *User         // who asks, and may: the answer holds what they may see
	Warning          string        // set by Execute: what the client is told beside the answer
	Stale            bool          // set by Execute: the answer may miss what was acknowledged in the last Age
	Age              time.Duration // < 0: it is not known since when
}

// Backend is the node behind the API. Its methods are safe for concurrent use
// and give up when ctx ends.
type Backend interface {
	// Write makes the points durable before it returns nil. A KindConflict error
	// means that some points were rejected and the others are stored.
	Write(ctx context.Context, r *WriteRequest) error
	// Execute runs one statement. A nil Result means a statement without rows.
	Execute(ctx context.Context, r *QueryRequest) (exec.Result, error)
	// Ready tells why the node cannot take writes now; nil: it can.
	Ready(ctx context.Context) error
}

// Config bounds what strangers can make the node do. Zero limits mean none.
type Config struct {
	Version        string // DSDB's own
	MaxBody        int64  // bytes of a body as sent; above: 413
	MaxDecoded     int64  // bytes of a body when inflated; above: 413
	MaxWrites      int    // carried out at the same time; above: 503 after WriteWait
	MaxBodies      int64  // bytes of all bodies that are held at the same time, inflated; above: 503
	WriteWait      time.Duration
	WriteTimeout   time.Duration // until a write is answered with 503 timeout
	QueryTimeout   time.Duration
	MaxQueries     int              // running at the same time; above: an error
	MaxAnswer      int64            // bytes of an answer that must be collected before it is sent; above: an error
	Verify         http.HandlerFunc // POST /debug/verify; nil: it is not there
	Snapshot       http.HandlerFunc // GET /snapshot; nil: it is not there
	Pprof          bool
	LogRequests    bool
	AcceptUnsigned bool
	Auth           Auth
	Wall           func() time.Time // the time of points that come without; nil: time.Now
}

// Handler serves the API. Make it with New, and Close it after its http.Server has shut down.
type Handler struct {
	cfg     Config
	backend Backend
	log     *slog.Logger
	metrics *metrics
	mux     *http.ServeMux
	gate    *gate

	writes  chan struct{} // one token per write that is carried out
	bodies  holdings
	queries atomic.Int64
	states  writeStates
	boot    uint64 // makes request ids unique between restarts
	serial  atomic.Uint64

	background sync.WaitGroup // async queries
	ctx        context.Context
	cancel     context.CancelFunc
}

// New returns a handler in front of b. Its metrics go to reg, which /metrics serves.
func New(cfg Config, b Backend, log *slog.Logger, reg *prometheus.Registry) *Handler {
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Handler{cfg: cfg, backend: b, log: log, metrics: newMetrics(reg), gate: newGate(cfg.Auth),
		mux: http.NewServeMux(), boot: uint64(time.Now().UnixNano()), ctx: ctx, cancel: cancel}
	h.bodies.most = cfg.MaxBodies
	if cfg.MaxWrites > 0 {
		h.writes = make(chan struct{}, cfg.MaxWrites)
	}
	h.routes(reg)
	return h
}

// Close ends queries that run in the background and waits for them.
func (h *Handler) Close() {
	h.cancel()
	h.background.Wait()
}

func (h *Handler) routes(reg *prometheus.Registry) {
	h.handle("/write", h.gate.signedIn(h.serveWrite), "POST")
	h.handle("/api/v2/write", h.gate.signedIn(h.serveWriteV2), "POST")
	h.handle("/query", h.gate.signedIn(h.serveQuery), "GET", "POST")
	h.handle("/api/v2/query", h.gate.open(h.serveFlux), "POST")
	h.handle("/ping", h.gate.open(h.servePing), "GET", "HEAD")
	h.handle("/status", h.gate.open(h.serveStatus), "GET", "HEAD")
	h.handle("/health", h.gate.open(h.serveHealth), "GET", "HEAD")
	h.handle("/ready", h.gate.open(h.serveReady), "GET", "HEAD")
	h.handle("/metrics", h.gate.adminOnly(metricsHandler(reg)), "GET", "HEAD")
	h.handle("/debug/vars", h.gate.adminOnly(varsHandler(reg, h.cfg.Version)), "GET")
	if h.cfg.Verify != nil {
		h.handle("/debug/verify", h.gate.adminOnly(h.cfg.Verify), "POST")
	}
	if h.cfg.Snapshot != nil {
		h.handle("/snapshot", h.gate.adminOnly(h.cfg.Snapshot), "GET", "HEAD")
	}
	if h.cfg.Pprof {
		h.routePprof()
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %s; the API is /write, /query, /ping, /health, /ready and /metrics", r.URL.Path))
	})
}

// handle registers fn for path and the methods given; OPTIONS is answered for
// CORS, any other method with 405.
func (h *Handler) handle(path string, fn guarded, methods ...string) {
	allow := strings.Join(append(methods, "OPTIONS"), ", ")
	h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		for _, m := range methods {
			if r.Method == m {
				fn.serve(w, r)
				return
			}
		}
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here; use "+allow)
	})
}

// ServeHTTP adds the headers that every answer has, counts and logs the request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := h.setHeaders(w.Header(), r)
	rec := &recorder{ResponseWriter: w}
	defer func() {
		cut := false
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			cut = !h.reportPanic(rec, r, id, p)
		}
		d := time.Since(start)
		h.metrics.observe(r.Pattern, r.Method, rec.code(), d) // the path as registered: a bounded set
		if h.cfg.LogRequests {
			h.log.Info("request", "method", r.Method, "path", r.URL.Path, "status", rec.code(), "bytes", rec.bytes,
				"remote", r.RemoteAddr, "agent", r.UserAgent(), "request_id", id, "duration", d.Seconds())
		}
		if cut {
			panic(http.ErrAbortHandler) // the client is to see that there would be more
		}
	}()
	h.mux.ServeHTTP(rec, r)
}

// reportPanic turns a broken invariant into a 500 that names the request; the
// stack goes to the log. It reports false if the answer had begun.
func (h *Handler) reportPanic(rec *recorder, r *http.Request, id string, p any) bool {
	stack := make([]byte, 16<<10)
	stack = stack[:runtime.Stack(stack, false)]
	h.log.Error("request failed by a bug of ours", "path", r.URL.Path, "request_id", id, "panic", fmt.Sprint(p), "stack", string(stack))
	if rec.status != 0 {
		return false
	}
	rec.Header().Del("Content-Encoding")
	writeError(rec, http.StatusInternalServerError, "internal error; the log of this node has the details under request id "+id)
	return true
}

func (h *Handler) setHeaders(hd http.Header, r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 128 {
		id = h.requestID()
	}
	hd["Request-Id"] = []string{id}
	hd["X-Request-Id"] = hd["Request-Id"]
	hd["X-Influxdb-Version"] = influxVersion
	hd["X-Influxdb-Build"] = influxBuild
	hd["X-Dsdb-Version"] = []string{h.cfg.Version}
	hd["X-Content-Type-Options"] = noSniff
	if origin := r.Header.Get("Origin"); origin != "" {
		hd.Set("Access-Control-Allow-Origin", origin)
		hd.Set("Vary", "Origin")
		hd.Set("Access-Control-Allow-Methods", "DELETE, GET, OPTIONS, POST, PUT")
		hd.Set("Access-Control-Allow-Headers", "Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, X-CSRF-Token, X-HTTP-Method-Override")
		hd.Set("Access-Control-Expose-Headers", "Date, X-InfluxDB-Version, X-InfluxDB-Build")
	}
	return id
}

var (
	influxVersion = []string{InfluxVersion}
	influxBuild   = []string{"OSS"}
	noSniff       = []string{"nosniff"}
)

// requestID returns an id in the shape of a UUID, unique to this process and request.
func (h *Handler) requestID() string {
	var id [16]byte
	n := h.serial.Add(1)
	binary.BigEndian.PutUint32(id[:], uint32(h.boot))
	binary.BigEndian.PutUint32(id[4:], uint32(h.boot>>32)&0xffff0fff|0x1000)
	binary.BigEndian.PutUint64(id[8:], n&0x0fffffffffffffff|8<<60)
	text := make([]byte, 0, 36)
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, []byte{b})
	}
	return string(text)
}

// recorder remembers the status and size of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(code int) {
	if r.status == 0 {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush sends what is buffered, for chunked answers.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
