package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dasudian/dsdb"
)

// maxStrangers bounds the processes that are known by their handshake alone.
const maxStrangers = 1024

// registry knows the other processes, by UUID and by each of their ids.
type registry struct {
	peers   map[string]*peer
	ids     map[dsdb.NodeID]*peer
	named   map[dsdb.NodeID]bool // ids that the catalogue has
	removed map[dsdb.NodeID]bool // ids that it had and has no longer
}

func newRegistry() registry {
	return registry{peers: map[string]*peer{}, ids: map[dsdb.NodeID]*peer{}, named: map[dsdb.NodeID]bool{}, removed: map[dsdb.NodeID]bool{}}
}

// peer is another process. Its connections of the classes control, bulk and
// call, in either direction, are live: while there is one, and something is heard
// of the peer, it is up.
type peer struct {
	owner   *Peers
	uuid    string
	ctx     context.Context // ends when the peer is removed, or at Close
	cut     context.CancelFunc
	links   [2]*link // control and bulk
	calls   caller
	streams pool
	hearing hearing

	mu sync.Mutex // guards what follows
	record
	liveness
	clock     clock
	reporting reporting
}

// record is what is known of a process.
type record struct {
	process  Process
	known    bool          // by the catalogue
	listed   string        // its address there, when that last changed
	roles    []dsdb.NodeID // its ids, from the catalogue or from itself
	instance uint64        // of its newest start that was met, in process.Epoch
	auth     string        // how it proved who it is
}

// liveness is whether a process is there.
type liveness struct {
	live    map[*conn]struct{}
	since   time.Time // the first of live came, or the last went
	probing bool
	lost    bool   // raft has been told that the process is down
	refusal string // what the last attempt to connect to it was refused with, "" if it was not
	starts  bool   // it said then that it is starting
}

// reporting paces what raft is told about dropped messages.
type reporting struct{ busy, again bool }

func (p *Peers) newPeer(uuid string) *peer {
	q := &peer{owner: p, uuid: uuid}
	q.record = record{process: Process{Cluster: p.opt.Self.Cluster, UUID: uuid}, auth: "none"}
	q.live = map[*conn]struct{}{}
	q.ctx, q.cut = context.WithCancel(p.ctx)
	for c := range q.links {
		q.links[c] = newLink(q, class(c))
	}
	q.calls.peer, q.streams.peer = q, q
	return q
}

// SetNodes gives the roles of all processes as the catalogue has them, this one
// included. Processes and ids that are gone, or that it had before and has no
// longer, are cut off and refused from then on; what has never been in it is not
// touched.
func (p *Peers) SetNodes(nodes []Node) {
	p.mu.Lock()
	named, dropped := map[string][]Node{}, map[string]bool{}
	for _, n := range nodes {
		switch {
		case n.UUID == "" || n.UUID == p.opt.Self.UUID:
		case n.Gone:
			dropped[n.UUID] = true
		default:
			named[n.UUID] = append(named[n.UUID], n)
		}
	}
	var gone, met []*peer
	for uuid, q := range p.registry.peers {
		if named[uuid] == nil && (dropped[uuid] || q.isKnown()) {
			delete(p.registry.peers, uuid)
			gone = append(gone, q)
		}
	}
	for uuid, roles := range named {
		q := p.registry.peers[uuid]
		if q == nil {
			q = p.newPeer(uuid)
			p.registry.peers[uuid] = q
		}
		q.name(roles)
		met = append(met, q)
	}
	p.registry.index(nodes, gone)
	p.mu.Unlock()
	for _, q := range gone {
		q.remove()
	}
	for _, q := range met {
		q.links[control].need()
	}
}

