package server

import (
	"context"
	"sync"
	"time"
)

// How often, and for how long, the leader of the catalogue is asked for those whom this
// node is about to turn away, all of them together.
const (
	catchUpEvery = 100 * time.Millisecond
	catchUpWait  = time.Second
)

// catchUp brings this node's copy of the catalogue up to what was acknowledged anywhere,
// for who cannot know that it lags. Whoever asks waits for a look that begins after that;
// one look at a time is under way, and they begin catchUpEvery apart: a flood of wrong
// passwords is no more for the leader than one.
type catchUp struct {
	ask func(ctx context.Context) error // a look: returns when the copy is up to date

	mu   sync.Mutex // guards what follows
	next *look      // has not begun; nil: nobody waits for one
	last *look      // has begun
}

type look struct {
	began time.Time
	done  chan struct{} // closed at its end; then err is set
	err   error
}

// await reports whether the copy includes, when it returns, what was acknowledged before
// the call.
func (c *catchUp) await(ctx context.Context) bool {
	c.mu.Lock()
	l, before := c.next, c.last
	first := l == nil
	if first {
		l = &look{done: make(chan struct{})}
		c.next = l
	}
	c.mu.Unlock()
	if first {
		c.run(context.WithoutCancel(ctx), l, before)
	}
	select {
	case <-l.done:
		return l.err == nil
	case <-ctx.Done():
		return false
	}
}

// run carries out a look, when its time has come.
func (c *catchUp) run(ctx context.Context, l, before *look) {
	defer close(l.done)
	if before != nil {
		<-before.done
		time.Sleep(catchUpEvery - time.Since(before.began))
	}
	c.mu.Lock()
	c.next, c.last, l.began = nil, l, time.Now()
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	l.err = c.ask(ctx)
}

// CatchUp implements httpd.Accounts.
func (a *accounts) CatchUp(ctx context.Context) bool {
	return len(a.view().Processes) > 1 && a.behind.await(ctx)
}
