package rpc

import (
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// Bounds on what waits for one connection.
const (
	maxControl = 8192     // messages
	maxBulk    = 32 << 20 // bytes
)

// link carries raft messages of one class to one peer. Its sender runs from the
// first need on and keeps a connection: it dials again when that is lost. While
// there is none, and no attempt at one is being made, messages are dropped.
type link struct {
	peer  *peer
	class class
	wake  chan struct{} // there are messages; holds one
	again chan struct{} // dial now; holds one

	mu      sync.Mutex
	queue   []raftnode.Envelope
	bytes   int  // of the entries in queue
	running bool // the sender
	resting bool // between two attempts to dial
}

func newLink(q *peer, c class) *link {
	return &link{peer: q, class: c, wake: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// Send passes raft messages on to another process. It never blocks; what
// cannot be kept is dropped and told to Raft.Unreachable.
func (p *Peers) Send(to dsdb.NodeID, msgs []raftnode.Envelope) {
	q, err := p.lookup(to)
	if err != nil {
		p.metrics.Dropped.Add(uint64(len(msgs)))
		return
	}
	for len(msgs) > 0 {
		c, n := classOf(&msgs[0]), 1
		for n < len(msgs) && classOf(&msgs[n]) == c {
			n++
		}
		q.links[c].push(msgs[:n])
		msgs = msgs[n:]
	}
}

// classOf returns the class of connection on which a message goes.
func classOf(e *raftnode.Envelope) class {
	if len(e.Message.GetEntries()) > 0 {
		return bulk
	}
	return control
}

// push queues messages, drops those for which there is no room, and starts the
// sender if it does not run.
func (l *link) push(msgs []raftnode.Envelope) {
	l.mu.Lock()
	kept := 0
	if !l.resting {
		for i := range msgs {
			size := weight(&msgs[i])
			if l.class == control && len(l.queue) >= maxControl || l.class == bulk && l.bytes+size > maxBulk {
				break
			}
			l.queue = append(l.queue, msgs[i])
			l.bytes += size
			kept++
		}
	}
	l.ensure()
	l.mu.Unlock()
	signal(l.wake)
	if kept < len(msgs) {
		l.peer.owner.metrics.Dropped.Add(uint64(len(msgs) - kept))
		l.peer.unreachable()
	}
}

// weight returns the bytes of the entries of a message, about.
func weight(e *raftnode.Envelope) int {
	n := 0
	for _, entry := range e.Message.GetEntries() {
		n += len(entry.GetData()) + 32
	}
	return n
}

// need makes the link have a connection, even with nothing to send.
func (l *link) need() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ensure()
}

// ensure starts the sender if it does not run. The caller holds mu.
func (l *link) ensure() {
	if !l.running && l.peer.ctx.Err() == nil {
		l.running = l.peer.owner.start(l.run)
	}
}

// retry ends a rest between two attempts.
func (l *link) retry() { signal(l.again) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// strangerTries is how often a process that the catalogue does not know is
// dialed in a row; then the next message has to start it again.
const strangerTries = 10

// run dials and sends until the peer is removed.
func (l *link) run() {
	var pause backoff
	for tries := 0; l.peer.ctx.Err() == nil; tries++ {
		if tries >= strangerTries && !l.peer.isKnown() {
			break
		}
		c, err := l.peer.dial(l.peer.ctx, l.class)
		if err != nil {
			l.peer.owner.opt.Logger.Debug("peer not reached", "peer", l.peer.who(), "class", l.class, "error", err)
			l.rest(pause.next())
			continue
		}
		tries = 0
		began := time.Now()
		l.serve(c)
		l.peer.unreachable() // what was sent last may not have arrived
		if time.Since(began) > lastRetry {
			pause = backoff{}
			l.drop(false)
		} else {
			l.rest(pause.next()) // a peer that hangs up at once is not to be pestered
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.bytes, l.running, l.resting = nil, 0, false, false
}

// rest drops what waits and what comes, until d is over or retry is called.
func (l *link) rest(d time.Duration) {
	l.drop(true)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.again:
	case <-l.peer.ctx.Done():
	}
	l.mu.Lock()
	l.resting = false
	l.mu.Unlock()
}

// drop forgets what waits.
func (l *link) drop(resting bool) {
	l.mu.Lock()
	n := len(l.queue)
	l.queue, l.bytes, l.resting = nil, 0, resting
	l.mu.Unlock()
	if n > 0 {
		l.peer.owner.metrics.Dropped.Add(uint64(n))
		l.peer.unreachable()
	}
}

// serve sends what waits over the connection until it breaks.
func (l *link) serve(c *conn) {
	gone := make(chan struct{})
	ended := l.peer.owner.start(func() {
		defer close(gone)
		_, _ = c.r.ReadByte() // the accepter sends nothing: this returns at the end
		c.Close()
	})
	if !ended {
		close(gone)
	}
	defer func() {
		c.end()
		<-gone
	}()
	var s sender
	for {
		select {
		case <-gone:
			return
		case <-l.wake:
		}
		for {
			l.mu.Lock()
			msgs := l.queue
			l.queue, l.bytes = s.free[:0], 0
			l.mu.Unlock()
			if len(msgs) == 0 {
				s.free = msgs
				break
			}
			if err := s.send(c, msgs); err != nil {
				l.peer.owner.metrics.Dropped.Add(uint64(len(msgs)))
				l.peer.unreachable()
				return
			}
			clear(msgs)
			s.free = msgs
		}
	}
}

// sender writes batches of messages and keeps its buffers.
type sender struct {
	free []raftnode.Envelope
	buf  []byte
}

// send writes the messages in frames, one write for each MiB.
func (s *sender) send(c *conn, msgs []raftnode.Envelope) error {
	for len(msgs) > 0 {
		var n int
		s.buf, n = appendRaftFrame(s.buf[:0], msgs)
		msgs = msgs[n:]
		if len(s.buf) > maxRaftFrame+headerSize {
			c.peer.owner.opt.Logger.Error("BUG: raft message is too large to send", "bytes", len(s.buf))
			continue
		}
		if err := c.write(s.buf, 1, writeTime); err != nil {
			return err
		}
		c.peer.owner.metrics.Sent.Messages.Add(uint64(n))
	}
	if cap(s.buf) > 4*softRaftFrame {
		s.buf = nil
	}
	return nil
}

// appendRaftFrame appends a frame of the first n messages: as many as fit.
func appendRaftFrame(dst []byte, msgs []raftnode.Envelope) (frame []byte, n int) {
	start := len(dst)
	dst = beginFrame(dst)
	for n < len(msgs) && n < 1<<16-1 && len(dst)-start < softRaftFrame {
		dst = appendEnvelope(dst, &msgs[n])
		n++
	}
	endFrame(dst, start, kindRaft, n)
	return dst, n
}

// serveRaft passes the messages that arrive on to raft.
func (c *conn) serveRaft() {
	for {
		f, err := c.read(maxRaftFrame)
		if err == nil && f.kind != kindRaft {
			err = unexpected(f.kind)
		}
		var msgs []raftnode.Envelope
		if err == nil {
			msgs, err = decodeEnvelopes(f.body, f.count)
		}
		if err != nil {
			c.broken(err)
			return
		}
		c.peer.owner.metrics.Received.Messages.Add(uint64(len(msgs)))
		if r := c.peer.owner.raft(); r != nil {
			step(r, &c.from, msgs)
		}
	}
}

// step gives messages to raft, in runs that come from the same id of the process.
func step(r Raft, from *Process, msgs []raftnode.Envelope) {
	for len(msgs) > 0 {
		id, n := from.node(msgs[0].Group), 1
		for n < len(msgs) && from.node(msgs[n].Group) == id {
			n++
		}
		r.Step(from.sender(msgs[0].Group), msgs[:n:n])
		msgs = msgs[n:]
	}
}
