package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// Bounds of calls on one connection.
const (
	maxServed  = 1024     // handlers at once; more calls are refused
	maxWaiting = 64 << 20 // bytes that wait to be written
)

// Call asks another process to run the handler of a method and returns its
// answer, which is the caller's. An error of the handler comes with its kind,
// text and leader. If the process could not be asked, that is KindUnavailable;
// if the connection was lost or ctx ended after it may have been asked,
// KindTimeout, or KindCanceled if ctx was canceled. Calls to one process share a
// connection and may overtake each other.
func (p *Peers) Call(ctx context.Context, to dsdb.NodeID, method string, body []byte) ([]byte, error) {
	if len(body) > MaxCall || len(method) > math.MaxUint8 {
		return nil, dsdb.Errorf(dsdb.KindTooLarge, "call of %d bytes: at most %d are allowed", len(body), MaxCall)
	}
	p.metrics.Calls.Add(1)
	q, err := p.lookup(to)
	if err != nil {
		return nil, err
	}
	calls, err := q.calls.get(ctx)
	if err != nil {
		return nil, err
	}
	return calls.do(ctx, method, body)
}

// caller keeps the connection for calls to a peer. It is dialed when a call
// needs one; after a failure calls fail at once for a while.
type caller struct {
	peer *peer

	mu      sync.Mutex
	open    *calls
	dialing chan struct{} // closed when the attempt under way is over; nil if there is none
	err     error         // of the last attempt
	pause   backoff
	next    time.Time // no attempt before
}

// get returns the connection, after having dialed if need be.
func (l *caller) get(ctx context.Context) (*calls, error) {
	for first := true; ; first = false {
		l.mu.Lock()
		if l.open != nil {
			defer l.mu.Unlock()
			return l.open, nil
		}
		if l.dialing == nil {
			if !first || time.Now().Before(l.next) {
				defer l.mu.Unlock()
				return nil, dsdb.Errorf(dsdb.KindUnavailable, "process %s cannot be reached: %w", l.peer.uuid, l.err)
			}
			done := make(chan struct{})
			if !l.peer.owner.start(func() { l.dial(done) }) {
				defer l.mu.Unlock()
				return nil, errClosed()
			}
			l.dialing = done
		}
		done := l.dialing
		l.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "no connection in time", Err: ctx.Err()}
		}
	}
}

// dial makes one attempt, and then reads the answers until the connection ends.
func (l *caller) dial(done chan struct{}) {
	c, err := l.peer.dial(l.peer.ctx, calling)
	l.mu.Lock()
	l.dialing, l.err = nil, err
	if err != nil {
		l.next = time.Now().Add(l.pause.next())
	} else {
		l.pause = backoff{}
		l.open = newCalls(c)
	}
	open := l.open
	l.mu.Unlock()
	close(done)
	if err != nil {
		return
	}
	err = open.read()
	l.mu.Lock()
	l.open, l.err = nil, err
	l.mu.Unlock()
	open.fail(err)
	c.end()
}

// retry ends the time in which calls fail at once.
func (l *caller) retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = time.Time{}
}

// calls are the calls under way on one connection of the calling side.
type calls struct {
	conn *conn
	out  batcher

	mu      sync.Mutex
	last    uint64 // id given out
	pending map[uint64]*call
	err     error // why the connection is over
}

// call is one call under way.
type call struct {
	done  chan struct{} // holds one; sent to when body and err are set
	batch uint64        // in which the request was written
	body  []byte
	err   error
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newCalls(c *conn) *calls {
	s := &calls{conn: c, pending: map[uint64]*call{}}
	s.out.conn = c
	return s
}

// do sends a request and waits for its answer.
func (s *calls) do(ctx context.Context, method string, body []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	c := callPool.Get().(*call)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, lost(s.conn, s.err, dsdb.KindUnavailable)
	}
	s.last++
	id := s.last
	c.batch = math.MaxUint64
	s.pending[id] = c
	s.mu.Unlock()
	if err := s.request(id, c, ctx, method, body); err != nil {
		if s.take(id) == nil {
			<-c.done // fail was faster
		}
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if s.take(id) != nil {
			s.cancel(id)
			return nil, contextError(ctx.Err())
		}
		<-c.done // the answer is here, or about to be
	}
	answer, err := c.body, c.err
	c.body, c.err = nil, nil
	callPool.Put(c)
	return answer, err
}

// request queues the request and writes it if nobody else is writing.
func (s *calls) request(id uint64, c *call, ctx context.Context, method string, body []byte) error {
	left := int64(0)
	if deadline, ok := ctx.Deadline(); ok {
		left = max(int64(time.Until(deadline)), 1)
	}
	buf, err := s.out.begin()
	if err != nil {
		return err
	}
	start := len(buf)
	buf = binary.LittleEndian.AppendUint64(beginFrame(buf), id)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(left))
	buf = append(appendShort(buf, method), body...)
	endFrame(buf, start, kindRequest, 0)
	c.batch = s.out.batch // read by fail once the batcher has ended
	s.out.end(buf)
	return nil
}

