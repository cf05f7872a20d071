package rpc

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
)

// A process that hangs, or whose machine does, keeps its connections. So whether
// one is up is told by what is heard of it. In each round of Options.PingEvery one
// of which nothing was heard for a round is pinged; one of which nothing was heard
// for quietRounds, not even an answer to that, is not up until it is heard of
// again. Rounds are counted, not seconds: a process that hung itself does not take
// all others for hanging when it goes on.
const (
	pingEvery   = time.Second
	quietRounds = 4
)

// methodPing is the call that every process answers, with the time by its clock.
const methodPing = "ping"

// answerTime is how long an earlier start of a process has to show that it is
// still there, when a later one greets.
const answerTime = time.Second

// hearing is what is heard of a peer.
type hearing struct {
	quiet   atomic.Int32 // rounds since
	at      time.Time    // about when that was last; guarded by the peer's mu
	pinging atomic.Bool  // a ping is under way
}

// heard notes that something came from the peer.
func (q *peer) heard() {
	if q.hearing.quiet.Load() != 0 {
		q.hearing.quiet.Store(0)
	}
}

// isUp reports whether there is a connection to the peer, and something was heard
// of it not long ago. The caller holds mu.
func (q *peer) isUp() bool { return len(q.live) > 0 && q.hearing.quiet.Load() <= quietRounds }

// lastUp returns since when a peer is up, or when it was last. The caller holds mu.
func (q *peer) lastUp() time.Time {
	if len(q.live) > 0 && !q.isUp() {
		return q.hearing.at
	}
	return q.since
}

// ear is the reading side of a connection, which is read by whoever hears.
type ear struct {
	net.Conn
	c *conn
}

// Read implements io.Reader.
func (e ear) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if n > 0 && e.c.peer != nil {
		e.c.peer.heard()
	}
	return n, err
}

// listen counts the rounds until Close.
func (p *Peers) listen() {
	t := time.NewTicker(p.opt.PingEvery)
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-t.C:
		}
		p.mu.RLock()
		for _, q := range p.registry.peers {
			q.round()
		}
		p.mu.RUnlock()
	}
}

// round notes that a round is over. A peer that is connected and not heard of is
// pinged, as is one that there is no connection to ping yet, or whose clock is to be
// looked at.
func (q *peer) round() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.live) == 0 {
		return
	}
	quiet := q.hearing.quiet.Add(1)
	switch {
	case quiet == 1:
		q.hearing.at = time.Now()
	case quiet == quietRounds+1:
		q.owner.opt.Logger.Warn("a node is connected and does not answer: does it, or its machine, hang?", "peer", who(q.roles, q.process.Addr, q.uuid))
	}
	if (q.clock.due() || quiet > 1 || q.calls.connection() == nil) && q.hearing.pinging.CompareAndSwap(false, true) {
		q.owner.start(q.ping)
	}
}

// ping has the peer say something, if it can.
func (q *peer) ping() {
	defer q.hearing.pinging.Store(false)
	ctx, cancel := context.WithTimeout(q.ctx, quietRounds*q.owner.opt.PingEvery)
	defer cancel()
	calls, err := q.calls.get(ctx)
	if err != nil {
		return
	}
	sent, began := q.owner.opt.Wall().UnixNano(), time.Now()
	answer, err := calls.do(ctx, methodPing, nil) // what comes back is heard, an error too
	if err != nil {
		return
	}
	took, after := time.Since(began), q.owner.opt.Wall().UnixNano()
	if ahead, known := offset(answer, sent, after, took); known {
		q.compare(ahead)
	}
}

// Ping returns nil if a process answers.
func (p *Peers) Ping(ctx context.Context, to dsdb.NodeID) error {
	_, err := p.Call(ctx, to, methodPing, nil)
	return err
}

// Up reports whether a process is connected, and was heard of not long ago.
func (p *Peers) Up(id dsdb.NodeID) bool {
	q, err := p.lookup(id)
	if err != nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.isUp()
}

// contest refuses a later start of a process of which an earlier one is still
// there: the later one runs on a copy of its folders. What a crash left of
// connections does not answer.
func (p *Peers) contest(g *greeting) error {
	p.mu.RLock()
	q := p.registry.peers[g.process.UUID]
	p.mu.RUnlock()
	if q == nil {
		return nil
	}
	q.mu.Lock()
	before, addr := q.process.Epoch, q.process.Addr
	later := q.instance != 0 && g.process.Epoch > before
	q.mu.Unlock()
	calls := q.calls.connection()
	if !later || calls == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, answerTime)
	defer cancel()
	if _, err := calls.do(ctx, methodPing, nil); err != nil {
		return nil
	}
	return refusef(badEpoch, "process %s at %s is at start %d, while its start %d runs at %s: a copied folder?",
		g.process.UUID, g.process.Addr, g.process.Epoch, before, addr)
}
