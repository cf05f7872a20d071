package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

// everywhere places shard i of a world on node i.
func everywhere(w *world) map[dsdb.ShardID]int {
	node := map[dsdb.ShardID]int{}
	for i, s := range w.shards {
		node[s.id] = i + 1
	}
	return node
}

// TestFailuresFar says the same as TestFailures of shards on other nodes: their
// errors keep kind and text, and a cancelled query leaves nothing behind.
func TestFailuresFar(t *testing.T) {
	for _, at := range []string{"scan", "next", "load", "cancel"} {
		for _, text := range []string{"SELECT mean(v) FROM m WHERE w < 90 GROUP BY h", "SELECT v FROM m", "SELECT v FROM m GROUP BY h LIMIT 3"} {
			w := manyRows(70, 50)
			p, err := compile(w, text)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			c := &cluster{w: w, node: everywhere(w), o: Options{Workers: 3}}
			c.start(context.Background(), func(_ context.Context, id dsdb.ShardID) (Source, error) {
				return &brokenShard{w.shards[id-1], at, cancel}, nil
			})
			r, err := Run(ctx, p, c.open, c.o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = printFrames(ctx, r)
			cancel()
			if at == "cancel" {
				if dsdb.KindOf(err) != dsdb.KindCanceled {
					t.Errorf("%s: %s: error %v", at, text, err)
				}
			} else if err == nil || err.Error() != errDisk.Error() || dsdb.KindOf(err) != dsdb.KindInternal {
				t.Errorf("%s: %s: error %v", at, text, err)
			}
			if err := c.close(); err != nil {
				t.Error(err)
			}
			for _, s := range w.shards {
				if !s.closed {
					t.Errorf("%s: %s: shard %d is open", at, text, s.id)
				}
			}
		}
	}
}

// TestLostConnection breaks a connection after each of its messages, on either
// side: until the answer is complete the query fails with KindUnavailable and
// nothing is left behind.
func TestLostConnection(t *testing.T) {
	w := manyRows(100, 20)
	for _, text := range []string{"SELECT mean(v) FROM m GROUP BY h", "SELECT v FROM m", "SELECT v FROM m GROUP BY h LIMIT 3"} {
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, here := range []bool{true, false} {
			failed := 0
			for budget := 1; ; budget++ {
				c := newCluster(context.Background(), w, everywhere(w), Options{Workers: 2})
				if here {
					c.conns[1].budget = budget
				} else {
					c.conns[1].peer.budget = budget
				}
				r, err := Run(context.Background(), p, c.open, c.o)
				if err == nil {
					_, err = printFrames(context.Background(), r)
				}
				_ = c.close()
				if err == nil {
					break
				}
				failed++
				if dsdb.KindOf(err) != dsdb.KindUnavailable {
					t.Fatalf("%s: after %d messages: %v", text, budget, err)
				}
				for _, s := range w.shards {
					if len(s.scans) > 0 && !s.closed {
						t.Fatalf("%s: after %d messages shard %d is open", text, budget, s.id)
					}
				}
			}
			if failed < 2 {
				t.Errorf("%s: the connection broke only %d times", text, failed)
			}
		}
	}
}

// TestDroppedShardFar says that a shard which the other node no longer has has no rows.
func TestDroppedShardFar(t *testing.T) {
	w := manyRows(2, 3)
	all := *w
	w.shards = w.shards[1:]
	for _, text := range []string{"SELECT count(v) FROM m", "SELECT count(v), sum(v) FROM m GROUP BY h", "SELECT * FROM m"} {
		p, err := compile(&all, text)
		if err != nil {
			t.Fatal(err)
		}
		c := newCluster(context.Background(), w, map[dsdb.ShardID]int{1: 1, 2: 1}, Options{})
		r, err := Run(context.Background(), p, c.open, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := printFrames(context.Background(), r)
		want, werr := answer(w, text, Options{})
		if err := errors.Join(err, werr, c.close()); err != nil || got != want {
			t.Errorf("%s: %v\n%s, want\n%s", text, err, got, want)
		}
	}
}

// TestErrorsFar says that kind, text and leader of an error survive, and that a
// file which is gone is recognised.
func TestErrorsFar(t *testing.T) {
	for _, err := range []error{
		dsdb.Errorf(dsdb.KindUnavailable, "no quorum: 1/3"),
		&dsdb.Error{Kind: dsdb.KindNotLeader, Text: "shard 1 is led elsewhere", Leader: 7},
		fmt.Errorf("open x: %w", fs.ErrNotExist),
		dsdb.Errorf(dsdb.KindCorrupt, "segment 3 at 17: %w", errDisk),
	} {
		w := manyRows(1, 1)
		c := &cluster{w: w, node: everywhere(w)}
		c.start(context.Background(), func(context.Context, dsdb.ShardID) (Source, error) { return nil, err })
		_, got := farRun(c, "SELECT v FROM m")
		var e *dsdb.Error
		if got == nil || got.Error() != err.Error() || dsdb.KindOf(got) != dsdb.KindOf(err) || errors.Is(got, fs.ErrNotExist) != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v became %v", err, got)
		}
		if errors.As(got, &e) && e.Kind == dsdb.KindNotLeader && e.Leader != 7 {
			t.Errorf("the leader became %d", e.Leader)
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
}

func farRun(c *cluster, text string) (string, error) {
	p, err := compile(c.w, text)
	if err != nil {
		return "", err
	}
	r, err := Run(context.Background(), p, c.open, c.o)
	if err != nil {
		return "", err
	}
	return printFrames(context.Background(), r)
}

// TestRawInSlicesFar says that rows which do not fit into the memory are asked
// for in slices of other nodes too, and that the bound holds here.
func TestRawInSlicesFar(t *testing.T) {
	w := manyRows(20, 500)
	for _, text := range []string{
		"SELECT v, w, h FROM m", "SELECT v FROM m ORDER BY time DESC",
		"SELECT * FROM m GROUP BY h", "SELECT v FROM m LIMIT 9000 OFFSET 5000",
	} {
		want, err := answer(w, text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		c := newCluster(context.Background(), w, everywhere(w), Options{MemoryLimit: 128 << 10, ChunkRows: 100})
		r, err := Run(context.Background(), p, c.open, c.o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := printFrames(context.Background(), r)
		if err := errors.Join(err, c.close()); err != nil || got != want {
			t.Errorf("%s: in slices %d lines and error %v, at once %d lines", text, strings.Count(got, "\n"), err, strings.Count(want, "\n"))
		}
		if b := &r.(*result).q.budget; b.peak.Load() > b.limit || b.used.Load() != 0 {
			t.Errorf("%s: took %d bytes of %d, kept %d", text, b.peak.Load(), b.limit, b.used.Load())
		}
	}
}

// TestLimitsFar says that each bound holds where the shard lies and where the query runs.
func TestLimitsFar(t *testing.T) {
	w := manyRows(50, 40)
	for _, c := range []struct {
		text, want  string
		here, there Options
	}{
		{"SELECT v FROM m", "max-select-series limit exceeded: (100/99)", Options{MaxSeries: 99}, Options{}},
		{"SELECT v FROM m", "max-select-series limit exceeded: (50/49)", Options{}, Options{MaxSeries: 49}},
		{"SELECT sum(v) FROM m", "max-select-series limit exceeded: (50/49)", Options{}, Options{MaxSeries: 49}},
		{"SELECT sum(v) FROM m", "max-select-point limit exceeed: (4000/3999)", Options{MaxPoints: 3999}, Options{}},
		{"SELECT sum(v) FROM m", "max-select-point limit exceeed: (2000/1999)", Options{}, Options{MaxPoints: 1999}},
		{"SELECT v FROM m", "max-select-point limit exceeed: (2000/1999)", Options{}, Options{MaxPoints: 1999}},
		{"SELECT sum(v) FROM m WHERE time >= 0 AND time < 700000s GROUP BY time(1s)", "query memory limit exceeded", Options{MemoryLimit: 1 << 20}, Options{}},
		{"SELECT median(v) FROM m", "query memory limit exceeded", Options{}, Options{MemoryLimit: 1 << 10}},
		{"SELECT sum(v) FROM m WHERE time >= 0 AND time < 50s GROUP BY time(1s)", "max-select-buckets limit exceeded: (50/10)", Options{MaxBuckets: 10}, Options{}},
	} {
		cl := &cluster{w: w, node: everywhere(w), o: c.there}
		cl.start(context.Background(), w.open)
		cl.o = c.here
		_, err := farRun(cl, c.text)
		if err == nil || dsdb.KindOf(err) != dsdb.KindTooLarge || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
		if err := cl.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCancelFar ends queries at random moments: they end soon, with KindCanceled
// or an answer, and the other nodes let go.
func TestCancelFar(t *testing.T) {
	w := manyRows(100, 50)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		text := oneOf(r, "SELECT mean(v) FROM m GROUP BY h", "SELECT * FROM m", "SELECT median(v) FROM m WHERE time < 50s GROUP BY time(1s)")
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(8000))*time.Microsecond)
		c := newCluster(context.Background(), w, everywhere(w), Options{Workers: 2})
		res, err := Run(ctx, p, c.open, c.o)
		if err == nil {
			_, err = printFrames(ctx, res)
		}
		cancel()
		if err != nil && dsdb.KindOf(err) != dsdb.KindCanceled && dsdb.KindOf(err) != dsdb.KindTimeout {
			t.Errorf("seed %d: %s: %v", seed, text, err)
		}
		if err := c.close(); err != nil {
			t.Errorf("seed %d: %s: %v", seed, text, err)
		}
		for _, s := range w.shards {
			if len(s.scans) > 0 && !s.closed {
				t.Errorf("seed %d: %s: shard %d is open", seed, text, s.id)
			}
		}
	}
}

// TestExplainFar says that EXPLAIN ANALYZE names the shards that lay elsewhere
// and counts what they read.
func TestExplainFar(t *testing.T) {
	w := manyRows(4, 30)
	p, err := compile(w, "SELECT sum(v) FROM m GROUP BY h")
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(context.Background(), w, map[dsdb.ShardID]int{2: 1}, Options{})
	a, err := Analyze(context.Background(), p, c.open, Options{})
	if err := errors.Join(err, c.close()); err != nil {
		t.Fatal(err)
	}
	if a.Series != 8 || a.Rows != 240 || a.Tiles != a.TilesByStats+a.TilesDecoded || a.Fragments != 1 || a.Exchanged == 0 {
		t.Errorf("%+v", a)
	}
	if text := strings.Join(a.lines(), "\n"); !strings.Contains(text, "remote: shards 2; 1 fragments, ") {
		t.Error(text)
	}
}

// TestShardsFailTogether has one node open all its shards at the same time, and
// tells of each why it could not: whoever asks again knows what not to ask.
func TestShardsFailTogether(t *testing.T) {
	w := manyRows(2, 3)
	p, err := compile(w, "SELECT count(v) FROM m")
	if err != nil {
		t.Fatal(err)
	}
	node := map[dsdb.ShardID]int{}
	for _, s := range w.shards {
		node[s.id] = 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var begun atomic.Int64
	all := make(chan struct{}) // closed when all are being opened
	c := &cluster{w: w, node: node}
	c.start(ctx, func(ctx context.Context, id dsdb.ShardID) (Source, error) {
		if begun.Add(1) == int64(len(w.shards)) {
			close(all)
		}
		select {
		case <-all:
			return nil, dsdb.Errorf(dsdb.KindUnavailable, "shard %d lags", id)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	r, err := Run(ctx, p, c.open, c.o)
	if err == nil {
		_, err = printFrames(ctx, r)
	}
	_ = c.close()
	var several *Unopened
	if len(w.shards) < 2 || !errors.As(err, &several) || len(several.All) != len(w.shards) || dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatalf("%d shards: %v", len(w.shards), err)
	}
	for i, s := range w.shards {
		if want := fmt.Sprintf("shard %d lags", s.id); !strings.Contains(several.All[i].Error(), want) {
			t.Errorf("error %d: %v, want %s", i, several.All[i], want)
		}
	}
}
