package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/influxql"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/ql"
)

const (
	defaultChunkRows = 10000
	maxChunkRows     = 100000
	maxQueryText     = 2 << 20 // bytes of a POST form
)

// queryParams are the parameters of a /query request.
type queryParams struct {
	text, db, rp string
	params       map[string]any
	format       format
	read         ReadConsistency
	staleness    time.Duration // 0: any
	async        bool
}

// serveQuery is GET and POST /query.
func (h *Handler) serveQuery(w http.ResponseWriter, r *http.Request, u *User) {
	p, err := readQueryParams(w, r)
	if err != nil {
		writeError(w, status(err), err.Error())
		return
	}
	statements, err := ql.Parse(p.text, p.params)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	u, err = h.gate.permit(r, u, func(u *User) error { return u.mayQuery(r, statements, p.db) })
	if err != nil {
		writeError(w, status(err), err.Error())
		return
	}
	run := &queryRun{h: h, p: p, user: u, statements: statements, readOnlyRequest: r.Method != http.MethodPost}
	if p.async {
		h.background.Add(1)
		go func() {
			defer h.background.Done()
			run.all(h.ctx, discardEncoder{})
		}()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	run.header = w.Header()
	run.header.Set("Content-Type", p.format.contentType())
	out := newResponse(w, r)
	out.most = h.cfg.MaxAnswer
	run.all(r.Context(), p.format.encoder(out))
	out.close() // not after a panic: what there is must not look like the whole answer
}

func readQueryParams(w http.ResponseWriter, r *http.Request) (*queryParams, error) {
	if err := readForm(w, r); err != nil {
		return nil, err
	}
	text, err := queryText(r)
	if err != nil {
		return nil, err
	}
	p := &queryParams{text: text, db: r.FormValue("db"), rp: r.FormValue("rp"), async: r.FormValue("async") == "true"}
	if p.format, err = readFormat(r); err != nil {
		return nil, err
	}
	if err := p.readConsistency(r); err != nil {
		return nil, err
	}
	if raw := r.FormValue("params"); raw != "" {
		dec := json.NewDecoder(strings.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&p.params); err != nil {
			return nil, dsdb.Errorf(dsdb.KindInvalid, "error parsing query parameters: %w", err)
		}
	}
	return p, nil
}

// readForm reads the form in the body of a request, if there is one. What is
// malformed in it is missed where it is asked for.
func readForm(w http.ResponseWriter, r *http.Request) error {
	pace(w, r)
	r.Body = http.MaxBytesReader(w, r.Body, maxQueryText)
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxQueryText)
	}
	switch err := bodyError(err); dsdb.KindOf(err) {
	case dsdb.KindTooLarge:
		return dsdb.Errorf(dsdb.KindTooLarge, "the body of a query may have %d bytes at most", maxQueryText)
	case dsdb.KindUnavailable:
		return err
	}
	return nil
}

// readConsistency reads the parameters read_consistency and max_staleness.
func (p *queryParams) readConsistency(r *http.Request) (err error) {
	switch c := ReadConsistency(r.FormValue("read_consistency")); c {
	case "":
		p.read = ReadLinearizable
	case ReadLinearizable, ReadLeader, ReadStale:
		p.read = c
	default:
		return dsdb.Errorf(dsdb.KindInvalid, "invalid read_consistency %q (use linearizable, leader or stale)", string(c))
	}
	raw := r.FormValue("max_staleness")
	if raw == "" {
		return nil
	}
	if p.staleness, err = influxql.ParseDuration(raw); err != nil || p.staleness <= 0 {
		return dsdb.Errorf(dsdb.KindInvalid, "invalid max_staleness %q (use a duration such as 5s)", raw)
	}
	if p.read != ReadStale {
		return dsdb.Errorf(dsdb.KindInvalid, "max_staleness needs read_consistency=stale")
	}
	return nil
}

// queryText finds the statements: in the parameter q, or in a file of that name in a form.
func queryText(r *http.Request) (string, error) {
	if q := strings.TrimSpace(r.FormValue("q")); q != "" {
		return q, nil
	}
	if r.MultipartForm != nil {
		if f, _, err := r.FormFile("q"); err == nil {
			defer f.Close()
			b, err := io.ReadAll(f)
			if err != nil {
				return "", dsdb.Errorf(dsdb.KindInvalid, "read q: %w", err)
			}
			return string(b), nil
		}
	}
	return "", dsdb.Errorf(dsdb.KindInvalid, `missing required parameter "q"`)
}

// queryRun executes the statements of one request in order; the first that
// fails stops the others.
type queryRun struct {
	h               *Handler
	p               *queryParams
	user            *User
	statements      []ql.Statement
	readOnlyRequest bool
	header          http.Header   // of the answer; nil: nobody reads that
	age             time.Duration // of the oldest stale answer so far; < 0: not known
}

func (q *queryRun) all(ctx context.Context, enc encoder) {
	if q.h.cfg.QueryTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, q.h.cfg.QueryTimeout, dsdb.Errorf(dsdb.KindTimeout, "query-timeout limit exceeded"))
		defer cancel()
	}
	failed := false
	for i, s := range q.statements {
		enc.begin(i)
		if failed {
			enc.end(errNotExecuted, nil)
			continue
		}
		r := &QueryRequest{Statement: s, Database: q.p.db, Policy: q.p.rp,
			Read: q.p.read, MaxStaleness: q.p.staleness, ChunkRows: q.p.format.chunkRows, User: q.user}
		err := q.one(ctx, r, enc)
		failed = err != nil
		enc.end(err, q.messages(r))
	}
	enc.finish()
}

var errNotExecuted = dsdb.Errorf(dsdb.KindInvalid, "not executed")

