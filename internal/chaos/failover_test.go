package chaos

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("kills", 5, "how often TestFailover kills a node")

// TestFailover kills one node after the other and measures how long it takes
// until the others take writes of all partitions again.
func TestFailover(t *testing.T) {
	inNetwork(t, 3, func(t *testing.T, c *Cluster) {
		load, err := NewLoad(t.Context(), c, 3)
		if err != nil {
			t.Fatal(err)
		}
		untilWritten(t, load, c.Nodes[0])
		var took []time.Duration
		for i := range *kills {
			victim, other := c.Nodes[i%3], c.Nodes[(i+1)%3]
			if err := victim.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			took = append(took, untilWritten(t, load, other))
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			ready(t, victim)
			time.Sleep(2 * time.Second) // it takes part again
		}
		slices.Sort(took)
		t.Logf("kill -9 of one of three: writable again after %v (median), %v (slowest) of %d", took[len(took)/2], took[len(took)-1], len(took))
	})
}

// untilWritten writes a point of many series, so that every partition gets one,
// until that succeeds, and returns how long it took.
func untilWritten(t *testing.T, l *Load, p *Process) time.Duration {
	var body strings.Builder
	for i := range 64 {
		fmt.Fprintf(&body, "failover,series=%d v=1i %d\n", i, time.Now().UnixNano())
	}
	began := time.Now()
	for time.Since(began) < 30*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		outcome := l.write(ctx, p, "", body.String())
		cancel()
		if outcome == written {
			return time.Since(began)
		}
	}
	t.Fatalf("no write succeeds 30 s after a node was killed: %s", p.Tail())
	return 0
}

func ready(t *testing.T, p *Process) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestS25RollingRestart restarts each node in turn while clients write, each
// of which tries a failed write once more, at another node. None may fail.
func TestS25RollingRestart(t *testing.T) {
	inNetwork(t, 3, func(t *testing.T, c *Cluster) {
		load, err := NewLoad(t.Context(), c, 3)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var failed, total [4]int
		done := make(chan int, len(failed))
		for w := range failed {
			go func() {
				for i := 0; ctx.Err() == nil; i++ {
					body := fmt.Sprintf("rolling,client=%d v=%di %d\n", w, i, load.base+int64(i))
					total[w]++
					if load.write(context.WithoutCancel(ctx), c.Nodes[i%3], "", body) != written &&
						load.write(context.WithoutCancel(ctx), c.Nodes[(i+1)%3], "", body) != written {
						failed[w]++
					}
				}
				done <- w
			}()
		}
		for _, p := range c.Nodes {
			time.Sleep(2 * time.Second)
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := p.Start(); err != nil {
				t.Error(err)
			}
			ready(t, p)
		}
		stop()
		writes, lost := 0, 0
		for range failed {
			w := <-done
			writes, lost = writes+total[w], lost+failed[w]
		}
		t.Logf("%d writes while each of three nodes was restarted, %d failed twice", writes, lost)
		if lost > 0 {
			t.Errorf("%d of %d writes failed though they were tried twice", lost, writes)
		}
		if odd := load.Odd(); len(odd) > 0 {
			t.Errorf("unexpected answers: %v", odd)
		}
	})
}