func (s *calls) cancel(id uint64) {
	buf, err := s.out.begin()
	if err != nil {
		return
	}
	start := len(buf)
	buf = binary.LittleEndian.AppendUint64(beginFrame(buf), id)
	endFrame(buf, start, kindCancel, 0)
	s.out.end(buf)
}

// take removes a call from those under way, nil if it is not among them.
func (s *calls) take(id uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.pending[id]
	delete(s.pending, id)
	return c
}

// read hands answers to their callers until the connection ends.
func (s *calls) read() error {
	for {
		f, err := s.conn.read(maxCallFrame)
		if err != nil {
			s.conn.broken(err)
			return err
		}
		d := decoder{b: f.body}
		id := d.u64()
		if d.err != nil || f.kind != kindResponse && f.kind != kindFailure {
			s.conn.broken(unexpected(f.kind))
			return unexpected(f.kind)
		}
		c := s.take(id)
		if c == nil {
			continue // canceled
		}
		if f.kind == kindResponse {
			c.body = d.b
		} else {
			c.err = decodeFailure(d.b)
		}
		c.done <- struct{}{}
	}
}

// fail ends all calls: those that may have been written with KindTimeout, the
// others with KindUnavailable.
func (s *calls) fail(err error) {
	begun := s.out.stop(lost(s.conn, err, dsdb.KindUnavailable))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	for id, c := range s.pending {
		kind := dsdb.KindTimeout
		if c.batch >= begun {
			kind = dsdb.KindUnavailable
		}
		c.err = lost(s.conn, err, kind)
		delete(s.pending, id)
		c.done <- struct{}{}
	}
}

func lost(c *conn, err error, k dsdb.Kind) error {
	if k == dsdb.KindTimeout {
		return dsdb.Errorf(k, "timeout: the connection was lost: %w", err)
	}
	return dsdb.Errorf(k, "the connection to process %s was lost: %w", c.peer.uuid, err)
}

func contextError(err error) error {
	if errors.Is(err, context.Canceled) {
		return dsdb.Errorf(dsdb.KindCanceled, "canceled: %w", err)
	}
	return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: err}
}

// batcher writes frames that come from many goroutines. Who finds nobody
// writing writes at once; what is queued meanwhile goes out in the next write.
type batcher struct {
	conn *conn

	mu      sync.Mutex
	buf     []byte // waits
	spare   []byte
	frames  int
	batch   uint64 // number of the batch that waits
	begun   uint64 // number of the last one of which a byte may have been written, plus one
	writing bool
	err     error
}

// begin returns the buffer to append frames to, and locks it until end.
func (b *batcher) begin() ([]byte, error) {
	b.mu.Lock()
	if err := b.err; err != nil {
		b.mu.Unlock()
		return nil, err
	}
	if len(b.buf) > maxWaiting {
		b.mu.Unlock()
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "more than %d bytes wait to be sent to process %s", maxWaiting, b.conn.peer.uuid)
	}
	return b.buf, nil
}

// end queues one frame that was appended to buf, and sees that it is written.
func (b *batcher) end(buf []byte) {
	b.buf = buf
	b.frames++
	if b.writing {
		b.mu.Unlock()
		return
	}
	b.writing = true
	if b.flush(); b.writing && !b.conn.peer.owner.start(b.rest) {
		b.writing = false
	}
	b.mu.Unlock()
}

// rest writes until nothing waits.
func (b *batcher) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.writing {
		b.flush()
	}
}

// flush writes what waits; writing ends if nothing came meanwhile. mu is held
// but for the write.
func (b *batcher) flush() {
	buf, n := b.buf, b.frames
	b.buf, b.spare, b.frames = b.spare[:0], nil, 0
	b.batch++
	b.begun = b.batch
	b.mu.Unlock()
	err := b.conn.write(buf, n, writeTime)
	b.mu.Lock()
	if cap(buf) <= 1<<20 {
		b.spare = buf
	}
	if err != nil {
		b.conn.Close() // the reader tells everyone
		b.err = lost(b.conn, err, dsdb.KindUnavailable)
	}
	b.writing = b.err == nil && len(b.buf) > 0
}

// stop refuses all further frames with err. Batches below begun may have been written.
func (b *batcher) stop(err error) (begun uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	return b.begun
}

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
		s.fail(id, dsdb.Errorf(dsdb.KindUnavailable, "process %s does not answer %q yet", p.opt.Self.UUID, method))
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

// leaderOf returns the leader that an error of KindNotLeader names.
func leaderOf(err error) dsdb.NodeID {
	var e *dsdb.Error
	if errors.As(err, &e) {
		return e.Leader
	}
	return 0
}
