package exec

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
)

// tape is a connection whose other side says what was recorded, whatever it is told.
type tape struct {
	mu sync.Mutex
	in [][]byte
}

func (c *tape) Send([]byte) error { return nil }

func (c *tape) Recv() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) == 0 {
		return nil, io.EOF
	}
	b := c.in[0]
	c.in = c.in[1:]
	return b, nil
}

func (c *tape) Close() error { return nil }

// newTape cuts messages out of b: each begins with its length in two bytes.
func newTape(b []byte) *tape {
	c := &tape{}
	for len(b) >= 2 {
		n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
		c.in = append(c.in, bytes.Clone(b[2:2+n]))
		b = b[2+n:]
	}
	return c
}

// recorder keeps what a connection sends and receives.
type recorder struct {
	Conn
	mu             sync.Mutex
	sent, received []byte
}

func record(dst, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(b))), b...)
}

func (c *recorder) Send(b []byte) error {
	c.mu.Lock()
	c.sent = record(c.sent, b)
	c.mu.Unlock()
	return c.Conn.Send(b)
}

func (c *recorder) Recv() ([]byte, error) {
	b, err := c.Conn.Recv()
	c.mu.Lock()
	c.received = record(c.received, b)
	c.mu.Unlock()
	return b, err
}

// fuzzStatements are answered by the fuzzed side.
var fuzzStatements = []string{
	"SELECT mean(v), max(w) FROM m GROUP BY h", "SELECT v, w, h FROM m WHERE v > 1 LIMIT 4",
	"SELECT last(v), h, w FROM m GROUP BY h", "SELECT count(v) FROM m WHERE time >= 0 AND time < 20s GROUP BY time(3s) tz('Europe/Berlin')",
	"SELECT median(v), count(distinct(w)) FROM m WHERE h =~ /0/", "SELECT percentile(w, 50), s, o FROM m", "SELECT s, o FROM m ORDER BY time DESC",
	"SELECT first(s) FROM m", "SELECT distinct(s) FROM m WHERE s != h",
}

func fuzzWorld() *world {
	w := manyRows(3, 6)
	for _, s := range w.shards {
		for i := range s.points {
			s.points[i].fields["s"] = []string{"", "x", "yy"}[i%3]
			s.points[i].fields["o"] = i%2 == 0
		}
		s.wide = 2
	}
	return w
}

// conversation answers a statement with all shards on one other node and
// returns what went to it and what came back.
func conversation(t testing.TB, w *world, text string) (sent, received []byte) {
	p, err := compile(w, text)
	if err != nil {
		t.Fatal(text, err)
	}
	here, there := pipe()
	rec := &recorder{Conn: here}
	r := NewRemote(rec)
	done := make(chan error)
	go func() { done <- Serve(context.Background(), there, w.open, Options{}) }()
	res, err := Run(context.Background(), p, func(_ context.Context, id dsdb.ShardID) (Source, error) { return r.Source(id), nil }, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := printFrames(context.Background(), res); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return rec.sent, rec.received
}

// FuzzServe says that no sequence of requests makes Serve panic, hang or leave
// a shard open.
func FuzzServe(f *testing.F) {
	w := fuzzWorld()
	for _, text := range fuzzStatements {
		sent, _ := conversation(f, w, text)
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := Serve(context.Background(), newTape(b), w.open, Options{Workers: 2, MemoryLimit: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.shards {
			if len(s.scans) > 0 && !s.closed {
				t.Fatalf("shard %d is open", s.id)
			}
			s.scans = nil
		}
	})
}

// FuzzAnswers says that no answers of another node make a query panic or hang.
func FuzzAnswers(f *testing.F) {
	w := fuzzWorld()
	for i, text := range fuzzStatements {
		_, received := conversation(f, w, text)
		f.Add(uint8(i), received)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		text := fuzzStatements[int(which)%len(fuzzStatements)]
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRemote(newTape(b))
		res, err := Run(context.Background(), p, func(_ context.Context, id dsdb.ShardID) (Source, error) { return r.Source(id), nil },
			Options{Workers: 2, MemoryLimit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = printFrames(context.Background(), res)
		r.Close()
	})
}