// index notes which process each id names and which ids are gone.
func (r *registry) index(nodes []Node, gone []*peer) {
	before := r.named
	r.named = map[dsdb.NodeID]bool{}
	for _, n := range nodes {
		if n.Gone {
			r.removed[n.ID] = true
		} else {
			r.named[n.ID] = true
		}
	}
	for id, q := range r.ids {
		if before[id] && !r.named[id] || slices.Contains(gone, q) {
			r.removed[id] = true
			delete(r.ids, id)
		}
	}
	for _, n := range nodes {
		if q := r.peers[n.UUID]; q != nil && !n.Gone {
			r.ids[n.ID] = q
			delete(r.removed, n.ID)
		}
	}
}

// isKnown reports whether the catalogue has the process.
func (q *peer) isKnown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known
}

// name takes what the catalogue says of the process. Which of its ids is the
// meta role's only the process itself says.
func (q *peer) name(roles []Node) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known, q.roles = true, q.roles[:0:0]
	for _, n := range roles {
		q.roles = append(q.roles, n.ID)
		if n.Addr == "" || n.Addr == q.listed {
			continue
		}
		q.listed = n.Addr
		if n.Addr != q.process.Addr {
			q.process.Addr = n.Addr
			q.retry()
		}
	}
}

// remove ends everything with the process for good.
func (q *peer) remove() {
	q.cut()
	q.streams.clear()
}

