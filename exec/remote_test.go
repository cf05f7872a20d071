package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
)

// pipe returns the two ends of a connection in memory. What one end sends is
// copied and scribbled over afterwards, so that whoever keeps it is found out.
func pipe() (*pipeConn, *pipeConn) {
	ab, ba := make(chan []byte), make(chan []byte)
	a := &pipeConn{in: ba, out: ab, closed: make(chan struct{})}
	b := &pipeConn{in: ab, out: ba, closed: make(chan struct{})}
	a.peer, b.peer = b, a
	return a, b
}

type pipeConn struct {
	in     <-chan []byte
	out    chan<- []byte
	closed chan struct{}
	once   sync.Once
	peer   *pipeConn
	quiet  bool // what was sent is left alone

	mu     sync.Mutex
	budget int // messages that may be sent before the connection breaks; 0: no end
	sent   int
	bytes  int
}

var errBroken = errors.New("connection reset")

func (c *pipeConn) Send(b []byte) error {
	c.mu.Lock()
	c.sent++
	c.bytes += len(b)
	broken := c.budget > 0 && c.sent > c.budget
	c.mu.Unlock()
	if broken {
		c.Close()
		return errBroken
	}
	m := bytes.Clone(b)
	for i := range b {
		if c.quiet {
			break
		}
		b[i] = '#'
	}
	select {
	case c.out <- m:
		return nil
	case <-c.closed:
	case <-c.peer.closed:
	}
	return errBroken
}

func (c *pipeConn) Recv() ([]byte, error) {
	select {
	case b := <-c.in:
		return b, nil
	case <-c.closed:
		return nil, errBroken
	case <-c.peer.closed:
		return nil, io.EOF
	}
}

func (c *pipeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// cluster spreads the shards of a world: node 0 is the one that is asked.
type cluster struct {
	w       *world
	o       Options
	node    map[dsdb.ShardID]int
	remotes []*Remote
	conns   []*pipeConn // this node's ends
	wg      sync.WaitGroup
	errs    []error
}

// newCluster starts as many other nodes as it needs for one query.
func newCluster(ctx context.Context, w *world, node map[dsdb.ShardID]int, o Options) *cluster {
	c := &cluster{w: w, o: o, node: node}
	c.start(ctx, w.open)
	return c
}

// start starts the other nodes, on which open opens shards.
func (c *cluster) start(ctx context.Context, open Open) {
	nodes := 0
	for _, n := range c.node {
		nodes = max(nodes, n)
	}
	o := c.o
	c.errs = make([]error, nodes)
	for i := range nodes {
		here, there := pipe()
		c.conns = append(c.conns, here)
		c.remotes = append(c.remotes, NewRemote(here))
		c.wg.Go(func() { c.errs[i] = Serve(ctx, there, open, o) })
	}
}

func (c *cluster) open(ctx context.Context, id dsdb.ShardID) (Source, error) {
	if n := c.node[id]; n > 0 {
		return c.remotes[n-1].Source(id), nil
	}
	return c.w.open(ctx, id)
}

// close ends the query everywhere and returns the first error of a node.
func (c *cluster) close() error {
	for _, r := range c.remotes {
		r.Close()
	}
	c.wg.Wait()
	return errors.Join(c.errs...)
}

// spread places the shards of a world on this node and up to three others.
func spread(r *rand.Rand, w *world) map[dsdb.ShardID]int {
	node := map[dsdb.ShardID]int{}
	nodes := 1 + r.IntN(3)
	for _, s := range w.shards {
		node[s.id] = r.IntN(nodes + 1)
	}
	if r.IntN(4) == 0 { // nothing here
		for id := range node {
			node[id] = 1 + r.IntN(nodes)
		}
	}
	return node
}

// farAnswer answers a statement with the shards of w spread.
func farAnswer(w *world, text string, node map[dsdb.ShardID]int, o Options) (string, error) {
	p, err := compile(w, text)
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	c := newCluster(ctx, w, node, o)
	r, err := Run(ctx, p, c.open, o)
	if err != nil {
		return "", err
	}
	got, err := printFrames(ctx, r)
	return got, errors.Join(err, c.close())
}

// TestRandomQueriesFar says that answers do not depend on where shards lie, to
// the last bit: values here do not add up exactly.
func TestRandomQueriesFar(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 100
	}
	far := 0
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 7))
		companions := r.IntN(4) == 0
		w := inexactWorld(r, !companions)
		text := randomQuery(r, companions)
		o := Options{Workers: 1 + r.IntN(3), ChunkRows: 1 + r.IntN(9)}
		if r.IntN(4) == 0 {
			o.MemoryLimit = oneOf[int64](r, 20, 40, 80) << 10
		}
		want, err := answer(w, text, o)
		if err != nil && dsdb.KindOf(err) != dsdb.KindTooLarge {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		got, ferr := farAnswer(w, text, spread(r, w), o)
		if err != nil || ferr != nil {
			if ferr != nil && (o.MemoryLimit == 0 || dsdb.KindOf(ferr) != dsdb.KindTooLarge) {
				t.Fatalf("seed %d: %s: %v", seed, text, ferr)
			}
			continue
		}
		if got != want {
			t.Fatalf("seed %d: %s\nspread\n%s\non one node\n%s", seed, text, got, want)
		}
		far++
		for _, s := range w.shards {
			if len(s.scans) > 0 && !s.closed {
				t.Fatalf("seed %d: shard %d is still open", seed, s.id)
			}
		}
	}
	if far < seeds*3/4 {
		t.Errorf("only %d of %d queries were answered", far, seeds)
	}
}

