package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// Bounds of streams.
const (
	maxIdle   = 8 // connections to one peer that wait for their next stream
	idleTime  = 30 * time.Second
	graceTime = 5 * time.Second // for the opener to end its side after the handler has
	maxServes = 256             // stream connections of one peer at once
)

// Stream is a sequence of messages in each direction. One goroutine may send
// while another receives; Close may be called by any, and releases both.
type Stream struct {
	conn    *conn
	ctx     context.Context
	receive func(stall time.Duration) (frame, error)
	watch   func() bool // ends the watch of ctx; nil on the handler's side
	closing sync.Once
	writing sync.Mutex

	mu     sync.Mutex       // guards what follows
	limits [2]time.Duration // how long a message sent and one received may take; 0: as long as it likes
	sent   bool             // this side's end
	got    error            // the other side's end: io.EOF or its error
	broken error            // why the connection is of no use any more
}

// Open begins a stream on a connection of its own. KindUnavailable means that
// the process was not reached. Once ctx ends, Send and Recv fail and the
// handler's context ends. Close must be called.
func (p *Peers) Open(ctx context.Context, to dsdb.NodeID, method string) (*Stream, error) {
	if len(method) > math.MaxUint8 {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "stream method of %d bytes", len(method))
	}
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	q, err := p.lookup(to)
	if err != nil {
		return nil, err
	}
	for {
		c := q.streams.take()
		pooled := c != nil
		if !pooled {
			if c, err = q.dial(ctx, streaming); err != nil {
				return nil, dsdb.Errorf(dsdb.KindUnavailable, "process %s cannot be reached: %w", q.uuid, err)
			}
		}
		s, err := openStream(ctx, c, method)
		if err == nil {
			p.metrics.Streams.Add(1)
			return s, nil
		}
		c.end()
		if !pooled || ctx.Err() != nil {
			return nil, err
		}
	}
}

// openStream asks for a stream and waits until the other side has taken it, so
// that a pooled connection that has died is found out before it matters.
func openStream(ctx context.Context, c *conn, method string) (*Stream, error) {
	s := &Stream{conn: c, ctx: ctx, receive: c.readWithin}
	s.watch = context.AfterFunc(ctx, func() { c.Close() })
	left := uint64(0)
	if deadline, ok := ctx.Deadline(); ok {
		left = uint64(max(int64(time.Until(deadline)), 1))
	}
	b := appendShort(binary.LittleEndian.AppendUint64(beginFrame(nil), left), method)
	endFrame(b, 0, kindOpen, 0)
	err := c.write(b, 1, writeTime)
	var f frame
	if err == nil {
		f, err = c.readWithin(handshakeTime)
	}
	if err == nil && f.kind != kindReady {
		err = unexpected(f.kind)
	}
	if err != nil {
		s.watch()
		if ctx.Err() != nil {
			return nil, contextError(ctx.Err())
		}
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "process %s cannot be reached: %w", c.peer.uuid, err)
	}
	return s, nil
}

// Send sends one message; b is free again when it returns. It waits while the
// other side is slow to receive. After an error the stream is of no use.
func (s *Stream) Send(b []byte) error {
	if len(b) > MaxMessage {
		return dsdb.Errorf(dsdb.KindTooLarge, "message of %d bytes: at most %d are allowed", len(b), MaxMessage)
	}
	return s.write(kindData, b)
}

func (s *Stream) write(k kind, b []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	err, stall := s.broken, s.limits[0]
	if s.sent && err == nil {
		err = errStreamClosed
	}
	s.sent = s.sent || k == kindEnd
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var deadline time.Time
	if stall > 0 {
		deadline = time.Now().Add(stall)
	}
	h := header(k, b)
	if err = s.conn.SetWriteDeadline(deadline); err == nil {
		bufs := net.Buffers{h[:], b}
		_, err = bufs.WriteTo(s.conn.Conn)
	}
	if err != nil {
		return s.fail(err)
	}
	m := &s.conn.peer.owner.metrics
	m.FramesSent.Add(1)
	m.BytesSent.Add(uint64(headerSize + len(b)))
	return nil
}

