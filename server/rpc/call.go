package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
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
				err := l.err
				l.mu.Unlock()
				return nil, l.peer.unreached(err)
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
			return nil, &dsdb.Error{Kind: dsdb.KindUnavailable, Text: l.peer.who() + " cannot be reached: no connection in time", Err: ctx.Err()}
		}
	}
}

// connection returns the connection that there is, nil if there is none.
func (l *caller) connection() *calls {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
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
	for mutant.FewCallsAtOnce && len(s.pending) >= 3 && ctx.Err() == nil {
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
		s.mu.Lock()
	}
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
			return nil, unanswered(s.conn, ctx.Err())
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
	text := fmt.Sprintf("the connection to %s was lost: %v", c.peer.who(), err)
	if k == dsdb.KindTimeout {
		text = "timeout: " + text
	}
	return &dsdb.Error{Kind: k, Text: text, Err: err}
}

// unanswered is the error of a call whose ctx ended before the answer came.
func unanswered(c *conn, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout: no answer from " + c.peer.who() + " in time", Err: err}
	}
	return contextError(err)
}

func contextError(err error) error {
	if errors.Is(err, context.Canceled) {
		return dsdb.Errorf(dsdb.KindCanceled, "canceled: %w", err)
	}
	return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: err}
}