// judge decides about the process that greets: one that is not what the
// catalogue, or an earlier handshake, says is refused. want, if not nil, is whom
// this process meant to reach.
func (p *Peers) judge(g *greeting, want *peer) error {
	them, self := &g.process, &p.opt.Self
	switch {
	case them.UUID == self.UUID && g.instance == p.instance:
		return refusef(badSelf, "the address %s leads back to this process", them.Addr)
	case them.UUID == self.UUID || self.has(them.MetaID) || self.has(them.DataID):
		return refusef(badIdentity, "the process at %s says it is %s with ids %d and %d, which are this one's: a copied folder?",
			them.Addr, them.UUID, them.MetaID, them.DataID)
	case them.UUID == "" || len(them.ids()) == 0:
		return refusef(badIdentity, "the process at %s has no identity", them.Addr)
	case want != nil && them.UUID != want.uuid:
		return refusef(badIdentity, "process %s answers at %s, where %s is expected", them.UUID, them.Addr, want.uuid)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if err := p.registry.judge(them); err != nil {
		return err
	}
	q := p.registry.peers[them.UUID]
	if q == nil {
		if want != nil {
			return refusef(badRemoved, "process %s has been removed from the cluster", them.UUID)
		}
		if len(p.registry.peers) >= len(p.registry.named)+maxStrangers {
			return refusef(badCrowd, "too many processes that the catalogue does not know")
		}
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.process.Epoch; them.Epoch < e || them.Epoch == e && q.instance != 0 && q.instance != g.instance {
		return refusef(badEpoch, "process %s at %s is at start %d, of which start %d was seen elsewhere or before: a copied or restored folder?",
			them.UUID, them.Addr, them.Epoch, e)
	}
	return nil
}

// judge refuses a process whose ids are another's, or were removed.
func (r *registry) judge(them *Process) error {
	gone := true
	for _, id := range them.ids() {
		if q := r.ids[id]; q != nil && q.uuid != them.UUID {
			return refusef(badIdentity, "node %d is process %s, not %s at %s", id, q.uuid, them.UUID, them.Addr)
		}
		gone = gone && r.removed[id]
	}
	if gone {
		return refusef(badRemoved, "process %s at %s has been removed from the cluster", them.UUID, them.Addr)
	}
	return nil
}

// admit takes a connection whose handshake is done, and what it told about the
// other process, which may have changed since it was judged.
func (p *Peers) admit(c *conn, g *greeted, want *peer) error {
	if err := p.judge(&g.greeting, want); err != nil {
		return err
	}
	them := &g.process
	p.mu.Lock()
	q := p.registry.peers[them.UUID]
	if q == nil {
		q = p.newPeer(them.UUID)
		p.registry.peers[them.UUID] = q
	}
	for _, id := range them.ids() {
		if !p.registry.removed[id] && p.registry.ids[id] == nil {
			p.registry.ids[id] = q
		}
	}
	p.mu.Unlock()
	c.peer, c.from = q, *them
	p.metrics.Connections.Add(1)
	q.attach(c, g)
	return nil
}

// attach notes a connection of the peer and what the peer says of itself. Those
// of an earlier start of it, and an earlier one from it of the same class, end.
func (q *peer) attach(c *conn, g *greeted) {
	q.mu.Lock()
	defer q.mu.Unlock()
	newer := g.process.Epoch > q.process.Epoch || q.instance == 0
	restarted := newer && q.instance != 0 && !q.lost
	var old []*conn
	for o := range q.live {
		if newer || c.incoming && o.incoming && o.class == c.class {
			old = append(old, o)
		}
	}
	addr := q.process.Addr
	q.process, q.instance, q.auth = g.process, g.instance, c.auth
	if q.known && addr != "" && !newer || q.process.Addr == "" {
		q.process.Addr = addr // what a start says first holds: the catalogue learns of it only with a quorum
	}
	if !q.known {
		q.roles = g.process.ids()
	}
	q.lost = false
	q.heard()
	q.hearing.at = time.Now()
	if c.class != streaming {
		if len(q.live) == 0 {
			q.since = time.Now()
		}
		q.live[c] = struct{}{}
		q.refusal, q.starts = "", false
	}
	for _, o := range old {
		o.Close()
	}
	c.uncut = context.AfterFunc(q.ctx, func() { c.Close() })
	if restarted {
		q.owner.start(q.down)
	}
	q.retry()
}

// detach notes that a connection is over. With the last one the peer is down,
// perhaps with its process.
func (q *peer) detach(c *conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.live[c]; !ok {
		return
	}
	delete(q.live, c)
	if len(q.live) == 0 {
		q.since = time.Now()
	}
	q.suspect()
}

// refused notes that no connection came about, which may be since nobody
// listens at the peer's address, or since one side refuses the other.
func (q *peer) refused(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var x *refusal
	q.starts = errors.Is(err, errStarting)
	if q.refusal = ""; errors.As(err, &x) {
		q.refusal = x.Error()
	}
	if hungUp(err) && len(q.live) == 0 {
		q.suspect()
	}
}

// hungUp reports whether err is how a connection fails to an address where
// nobody listens, or where something listens that finds nobody behind it.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

// suspect looks whether the process of a peer that was met is still there. The
// caller holds mu.
func (q *peer) suspect() {
	if !q.probing && !q.lost && q.instance != 0 && q.ctx.Err() == nil {
		q.probing = q.owner.start(q.probe)
	}
}

// retry makes the links and calls dial at once what they would have left alone
// for a while. The caller holds mu.
func (q *peer) retry() {
	for _, l := range q.links {
		l.retry()
	}
	q.calls.retry()
}

// How a lost process is told from a lost network: nobody listens any more where
// the process was, three times in 200 ms, and every connection has ended.
const (
	probes     = 3
	probeEvery = 100 * time.Millisecond
)

// probe finds out whether a peer that lost a connection has lost its process,
// and tells raft if so. Silence is no proof: that is the network.
func (q *peer) probe() {
	refused := 0
	for refused < probes && q.refuses() {
		if refused++; refused < probes {
			sleep(q.ctx, probeEvery)
		}
	}
	q.mu.Lock()
	q.probing = false
	down := refused == probes && len(q.live) == 0 && q.ctx.Err() == nil
	q.lost = q.lost || down
	q.mu.Unlock()
	if down {
		q.down()
	}
}

// down tells raft that the process is gone, or the one that was there before it:
// whatever that led has no leader.
func (q *peer) down() {
	q.mu.Lock()
	ids := q.roles
	q.mu.Unlock()
	if r := q.owner.raft(); r != nil {
		q.owner.opt.Logger.Warn("peer is down", "peer", q.uuid, "nodes", ids)
		for _, id := range ids {
			r.PeerDown(id)
		}
	}
}

// refuses reports whether nobody listens at the peer's address. A process that
// listens says nothing until it is greeted; what stands in front of one that is
// gone (a proxy, a load balancer) takes the connection and hangs up.
func (q *peer) refuses() bool {
	ctx, cancel := context.WithTimeout(q.ctx, probeEvery)
	defer cancel()
	c, err := q.owner.connect(ctx, q.addr())
	if err != nil {
		return hungUp(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(probeEvery / 2)) // if that fails, so does Read
	_, err = c.Read(make([]byte, 1))
	return hungUp(err)
}

// who names the peer for people.
func (q *peer) who() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return who(q.roles, q.process.Addr, q.uuid)
}

// who names a process by the last of its ids, which is that of its data role if it
// has one, and by where it is reached; by its UUID as long as it has no id.
func who(ids []dsdb.NodeID, addr, uuid string) string {
	if len(ids) == 0 {
		return fmt.Sprintf("process %s (%s)", uuid, addr)
	}
	return fmt.Sprintf("node %d (%s)", ids[len(ids)-1], addr)
}

// unreached is the error of who had no connection to the peer.
func (q *peer) unreached(err error) error {
	return dsdb.Errorf(dsdb.KindUnavailable, "%s cannot be reached: %w", q.who(), err)
}

func (q *peer) addr() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.process.Addr
}

// unreachable tells raft that messages to the peer were dropped, soon and not
// too often. It never blocks.
func (q *peer) unreachable() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.reporting.busy {
		q.reporting.again = true
		return
	}
	q.reporting.busy = q.owner.start(q.report)
}