// inexactWorld is a randomWorld whose floats need all their bits. Its tiles are
// always cut the same way.
func inexactWorld(r *rand.Rand, ties bool) *world {
	w := randomWorld(r, ties)
	for _, s := range w.shards {
		for i := range s.points {
			if f, ok := s.points[i].fields["f"].(float64); ok {
				s.points[i].fields["f"] = f + r.Float64()*1e-3
			}
		}
		s.wide, s.known = 1, 1
	}
	return w
}

// TestSpreadManySeries compares many series of several morsels per shard.
func TestSpreadManySeries(t *testing.T) {
	w := manyRows(150, 20)
	for _, s := range w.shards {
		for i := range s.points {
			s.points[i].fields["v"] = s.points[i].fields["v"].(float64) / 7
		}
		s.wide, s.known = 1, 0
	}
	// A shard of the same time as the first, as of another partition.
	more := manyRows(100, 20).shards[0]
	more.id, more.wide, more.known = 3, 1, 0
	w.shards = append(w.shards, more)
	for _, text := range []string{
		"SELECT mean(v), sum(v) FROM m", "SELECT mean(v) FROM m WHERE time < 700000s GROUP BY time(10s) ORDER BY time DESC",
		"SELECT sum(v), median(v) FROM m GROUP BY h SLIMIT 150", "SELECT last(v), h FROM m GROUP BY h ORDER BY time DESC",
		"SELECT * FROM m ORDER BY time DESC LIMIT 1000 OFFSET 100", "SELECT v FROM m WHERE v > 2 AND h =~ /h0/ GROUP BY h LIMIT 3",
		"SELECT stddev(v), percentile(v, 30), distinct(w) FROM m WHERE time < 30s GROUP BY time(7s)",
		"SELECT distinct(v) FROM m", "SELECT mode(v) FROM m WHERE h != 'h001' GROUP BY h",
	} {
		for _, memory := range []int64{0, 1 << 20} {
			o := Options{Workers: 2, ChunkRows: 700, MemoryLimit: memory}
			want, err := answer(w, text, o)
			for _, node := range []map[dsdb.ShardID]int{{1: 1}, {1: 1, 2: 1, 3: 1}, {1: 2, 2: 1, 3: 3}, {2: 1, 3: 2}} {
				got, ferr := farAnswer(w, text, node, o)
				if got != want || fmt.Sprint(ferr) != fmt.Sprint(err) {
					t.Errorf("%s on %v: %d lines and error %v, on one node %d lines and error %v", text, node,
						strings.Count(got, "\n"), ferr, strings.Count(want, "\n"), err)
				}
			}
		}
	}
}