// Recv returns the next message, which is the caller's. It returns io.EOF after
// the last one if the other side has ended well, else the error that ended it.
func (s *Stream) Recv() ([]byte, error) {
	s.mu.Lock()
	err, stall := s.broken, s.limits[1]
	if s.got != nil {
		err = s.got
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f, err := s.receive(stall)
	if err != nil {
		return nil, s.fail(err)
	}
	switch f.kind {
	case kindData:
		return f.body, nil
	case kindEnd:
		return nil, s.ended(f.body)
	}
	return nil, s.fail(unexpected(f.kind))
}

// ended notes how the other side ended and returns it.
func (s *Stream) ended(body []byte) error {
	err := io.EOF
	if len(body) > 0 {
		err = decodeFailure(body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = err
	return err
}

// fail notes that the connection broke, and returns what to tell of it.
func (s *Stream) fail(err error) error {
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
	case s.ctx.Err() != nil:
		s.broken = contextError(s.ctx.Err())
	case dsdb.KindOf(err) == dsdb.KindCorrupt:
		s.broken = err
	default:
		s.broken = dsdb.Errorf(dsdb.KindUnavailable, "the stream to process %s was lost: %w", s.conn.peer.uuid, err)
	}
	return s.broken
}

// CloseSend tells the other side that no more messages follow: its Recv returns io.EOF.
func (s *Stream) CloseSend() error { return s.write(kindEnd, nil) }

// Close ends the stream. The opening side must call it once it is done: before
// the other side has ended it breaks the stream off, and the handler's context
// ends. On the handler's side it is as if the handler had returned nil.
func (s *Stream) Close() error {
	if s.watch == nil {
		s.finish(nil)
	} else {
		s.closing.Do(s.release)
	}
	return nil
}

// release gives the connection back if it can carry another stream.
func (s *Stream) release() {
	alive := s.watch()
	s.mu.Lock()
	clean, sent := alive && s.got != nil && s.broken == nil, s.sent
	if !clean {
		s.broken = errStreamClosed
		s.conn.Close() // frees who is sending or receiving
	}
	s.mu.Unlock()
	if clean && !sent {
		clean = s.CloseSend() == nil
	}
	s.mu.Lock()
	s.broken = errStreamClosed
	s.mu.Unlock()
	if !clean || !s.conn.peer.streams.put(s.conn) {
		s.conn.end()
	}
}

// finish tells the other side how the handler ended, if it has not been told.
func (s *Stream) finish(err error) {
	var b []byte
	if err != nil {
		b = appendFailure(nil, err)
	}
	_ = s.write(kindEnd, b) // who cannot be told finds out
}

// within makes the stream fail if a message sent or received takes longer, 0:
// as long as it likes.
func (s *Stream) within(send, receive time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = [2]time.Duration{send, receive}
}

var errStreamClosed = &dsdb.Error{Kind: dsdb.KindCanceled, Text: "the stream is closed"}

// readWithin returns the next frame of a stream's connection, within d if that is not 0.
func (c *conn) readWithin(d time.Duration) (frame, error) {
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return frame{}, err
	}
	return c.read(maxDataFrame)
}

// pool keeps connections to a peer that wait for their next stream.
type pool struct {
	peer *peer

	mu     sync.Mutex
	idle   []*conn // the one used last is last
	expiry *time.Timer
	serves int // incoming stream connections
}

// take returns a connection, nil if there is none.
func (l *pool) take() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) == 0 {
		return nil
	}
	c := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	return c
}

// put keeps a connection for a while. It reports false if it is not wanted.
func (l *pool) put(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) >= maxIdle || l.peer.ctx.Err() != nil {
		return false
	}
	l.idle = append(l.idle, c)
	if l.expiry == nil {
		l.expiry = time.AfterFunc(idleTime, l.clear)
	} else {
		l.expiry.Reset(idleTime)
	}
	return true
}

// clear ends all that wait.
func (l *pool) clear() {
	l.mu.Lock()
	idle := l.idle
	l.idle = nil
	if l.expiry != nil {
		l.expiry.Stop()
	}
	l.mu.Unlock()
	for _, c := range idle {
		c.end()
	}
}

// enter takes a place for an incoming stream connection, if there is one.
func (l *pool) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serves >= maxServes {
		return false
	}
	l.serves++
	return true
}

func (l *pool) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves--
}

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
		return dsdb.Errorf(dsdb.KindUnavailable, "process %s does not serve %q yet", p.opt.Self.UUID, method)
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