func (q *peer) report() {
	for {
		q.mu.Lock()
		ids := q.roles
		q.reporting.again = false
		q.mu.Unlock()
		if r := q.owner.raft(); r != nil {
			for _, id := range ids {
				r.Unreachable(id)
			}
		}
		sleep(q.ctx, 100*time.Millisecond)
		q.mu.Lock()
		if !q.reporting.again || q.ctx.Err() != nil {
			q.reporting.busy = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
	}
}

// lookup returns the process that id names.
func (p *Peers) lookup(id dsdb.NodeID) (*peer, error) {
	p.mu.RLock()
	q := p.registry.ids[id]
	p.mu.RUnlock()
	switch {
	case p.ctx.Err() != nil:
		return nil, errClosed()
	case q == nil && p.opt.Self.has(id):
		return nil, dsdb.Errorf(dsdb.KindInternal, "node %d is this process", id)
	case q == nil:
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "node %d is not known here", id)
	}
	return q, nil
}

func errClosed() error { return dsdb.Errorf(dsdb.KindUnavailable, "the node is shutting down") }

// PeerStatus is what is known of another process.
type PeerStatus struct {
	Process       Process       // ids and what else only the process itself tells are 0 until it has
	Up            bool          // there is a connection, and something was heard not long ago
	Authenticated string        // "secret", "certificate" or "none"
	Since         time.Time     // it is up, or was heard of last
	Known         bool          // by the catalogue
	Refusal       string        // what the last attempt to connect to it was refused with; "": it was not
	Starting      bool          // what it answered to that
	Clock         time.Duration // by how much its clock is ahead of this process's
	Compared      bool          // with that; else Clock is not known
}

// Status returns what is known of the other processes, ordered by UUID.
func (p *Peers) Status() []PeerStatus {
	p.mu.RLock()
	peers := slices.Collect(maps.Values(p.registry.peers))
	p.mu.RUnlock()
	slices.SortFunc(peers, func(a, b *peer) int { return strings.Compare(a.uuid, b.uuid) })
	out := make([]PeerStatus, len(peers))
	for i, q := range peers {
		q.mu.Lock()
		out[i] = PeerStatus{q.process, q.isUp(), q.auth, q.lastUp(), q.known, q.refusal, q.starts, q.clock.ahead, q.clock.compared}
		q.mu.Unlock()
	}
	return out
}
