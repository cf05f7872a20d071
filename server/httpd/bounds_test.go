package httpd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// endless is a result without end that counts the frames it has given out.
type endless struct{ frames int }

func (e *endless) Next(context.Context) (*column.Frame, error) {
	e.frames++
	return &column.Frame{Name: "m", Columns: []string{"s"}, Partial: true,
		Cols: []column.Vector{{Type: dsdb.String, N: 1, Offsets: []uint32{0, 100}, Bytes: bytes.Repeat([]byte("x"), 100)}}}, nil
}

func (e *endless) Close() error { return nil }

// Formats that are sent as a whole are not collected without end: whatever is
// selected, the client is told what to ask for instead.
func TestCollectedAnswersAreBounded(t *testing.T) {
	for _, c := range []struct{ name, extra, accept string }{{"msgpack", "", "application/x-msgpack"}, {"pretty", "&pretty=true", ""}} {
		t.Run(c.name, func(t *testing.T) {
			e := &endless{}
			do := serve(t, &fakeBackend{result: e}, func(c *Config) { c.MaxAnswer = 64 << 10 })
			got := bodyOf(t, do("GET", "/query?q=SHOW+DATABASES"+c.extra, "", "Accept", c.accept))
			if len(got) > 128<<10 || e.frames > 1000 || !strings.Contains(got, "ask for chunked=true") {
				t.Errorf("%d bytes of %d frames that end with %q", len(got), e.frames, got[max(0, len(got)-200):])
			}
		})
	}
}

// failing gives out some frames and then fails by a bug of ours.
type failing struct{ frames []*column.Frame }

func (f *failing) Next(context.Context) (*column.Frame, error) {
	if len(f.frames) == 0 {
		panic("BUG: of a test")
	}
	next := f.frames[0]
	f.frames = f.frames[1:]
	return next, nil
}

func (f *failing) Close() error { return nil }

