package rpc

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// serveStreams runs the handlers of the streams that arrive on a connection,
// one after the other, until it ends.
func (c *conn) serveStreams() {
	if !c.peer.streams.enter() {
		return
	}
	defer c.peer.streams.leave()
	f, err := c.read(maxGreeting)
	for err == nil {
		d := decoder{b: f.body}
		left, method := d.u64(), d.short()
		if d.err != nil || f.kind != kindOpen {
			err = unexpected(f.kind)
			break
		}
		f, err = c.serveStream(left, method)
	}
	c.broken(err)
}

// serveStream runs one handler while it reads for it, and returns the frame that
// opens the next stream.
func (c *conn) serveStream(left uint64, method string) (frame, error) {
	ctx, cancel := limit(c.peer.ctx, left)
	defer cancel()
	v := &serving{in: make(chan frame), done: make(chan struct{})}
	v.Stream = &Stream{conn: c, ctx: ctx}
	v.receive = v.next
	if err := c.write(appendFrame(nil, kindReady, nil), 1, writeTime); err != nil {
		return frame{}, err
	}
	c.peer.owner.metrics.Streams.Add(1)
	unwatch := context.AfterFunc(ctx, func() { c.Close() })
	started := c.peer.owner.start(func() {
		defer close(v.done)
		v.finish(c.handle(ctx, method, v.Stream))
		unwatch()
		v.grace()
	})
	if !started {
		return frame{}, errClosed()
	}
	f, err := v.read()
	if err != nil {
		v.fail(err)
		cancel()
	}
	<-v.done
	return f, err
}

// handle runs the handler of a stream.
func (c *conn) handle(ctx context.Context, method string, s *Stream) error {
	p := c.peer.owner
	p.handlers.mu.RLock()
	h := p.handlers.streams[method]
	p.handlers.mu.RUnlock()
	if h == nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "%s does not serve %q yet", p.opt.Self.who(), method)
	}
	_, err := guard(c, func() (struct{}, error) { return struct{}{}, h(ctx, c.from, s) })
	if err != nil && c.peer.ctx.Err() != nil {
		return errClosed() // this process, or the peer's part in the cluster, is ending
	}
	return err
}

// serving is a stream on the handler's side. Its connection is read all the
// time, so that the opener's leaving is noticed while the handler computes: one
// message ahead of the handler.
type serving struct {
	*Stream
	in   chan frame    // closed when the opener has ended its side
	done chan struct{} // closed when the handler has returned and the peer was told

	turn  sync.Mutex
	ended bool // the opener has ended its side; guarded by turn
}

// read passes frames on to the handler until one opens the next stream.
func (v *serving) read() (frame, error) {
	for {
		f, err := v.conn.read(maxDataFrame)
		switch {
		case err != nil:
			return frame{}, err
		case f.kind == kindOpen && v.isEnded():
			return f, nil
		case f.kind != kindData && f.kind != kindEnd || v.isEnded():
			return frame{}, unexpected(f.kind)
		}
		if f.kind == kindEnd {
			v.end()
			continue
		}
		select {
		case v.in <- f:
		case <-v.done:
		}
	}
}

// next returns the next frame for the handler.
func (v *serving) next(stall time.Duration) (frame, error) {
	var late <-chan time.Time
	if stall > 0 {
		t := time.NewTimer(stall)
		defer t.Stop()
		late = t.C
	}
	select {
	case f, ok := <-v.in:
		if !ok {
			return frame{kind: kindEnd}, nil
		}
		return f, nil
	case <-v.ctx.Done():
		return frame{}, v.ctx.Err()
	case <-late:
		return frame{}, os.ErrDeadlineExceeded
	}
}

// end notes that the opener has ended its side.
func (v *serving) end() {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.ended = true
	_ = v.conn.SetReadDeadline(time.Time{})
	close(v.in)
}

func (v *serving) isEnded() bool {
	v.turn.Lock()
	defer v.turn.Unlock()
	return v.ended
}

// grace gives the opener a while to end its side too; what it still sends is
// passed over.
func (v *serving) grace() {
	v.turn.Lock()
	defer v.turn.Unlock()
	if !v.ended {
		_ = v.conn.SetReadDeadline(time.Now().Add(graceTime))
	}
}
