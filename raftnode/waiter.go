package raftnode

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// call waits for one outcome.
type call struct {
	done chan outcome
	gone atomic.Bool // nobody waits any more
}

type outcome struct {
	verdict dsdb.Verdict
	err     error
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan outcome, 1)} }}

func newCall() *call { return calls.Get().(*call) }

// Done implements Waiter.
func (c *call) Done(v dsdb.Verdict, err error) { c.done <- outcome{v, err} }

// Gone reports whether nobody wants to know any more: see gone.
func (c *call) Gone() bool { return c.gone.Load() }

// gone reports whether a waiter has a method Gone that says so. Who waits for what may
// never come is forgotten then, lest those pile up.
func gone(w Waiter) bool {
	g, knows := w.(interface{ Gone() bool })
	return knows && g.Gone()
}

// wait returns the outcome, or an error of KindTimeout or KindCanceled if ctx
// ends first. The call must not be used again.
func (c *call) wait(ctx context.Context) (dsdb.Verdict, error) {
	select {
	case o := <-c.done:
		calls.Put(c)
		return o.verdict, o.err
	case <-ctx.Done():
		c.gone.Store(true)
		return dsdb.Verdict{}, contextError(ctx.Err()) // the outcome may still come: c is not for reuse
	}
}

// gather waits for many outcomes.
type gather struct {
	mu   sync.Mutex
	open int   // guarded by mu
	err  error // the first; guarded by mu
	done chan struct{}
}

// newGather makes a gather that is held open until wait.
func newGather() *gather { return &gather{open: 1, done: make(chan struct{})} }

// add announces n more outcomes.
func (g *gather) add(n int) *gather {
	g.mu.Lock()
	g.open += n
	g.mu.Unlock()
	return g
}

// Done implements Waiter.
func (g *gather) Done(_ dsdb.Verdict, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	if g.open--; g.open == 0 {
		close(g.done)
	}
}

// wait returns when all outcomes are there, with the first error.
func (g *gather) wait(ctx context.Context) error {
	g.Done(dsdb.Verdict{}, nil)
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return contextError(ctx.Err())
	}
}