// An answer that a bug of ours cuts off does not look like a whole one, in any
// format: there is none, or the connection breaks.
func TestAnswersThatAreCutOffAreNotWhole(t *testing.T) {
	large := &column.Frame{Name: "m", Columns: []string{"s"}, Cols: []column.Vector{{Type: dsdb.String, N: 1,
		Offsets: []uint32{0, 2 * flushBytes}, Bytes: bytes.Repeat([]byte("x"), 2*flushBytes)}}}
	for _, accept := range []string{"application/json", "text/csv", "application/x-msgpack"} {
		for _, encoding := range []string{"", "gzip"} {
			for _, extra := range []string{"", "&chunked=true"} {
				for name, frames := range map[string][]*column.Frame{"early": twoSeries(), "late": {large, large}} {
					srv := httptest.NewServer(New(Config{}, &fakeBackend{result: &failing{frames: frames}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
					rq, err := http.NewRequest("GET", srv.URL+"/query?q=SHOW+DATABASES"+extra, nil)
					if err != nil {
						t.Fatal(err)
					}
					rq.Header.Set("Accept", accept)
					rq.Header.Set("Accept-Encoding", encoding)
					if r, err := srv.Client().Do(rq); err == nil {
						b, err := io.ReadAll(r.Body)
						r.Body.Close()
						if told := r.StatusCode == http.StatusInternalServerError && strings.Contains(string(b), "request id"); !told && err == nil {
							t.Errorf("%s %q %q %s: status %d, %d bytes, no error", accept, encoding, extra, name, r.StatusCode, len(b))
						}
					}
					srv.Close()
				}
			}
		}
	}
}

// conn is a connection whose read deadline the test looks at. Reading from it
// fails when that is over, by the clock that the test moves.
type conn struct {
	http.ResponseWriter
	due      time.Time
	now      time.Time
	each     time.Duration // that a byte takes
	left     int           // bytes that come
	finished bool          // there was no deadline behind the last byte
}

func (c *conn) SetReadDeadline(at time.Time) error {
	c.due = at
	c.finished = c.left == 0 && at.IsZero()
	return nil
}

func (c *conn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), c.left, 100)
	if c.now = c.now.Add(time.Duration(n) * c.each); c.now.After(c.due) {
		return 0, os.ErrDeadlineExceeded
	}
	c.left -= n
	return copy(p, bytes.Repeat([]byte("#"), n)), nil
}

// Whoever sends a body slower than it may be does not keep a place for long,
// however much is announced; and a body that has come sets no time limit to what
// is done with it.
func TestTSEC14SlowBodiesEnd(t *testing.T) {
	h := New(Config{MaxBody: 100 << 20, MaxDecoded: 100 << 20}, &fakeBackend{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	for _, path := range []string{"/write?db=d", "/query?q=SHOW+DATABASES"} {
		for _, c := range []struct {
			name   string
			each   time.Duration
			left   int
			within time.Duration // 0: all of it comes
		}{
			{"fast", time.Microsecond, 1 << 20, 0},
			{"just fast enough", time.Second / minBodyRate, 1 << 20, 0},
			{"a little too slow", time.Second / minBodyRate * 3 / 2, 1 << 20, 31 * time.Second},
			{"a trickle", time.Second / 100, 1 << 20, 11 * time.Second},
			{"nothing", time.Hour, 1 << 20, time.Hour * 101},
		} {
			began := time.Now()
			conn := &conn{ResponseWriter: httptest.NewRecorder(), now: began, each: c.each, left: c.left}
			r := httptest.NewRequest("POST", path, conn)
			r.ContentLength = 100 << 20
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			h.ServeHTTP(conn, r)
			code, took := conn.ResponseWriter.(*httptest.ResponseRecorder).Code, conn.now.Sub(began)
			if whole := c.within == 0; whole != conn.finished || whole != (code/100 == 2) || !whole && (code != 503 || took > c.within) {
				t.Errorf("%s %s: status %d after %v, all of it came: %v", path, c.name, code, took, conn.finished)
			}
		}
	}
}

// Bodies that are held at the same time have a bound together, and what is held
// is given back with the answer.
func TestBodiesHaveABoundTogether(t *testing.T) {
	bomb := strings.Repeat("#", 3000)
	for _, enc := range bodyEncodings {
		b := &fakeBackend{}
		h := New(Config{MaxBody: 4000, MaxDecoded: 4000, MaxBodies: 8000}, b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		send := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/write?db=d", bytes.NewReader(encodeBody(enc, bomb)))
			r.Header.Set("Content-Encoding", enc)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		others := holding{of: &h.bodies}
		if err := others.take(6000); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if w := send(); w.Code != 503 || !strings.Contains(w.Body.String(), "write failed: the bodies") {
				t.Errorf("%q beside others: %d %s", enc, w.Code, w.Body)
			}
		}
		others.release()
		for range 3 {
			if w := send(); w.Code != 204 {
				t.Errorf("%q: %d %s", enc, w.Code, w.Body)
			}
		}
	}
}

// A form that is too large is said to be so, not to lack what was cut off.
func TestFormTooLarge(t *testing.T) {
	form := url.Values{"pad": {strings.Repeat("x", maxQueryText)}, "q": {"SHOW DATABASES"}}
	r := serve(t, &fakeBackend{})("POST", "/query", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if got := bodyOf(t, r); r.StatusCode != 413 || !strings.Contains(got, "the body of a query may have 2097152 bytes at most") {
		t.Errorf("%d %s", r.StatusCode, got)
	}
}

// hanging is a body that never comes.
type hanging struct{ asked, end chan struct{} }

func (b hanging) Read([]byte) (int, error) {
	b.asked <- struct{}{}
	<-b.end
	return 0, os.ErrDeadlineExceeded
}

// Clients whose bodies do not come keep nobody from writing.
func TestTSEC14SlowBodiesTakeNoPlace(t *testing.T) {
	h := New(Config{MaxWrites: 1, WriteWait: time.Millisecond}, &fakeBackend{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	slow := hanging{make(chan struct{}), make(chan struct{})}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/write?db=d", slow)) })
		<-slow.asked
	}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("POST", "/write?db=d", strings.NewReader("m v=1 1"))); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	close(slow.end)
	all.Wait()
}
