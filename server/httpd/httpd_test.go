package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/exec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBackend stores batches as text and answers every statement with frames.
type fakeBackend struct {
	writes []string
	frames []*column.Frame
	asked  *QueryRequest // last
	result exec.Result   // of every statement, if it is set
	err    error
	ready  error
	hinted bool
	ages   []time.Duration // of the answers to statements, if those are stale
}

func (b *fakeBackend) Write(_ context.Context, r *WriteRequest) error {
	for i := range r.Batch.Tables {
		t := &r.Batch.Tables[i]
		b.writes = append(b.writes, fmt.Sprintf("%s/%s %s: %d rows at %v", r.Database, r.Policy, t.Measurement, t.Rows(), t.Times))
	}
	r.Hinted = b.hinted && r.Consistency == "any"
	return b.err
}

func (b *fakeBackend) Execute(ctx context.Context, r *QueryRequest) (exec.Result, error) {
	b.asked = r
	if len(b.ages) > 0 {
		r.Stale, r.Age, b.ages = true, b.ages[0], b.ages[1:]
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.result != nil {
		return b.result, nil
	}
	return &fakeResult{frames: b.frames}, nil
}

func (b *fakeBackend) Ready(context.Context) error { return b.ready }

type fakeResult struct{ frames []*column.Frame }

func (r *fakeResult) Next(context.Context) (*column.Frame, error) {
	if len(r.frames) == 0 {
		return nil, nil
	}
	f := r.frames[0]
	r.frames = r.frames[1:]
	return f, nil
}

func (r *fakeResult) Close() error { return nil }

func serve(t *testing.T, b *fakeBackend, change ...func(*Config)) func(method, path, body string, headers ...string) *http.Response {
	t.Helper()
	cfg := Config{Version: "v9", MaxBody: 1000, MaxDecoded: 4000, MaxWrites: 2, WriteWait: 10 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	h := New(cfg, b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.Close(); h.Close() })
	return func(method, path, body string, headers ...string) *http.Response {
		req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The table of /write: what is sent, and the status and words that InfluxDB answers.
func TestWriteAnswersInInfluxDBsWords(t *testing.T) {
	for _, c := range []struct {
		name, path, body string
		err              error
		status           int
		answer           string
	}{
		{"stored", "/write?db=d", "m v=1 1", nil, 204, ""},
		{"no database", "/write", "m v=1", nil, 400, `{"error":"database is required"}`},
		{"unknown database", "/write?db=x", "m v=1", dsdb.Errorf(dsdb.KindNotFound, `database not found: "x"`), 404, `{"error":"database not found: \"x\""}`},
		{"consistency", "/write?db=d&consistency=most", "m v=1", nil, 400, `{"error":"invalid consistency level"}`},
		{"precision", "/write?db=d&precision=x", "m v=1", nil, 400, `{"error":"invalid precision \"x\" (use n, u, ms, s, m or h)"}`},
		{"all lines bad", "/write?db=d", "m v=", nil, 400, `{"error":"unable to parse 'm v=': missing field value"}`},
		{"some lines bad", "/write?db=d", "m v=1\nm v=", nil, 400, `{"error":"partial write: unable to parse 'm v=': missing field value dropped=0"}`},
		{"conflict", "/write?db=d", "m v=1", dsdb.Errorf(dsdb.KindConflict, "partial write: x dropped=1"), 400, `{"error":"partial write: x dropped=1"}`},
		{"conflict and bad line", "/write?db=d", "m v=1\nm v=", dsdb.Errorf(dsdb.KindConflict, "partial write: x dropped=1"), 400, `{"error":"partial write: unable to parse 'm v=': missing field value\nx dropped=1"}`},
		{"overload", "/write?db=d", "m v=1", dsdb.Errorf(dsdb.KindUnavailable, "write failed: full"), 503, `{"error":"write failed: full"}`},
		{"timeout", "/write?db=d", "m v=1", dsdb.Errorf(dsdb.KindTimeout, "timeout"), 503, `{"error":"timeout"}`},
		{"empty", "/write?db=d", "", nil, 204, ""},
		{"too large", "/write?db=d", strings.Repeat("m v=1\n", 200), nil, 413, `{"error":"Request Entity Too Large"}`},
		{"v2", "/api/v2/write?bucket=d/r&precision=s", "m v=1 1", nil, 204, ""},
		{"v2 without bucket", "/api/v2/write", "m v=1 1", nil, 404, `{"error":"bucket \"\" not found: give bucket=DATABASE or bucket=DATABASE/RETENTION_POLICY"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			do := serve(t, &fakeBackend{err: c.err})
			r := do("POST", c.path, c.body)
			if got := strings.TrimSpace(bodyOf(t, r)); r.StatusCode != c.status || got != c.answer {
				t.Errorf("%d %s\nwant %d %s", r.StatusCode, got, c.status, c.answer)
			}
			if r.StatusCode == 503 && r.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			if r.StatusCode >= 400 && r.Header.Get("X-Influxdb-Error") == "" {
				t.Error("no X-Influxdb-Error")
			}
		})
	}
}

// A client is told how old a stale answer may be: of several statements the oldest.
func TestStaleAnswersAreMarked(t *testing.T) {
	for _, c := range []struct {
		ages []time.Duration
		want string
	}{
		{nil, ""},
		{[]time.Duration{0}, "0.000"},
		{[]time.Duration{1}, "0.001"},
		{[]time.Duration{1500 * time.Millisecond}, "1.500"},
		{[]time.Duration{time.Second, 90 * time.Second, 2 * time.Second}, "90.000"},
		{[]time.Duration{time.Second, -1, time.Second}, "unknown"},
	} {
		r := serve(t, &fakeBackend{ages: c.ages})("GET", "/query?q="+url.QueryEscape("SHOW DATABASES; SHOW DATABASES; SHOW DATABASES"), "")
		if got := r.Header.Get("X-Dsdb-Staleness"); got != c.want {
			t.Errorf("%v: %q, want %q", c.ages, got, c.want)
		}
	}
}

// A client is told that points are durable on one node only, also if others of
// the same body were refused.
func TestHintedWritesAreMarked(t *testing.T) {
	for _, c := range []struct {
		path, want string
		err        error
	}{
		{"/write?db=d&consistency=any", "1", nil},
		{"/write?db=d&consistency=any", "1", dsdb.Errorf(dsdb.KindConflict, "partial write: x dropped=1")},
		{"/write?db=d&consistency=quorum", "", nil},
		{"/write?db=d", "", nil},
	} {
		r := serve(t, &fakeBackend{hinted: true, err: c.err})("POST", c.path, "m v=1 1")
		if got := r.Header.Get("X-DSDB-Hinted"); got != c.want || (c.err == nil) != (r.StatusCode == 204) {
			t.Errorf("%s: status %d, X-DSDB-Hinted %q, want %q", c.path, r.StatusCode, got, c.want)
		}
	}
}

func TestTSEC8BodiesAreInflatedWithinBounds(t *testing.T) {
	line := "m v=1 1\n"
	bomb := strings.Repeat("m v=1 1\n", 100_000) // 800 kB
	for _, enc := range bodyEncodings[1:] {
		fn := func(s string) string { return string(encodeBody(enc, s)) }
		b := &fakeBackend{}
		do := serve(t, b, func(c *Config) { c.MaxBody = 1 << 20 })
		if r := do("POST", "/write?db=d", fn(line), "Content-Encoding", enc); r.StatusCode != 204 || len(b.writes) != 1 {
			t.Errorf("%s: %d %s", enc, r.StatusCode, bodyOf(t, r))
		}
		if r := do("POST", "/write?db=d", fn(bomb), "Content-Encoding", enc); r.StatusCode != 413 {
			t.Errorf("%s bomb: %d %s", enc, r.StatusCode, bodyOf(t, r))
		}
		if r := do("POST", "/write?db=d", "no such thing", "Content-Encoding", enc); r.StatusCode != 400 {
			t.Errorf("%s garbage: %d %s", enc, r.StatusCode, bodyOf(t, r))
		}
		if len(b.writes) != 1 {
			t.Errorf("%s: a refused body was written: %v", enc, b.writes)
		}
	}
	do := serve(t, &fakeBackend{})
	if r := do("POST", "/write?db=d", line, "Content-Encoding", "br"); r.StatusCode != 400 {
		t.Errorf("unknown encoding: %d", r.StatusCode)
	}
}

// A body that is longer than allowed is refused whole: what fits is not stored,
// whether the length is announced or the body just goes on.
func TestTSEC10LongBodiesAreNotCutOff(t *testing.T) {
	for _, announced := range []bool{true, false} {
		b := &fakeBackend{}
		h := New(Config{MaxBody: 1000, MaxDecoded: 4000}, b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		r := httptest.NewRequest("POST", "/write?db=d", strings.NewReader(strings.Repeat("m v=1 1\n", 126)))
		if !announced {
			r.ContentLength = -1
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 413 || len(b.writes) > 0 {
			t.Errorf("length announced: %v: %d %s, written: %d", announced, w.Code, w.Body, len(b.writes))
		}
		h.Close()
	}
}

// No answer is taken for a page, whatever names and statements it repeats.
func TestTSEC3AnswersAreNoPages(t *testing.T) {
	const script = "<script>alert(1)</script>"
	do := serve(t, &fakeBackend{frames: []*column.Frame{{Name: script, Columns: []string{script}, Cols: []column.Vector{intCol(dsdb.Integer, 1)}}}})
	at := "/query?db=" + url.QueryEscape(script) + "&q="
	for _, path := range []string{at + "SHOW+DATABASES", at + url.QueryEscape(script), "/write?db=" + url.QueryEscape(script),
		"/" + url.QueryEscape(script), "/ping?verbose=true", "/health", "/ready"} {
		method := "GET"
		if strings.HasPrefix(path, "/write") {
			method = "POST"
		}
		r := do(method, path, script)
		if kind := r.Header.Get("Content-Type"); strings.Contains(kind, "html") || kind == "" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, r.Header)
		}
	}
}

func intCol(typ dsdb.FieldType, v ...int64) column.Vector {
	return column.Vector{Type: typ, N: len(v), Ints: v}
}

func twoSeries() []*column.Frame {
	valid := column.NewBitmap(2)
	valid.Set(0)
	f := &column.Frame{Name: "cpu", Tags: dsdb.Tags{{Key: "host", Value: "a,b"}}, Columns: []string{"time", "v", "s"}, Partial: true,
		Cols: []column.Vector{intCol(dsdb.Time, 0, 1500000000), {Type: dsdb.Float, N: 2, Floats: []float64{1.5, 0}, Valid: valid},
			{Type: dsdb.String, N: 2, Offsets: []uint32{0, 1, 3}, Bytes: []byte("x\"y")}}}
	g := *f
	g.Partial = false
	g.Cols = []column.Vector{intCol(dsdb.Time, 2000000000), intCol(dsdb.Integer, -7), {Type: dsdb.NoType, N: 1}}
	h := &column.Frame{Name: "mem", Columns: []string{"time", "ok"}, Cols: []column.Vector{intCol(dsdb.Time, -1), intCol(dsdb.Boolean, 1)}}
	return []*column.Frame{f, &g, h}
}

func TestAnswersInEveryFormat(t *testing.T) {
	q := url.Values{"q": {"SELECT * FROM cpu"}, "db": {"d"}}
	for _, c := range []struct{ name, extra, accept, want string }{
		{"json", "", "", `{"results":[{"statement_id":0,"series":[{"name":"cpu","tags":{"host":"a,b"},"columns":["time","v","s"],` +
			`"values":[["1970-01-01T00:00:00Z",1.5,"x"],["1970-01-01T00:00:01.5Z",null,"\"y"],["1970-01-01T00:00:02Z",-7,null]],"partial":true},` +
			`{"name":"mem","columns":["time","ok"],"values":[["1969-12-31T23:59:59.999999999Z",true]]}]}]}` + "\n"},
		{"epoch", "&epoch=ms", "", `{"results":[{"statement_id":0,"series":[{"name":"cpu","tags":{"host":"a,b"},"columns":["time","v","s"],` +
			`"values":[[0,1.5,"x"],[1500,null,"\"y"],[2000,-7,null]],"partial":true},{"name":"mem","columns":["time","ok"],"values":[[0,true]]}]}]}` + "\n"},
		{"chunked", "&chunked=true&epoch=s", "", `{"results":[{"statement_id":0,"series":[{"name":"cpu","tags":{"host":"a,b"},"columns":["time","v","s"],` +
			`"values":[[0,1.5,"x"],[1,null,"\"y"]],"partial":true}],"partial":true}]}` + "\n" +
			`{"results":[{"statement_id":0,"series":[{"name":"cpu","tags":{"host":"a,b"},"columns":["time","v","s"],"values":[[2,-7,null]]}],"partial":true}]}` + "\n" +
			`{"results":[{"statement_id":0,"series":[{"name":"mem","columns":["time","ok"],"values":[[0,true]]}]}]}` + "\n"},
		{"csv", "", "text/csv", "name,tags,time,v,s\ncpu,\"host=a\\,b\",0,1.5,x\ncpu,\"host=a\\,b\",1500000000,,\"\"\"y\"\ncpu,\"host=a\\,b\",2000000000,-7,\n" +
			"\nname,tags,time,ok\nmem,,-1,true\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			do := serve(t, &fakeBackend{frames: twoSeries()})
			r := do("GET", "/query?"+q.Encode()+c.extra, "", "Accept", c.accept)
			if got := bodyOf(t, r); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	t.Run("pretty", func(t *testing.T) {
		do := serve(t, &fakeBackend{frames: twoSeries()})
		got := bodyOf(t, do("GET", "/query?"+q.Encode()+"&pretty=true", ""))
		if !strings.HasPrefix(got, "{\n    \"results\": [\n        {\n") || !strings.HasSuffix(got, "}\n") {
			t.Errorf("%s", got)
		}
	})
	t.Run("gzip", func(t *testing.T) {
		do := serve(t, &fakeBackend{frames: twoSeries()})
		r := do("GET", "/query?"+q.Encode(), "", "Accept-Encoding", "gzip")
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(z); err != nil || !bytes.HasPrefix(b, []byte(`{"results":[{"statement_id":0,"series"`)) {
			t.Errorf("%s %v", b, err)
		}
	})
	t.Run("msgpack", func(t *testing.T) {
		do := serve(t, &fakeBackend{frames: twoSeries()[2:]})
		got := bodyOf(t, do("GET", "/query?"+q.Encode(), "", "Accept", "application/x-msgpack"))
		want := "\x81\xa7results\x91\x82\xacstatement_id\x00\xa6series\x91\x83\xa4name\xa3mem\xa7columns\x92\xa4time\xa2ok\xa6values\x91\x92" +
			"\xc7\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\x3b\x9a\xc9\xff\xc3"
		if got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

func TestQueryErrors(t *testing.T) {
	do := serve(t, &fakeBackend{err: dsdb.Errorf(dsdb.KindNotFound, "database not found: d")})
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/query", 400, `{"error":"missing required parameter \"q\""}`},
		{"/query?q=SELEC", 400, `{"error":"error parsing query: found SELEC, expected SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL at line 1, char 1"}`},
		{"/query?q=SHOW+DATABASES%3BSHOW+USERS", 200, `{"results":[{"statement_id":0,"error":"database not found: d"},{"statement_id":1,"error":"not executed"}]}`},
		{"/query?q=SHOW+DATABASES&params=%7B", 400, `{"error":"error parsing query parameters: unexpected EOF"}`},
	} {
		r := do("GET", c.path, "")
		if got := strings.TrimSpace(bodyOf(t, r)); r.StatusCode != c.status || got != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.path, r.StatusCode, got, c.status, c.want)
		}
	}
}

// What a query may miss is asked for by parameters; wrong ones are refused.
func TestReadConsistency(t *testing.T) {
	b := &fakeBackend{}
	do := serve(t, b)
	for _, c := range []struct {
		params, answer string
		read           ReadConsistency
		staleness      time.Duration
	}{
		{"", "", ReadLinearizable, 0},
		{"&read_consistency=linearizable", "", ReadLinearizable, 0},
		{"&read_consistency=leader", "", ReadLeader, 0},
		{"&read_consistency=stale", "", ReadStale, 0},
		{"&read_consistency=stale&max_staleness=5s", "", ReadStale, 5 * time.Second},
		{"&read_consistency=one", `invalid read_consistency \"one\" (use linearizable, leader or stale)`, "", 0},
		{"&read_consistency=stale&max_staleness=soon", `invalid max_staleness \"soon\" (use a duration such as 5s)`, "", 0},
		{"&read_consistency=stale&max_staleness=0s", "invalid max_staleness", "", 0},
		{"&max_staleness=5s", "max_staleness needs read_consistency=stale", "", 0},
	} {
		b.asked = nil
		r := do("GET", "/query?q=SHOW+DATABASES"+c.params, "")
		switch body := bodyOf(t, r); {
		case c.answer != "":
			if r.StatusCode != http.StatusBadRequest || !strings.Contains(body, c.answer) || b.asked != nil {
				t.Errorf("%s: %d %s, want 400 %s", c.params, r.StatusCode, body, c.answer)
			}
		case b.asked == nil || b.asked.Read != c.read || b.asked.MaxStaleness != c.staleness:
			t.Errorf("%s: %d %s, asked %+v", c.params, r.StatusCode, body, b.asked)
		}
	}
}

// A GET that changes something works, with InfluxDB's warning.
func TestChangeByGETWarns(t *testing.T) {
	do := serve(t, &fakeBackend{})
	got := bodyOf(t, do("GET", "/query?q=CREATE+DATABASE+d", ""))
	want := `{"results":[{"statement_id":0,"messages":[{"level":"warning","text":"deprecated use of 'CREATE DATABASE' in a read only context, please use a POST request instead"}]}]}` + "\n"
	if got != want {
		t.Errorf("got %s", got)
	}
	if got := bodyOf(t, do("POST", "/query?q=CREATE+DATABASE+d", "")); got != `{"results":[{"statement_id":0}]}`+"\n" {
		t.Errorf("POST: got %s", got)
	}
}

func TestStatusEndpoints(t *testing.T) {
	b := &fakeBackend{}
	do := serve(t, b)
	check := func(method, path string, status int, part string) {
		t.Helper()
		r := do(method, path, "")
		if got := bodyOf(t, r); r.StatusCode != status || !strings.Contains(got, part) {
			t.Errorf("%s %s: %d %s", method, path, r.StatusCode, got)
		}
		if r.Header.Get("X-Influxdb-Version") != InfluxVersion || r.Header.Get("X-Dsdb-Version") != "v9" || r.Header.Get("Request-Id") == "" {
			t.Errorf("%s: headers %v", path, r.Header)
		}
	}
	check("GET", "/ping", 204, "")
	check("HEAD", "/ping", 204, "")
	check("GET", "/ping?verbose=true", 200, `"version":"1.8.10"`)
	check("GET", "/ping?wait_for_leader=1s", 204, "")
	check("GET", "/health", 200, `"status":"pass"`)
	check("GET", "/ready", 200, "ready")
	check("GET", "/status", 204, "")
	check("GET", "/metrics", 200, "dsdb_http_requests_total")
	check("GET", "/debug/vars", 200, `"memstats"`)
	check("GET", "/write", 405, "use POST, OPTIONS")
	check("OPTIONS", "/query", 204, "")
	check("GET", "/nothing", 404, "there is nothing at /nothing")
	check("GET", "/debug/pprof/", 404, "")
	b.ready = dsdb.Errorf(dsdb.KindUnavailable, "starting")
	check("GET", "/ready", 503, "starting")
	check("GET", "/health", 503, "fail")
	check("GET", "/ping?wait_for_leader=60ms", 503, "no leader")
	check("GET", "/ping", 204, "")
}

func TestTimesAreFormattedAsGoDoes(t *testing.T) {
	var c dateCache
	for _, ns := range []int64{0, 1, -1, 1e9, 1500000000, 951782400e9, dsdb.MinTime, dsdb.MaxTime, -62135596800e9 / 10, 86400e9 - 1, 86400e9, 123456789012345678} {
		if got, want := string(c.append(nil, ns)), time.Unix(0, ns).UTC().Format(time.RFC3339Nano); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func FuzzJSONString(f *testing.F) {
	f.Add("plain")
	f.Add("a\"b\\c\n\x00\xff\xed\xa0\x80é")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		want, err := json.Marshal(s) // puts U+FFFD where s is not UTF-8
		if err != nil {
			t.Fatal(err)
		}
		var wanted string
		if json.Unmarshal(want, &wanted) != nil || json.Unmarshal(appendJSONString(nil, s), &back) != nil || back != wanted {
			t.Errorf("%q: %q, want %q", s, back, wanted)
		}
	})
}

// Whatever a stranger sends as a body, no more than the limits allow comes out
// of it, and a refusal is one of the request.
func FuzzBody(f *testing.F) {
	for i, enc := range bodyEncodings {
		f.Add(uint8(i), []byte("m v=1 1\n"))
		f.Add(uint8(i), encodeBody(enc, strings.Repeat("m v=1 1\n", 1000)))
		f.Add(uint8(i), encodeBody(enc, "m v=1 1\n"))
	}
	h := New(Config{MaxBody: 4096, MaxDecoded: 6000}, &fakeBackend{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	f.Fuzz(func(t *testing.T, enc uint8, body []byte) {
		r := httptest.NewRequest("POST", "/write?db=d", bytes.NewReader(body))
		r.Header.Set("Content-Encoding", bodyEncodings[int(enc)%len(bodyEncodings)])
		var buf bytes.Buffer
		held := holding{of: &h.bodies}
		err := h.readBody(httptest.NewRecorder(), r, &buf, &held)
		if held.release(); h.bodies.bytes.Load() != 0 {
			t.Errorf("%d bytes are still held", h.bodies.bytes.Load())
		}
		if err == nil && buf.Len() > 6000 || buf.Cap() > 64<<10 {
			t.Errorf("%d bytes came out, in %d of memory", buf.Len(), buf.Cap())
		}
		if k := dsdb.KindOf(err); err != nil && k != dsdb.KindInvalid && k != dsdb.KindTooLarge {
			t.Errorf("kind %d: %v", k, err)
		}
	})
}

var bodyEncodings = []string{"", "gzip", "zstd", "snappy", "x-snappy-framed"}

func encodeBody(enc, s string) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch enc {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b) // the options are valid
	case "x-snappy-framed":
		w = s2.NewWriter(&b, s2.WriterSnappyCompat())
	case "snappy":
		return s2.EncodeSnappy(nil, []byte(s))
	default:
		return []byte(s)
	}
	_, _ = io.WriteString(w, s) // to memory
	_ = w.Close()
	return b.Bytes()
}
