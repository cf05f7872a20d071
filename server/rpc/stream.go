package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
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
				return nil, q.unreached(err)
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
		return nil, c.peer.unreached(err)
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
	m := &s.conn.peer.owner.metrics.Sent
	m.Frames.Add(1)
	m.Bytes.Add(uint64(headerSize + len(b)))
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
		s.broken = dsdb.Errorf(dsdb.KindUnavailable, "the stream to %s was lost: %w", s.conn.peer.who(), err)
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
