package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// serveCalls runs the handlers of the calls that arrive until the connection
// ends, and waits for them.
func (c *conn) serveCalls() {
	s := served{conn: c, cancels: map[uint64]context.CancelFunc{}}
	s.out.conn = c
	ctx, stop := context.WithCancel(c.peer.ctx)
	for {
		f, err := c.read(maxCallFrame)
		if err == nil {
			err = s.take(ctx, f)
		}
		if err != nil {
			c.broken(err)
			break
		}
	}
	stop()
	c.Close()
	s.handlers.Wait()
}

// served are the calls under way on one connection of the answering side.
type served struct {
	conn     *conn
	out      batcher
	handlers sync.WaitGroup

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

// take starts or cancels a call.
func (s *served) take(ctx context.Context, f frame) error {
	d := decoder{b: f.body}
	id := d.u64()
	if f.kind == kindCancel && d.err == nil {
		s.finish(id)
		return nil
	}
	left, method := d.u64(), d.short()
	if d.err != nil || f.kind != kindRequest || len(d.b) > MaxCall {
		return unexpected(f.kind)
	}
	p := s.conn.peer.owner
	p.metrics.CallsServed.Add(1)
	p.handlers.mu.RLock()
	h := p.handlers.calls[method]
	p.handlers.mu.RUnlock()
	if h == nil {
		s.fail(id, dsdb.Errorf(dsdb.KindUnavailable, "%s does not answer %q yet", p.opt.Self.who(), method))
		return nil
	}
	ctx, cancel := limit(ctx, left)
	s.mu.Lock()
	full, twice := len(s.cancels) >= maxServed, s.cancels[id] != nil
	if !full && !twice {
		s.cancels[id] = cancel
	}
	s.mu.Unlock()
	if full || twice {
		cancel()
		s.fail(id, dsdb.Errorf(dsdb.KindUnavailable, "more than %d calls at once from one process", maxServed))
		return nil
	}
	s.handlers.Go(func() { s.run(ctx, h, id, d.b) })
	return nil
}

// limit ends ctx after so many nanoseconds, 0: never.
func limit(ctx context.Context, left uint64) (context.Context, context.CancelFunc) {
	if left == 0 || left > math.MaxInt64 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(left))
}

// finish forgets a call and ends its context.
func (s *served) finish(id uint64) {
	s.mu.Lock()
	cancel := s.cancels[id]
	delete(s.cancels, id)
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// run runs a handler and answers.
func (s *served) run(ctx context.Context, h CallHandler, id uint64, body []byte) {
	answer, err := guard(s.conn, func() ([]byte, error) { return h(ctx, s.conn.from, body) })
	s.finish(id)
	if err == nil && len(answer) > MaxCall {
		err = dsdb.Errorf(dsdb.KindTooLarge, "answer of %d bytes: at most %d are allowed", len(answer), MaxCall)
	}
	if err != nil {
		s.fail(id, err)
		return
	}
	buf, err := s.out.begin()
	if err != nil {
		return // the connection is over, or so much behind that the caller gives up
	}
	start := len(buf)
	buf = append(binary.LittleEndian.AppendUint64(beginFrame(buf), id), answer...)
	endFrame(buf, start, kindResponse, 0)
	s.out.end(buf)
}

func (s *served) fail(id uint64, failure error) {
	buf, err := s.out.begin()
	if err != nil {
		return
	}
	start := len(buf)
	buf = appendFailure(binary.LittleEndian.AppendUint64(beginFrame(buf), id), failure)
	endFrame(buf, start, kindFailure, 0)
	s.out.end(buf)
}

// guard runs a handler; its panic is an error of the call alone.
func guard[T any](c *conn, f func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.peer.owner.opt.Logger.Error("peer handler failed", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler failed: %v", r)
		}
	}()
	return f()
}