// one runs a statement and encodes its frames.
func (q *queryRun) one(ctx context.Context, r *QueryRequest, enc encoder) error {
	start := time.Now()
	defer func() {
		q.h.metrics.queries.WithLabelValues(statementLabel(r.Statement)).Observe(time.Since(start).Seconds())
	}()
	n := q.h.queries.Add(1)
	defer q.h.queries.Add(-1)
	if limit := q.h.cfg.MaxQueries; limit > 0 && n > int64(limit) {
		return dsdb.Errorf(dsdb.KindUnavailable, "max-concurrent-queries limit exceeded(%d, %d)", n, limit)
	}
	res, err := q.h.backend.Execute(ctx, r)
	if err != nil || res == nil {
		return why(ctx, err)
	}
	defer res.Close()
	if r.Stale && q.header != nil {
		q.tellAge(r.Age)
	}
	return why(ctx, q.stream(ctx, res, enc))
}

// stalenessHeader tells how old the answer to a stale read is: seconds, rounded
// up, or "unknown". Several statements in one request are as old as the oldest of
// those that were answered before the first byte was sent.
const stalenessHeader = "X-Dsdb-Staleness"

func (q *queryRun) tellAge(age time.Duration) {
	if q.age < 0 || age < 0 {
		q.age = -1
		q.header.Set(stalenessHeader, "unknown")
		return
	}
	q.age = max(q.age, age)
	ms := (q.age + time.Millisecond - 1) / time.Millisecond
	q.header.Set(stalenessHeader, fmt.Sprintf("%d.%03d", ms/1000, ms%1000))
}

func (q *queryRun) stream(ctx context.Context, res exec.Result, enc encoder) error {
	for {
		f, err := res.Next(ctx)
		if err != nil || f == nil {
			return err
		}
		q.h.metrics.queryRows.Add(float64(f.Rows()))
		switch err := enc.frame(f); {
		case dsdb.KindOf(err) == dsdb.KindTooLarge:
			return err
		case err != nil:
			return dsdb.Errorf(dsdb.KindCanceled, "client is gone: %w", err)
		}
	}
}

// why replaces the error of an ended context by what ended it.
func why(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		if cause := context.Cause(ctx); cause != ctx.Err() {
			return cause
		}
	}
	return err
}

// messages warns of what the backend warns of, and of a statement that changes
// something in a GET request, as 1.x does.
func (q *queryRun) messages(r *QueryRequest) (list []string) {
	if r.Warning != "" {
		list = append(list, r.Warning)
	}
	if q.readOnlyRequest && !readOnly(r.Statement) {
		list = append(list, fmt.Sprintf("deprecated use of '%s' in a read only context, please use a POST request instead", statementName(r.Statement)))
	}
	return list
}

func readOnly(s ql.Statement) bool {
	switch s := s.(type) {
	case *influxql.SelectStatement:
		return s.Target == nil
	case *influxql.ExplainStatement:
		return true
	}
	return strings.HasPrefix(statementName(s), "SHOW")
}

// statementName returns the leading keywords of a statement, e.g. CREATE DATABASE.
func statementName(s ql.Statement) string {
	words := strings.Fields(s.String())
	n := 0
	for n < len(words) && n < 3 && words[n] == strings.ToUpper(words[n]) && !strings.ContainsAny(words[n], `"'`) {
		n++
	}
	if n == 0 {
		return "statement"
	}
	return strings.Join(words[:min(n, 2)], " ")
}

// statementLabel is the metric label of a statement: one of few words.
func statementLabel(s ql.Statement) string {
	word, _, _ := strings.Cut(statementName(s), " ")
	return strings.ToLower(word)
}

// format says how the answer is to look.
type format struct {
	accept    string // json, csv or msgpack
	unit      int64  // nanoseconds per unit of time columns; 0: RFC 3339
	pretty    bool
	chunked   bool
	chunkRows int
}

func readFormat(r *http.Request) (format, error) {
	f := format{accept: "json", chunkRows: defaultChunkRows, pretty: r.FormValue("pretty") == "true", chunked: r.FormValue("chunked") == "true"}
	for _, a := range strings.Split(r.Header.Get("Accept"), ",") {
		switch kind, _, _ := strings.Cut(strings.TrimSpace(a), ";"); kind {
		case "application/csv", "text/csv":
			f.accept = "csv"
		case "application/x-msgpack":
			f.accept = "msgpack"
		case "application/json", "*/*":
		default:
			continue
		}
		break
	}
	switch e := r.FormValue("epoch"); e {
	case "":
	case "ns", "n":
		f.unit = 1
	case "u", "µ", "us":
		f.unit = int64(time.Microsecond)
	case "ms":
		f.unit = int64(time.Millisecond)
	case "s":
		f.unit = int64(time.Second)
	case "m":
		f.unit = int64(time.Minute)
	case "h":
		f.unit = int64(time.Hour)
	default:
		f.unit = 1 // InfluxDB takes an unknown epoch for nanoseconds
	}
	if n, err := strconv.Atoi(r.FormValue("chunk_size")); f.chunked && err == nil && n > 0 {
		f.chunkRows = min(n, maxChunkRows)
	}
	return f, nil
}

func (f format) contentType() string {
	switch f.accept {
	case "csv":
		return "text/csv"
	case "msgpack":
		return "application/x-msgpack"
	}
	return "application/json"
}

func (f format) encoder(out *response) encoder {
	switch f.accept {
	case "csv":
		return &csvEncoder{out: out, unit: max(f.unit, 1), statement: -1}
	case "msgpack":
		return &msgpackEncoder{out: out, unit: f.unit, chunked: f.chunked}
	}
	return &jsonEncoder{out: out, format: f}
}
