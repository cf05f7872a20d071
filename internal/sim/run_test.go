package sim

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// run is a cluster, its clients, and what must not happen.
type run struct {
	*Cluster
	t      *testing.T
	groups map[dsdb.GroupID]*history
	seats  []*seat                        // in the order in which they were made
	spent  dsdb.ReplicaID                 // the newest id of a replica
	write  uint64                         // id of the newest write
	stamp  int64                          // orders the starts and ends of calls
	quiet  bool                           // clients have stopped
	lulls  map[dsdb.GroupID]time.Duration // until when clients leave groups alone
}

// seat is a replica of a group, from the moment at which it was given its id
// until it is erased. Seats are what the catalogue knows in production.
type seat struct {
	group   dsdb.GroupID
	replica dsdb.ReplicaID
	node    *Node
	name    dsdb.NodeID     // of the node, until its disk is wiped
	born    []raftnode.Peer // the founders, if it is one of them
	gone    bool            // it left the group
	lost    bool            // its disk is gone
}

// peer is how raft calls the seat.
func (s *seat) peer() raftnode.Peer { return raftnode.Peer{Replica: s.replica, Node: s.name} }

// newRun makes a cluster without clients. shape lists for each group the nodes
// of its founders; the first campaigns for the new group.
func newRun(t *testing.T, seed uint64, shape func(*World) (nodes int, founders [][]int)) *run {
	cryptotest.SetGlobalRandom(t, seed)
	w := NewWorld(seed)
	r := &run{t: t, groups: map[dsdb.GroupID]*history{}, lulls: map[dsdb.GroupID]time.Duration{}}
	nodes, founders := shape(w)
	o := Options{Nodes: nodes, Replicas: r.replicas, Dir: dir}
	if *events {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug - 1}))
		w.trace = func(what string, nums []uint64) { fmt.Fprintln(os.Stderr, w.Now(), what, nums) }
	}
	r.Cluster = NewCluster(w, o)
	for i, nodes := range founders {
		r.found(dsdb.GroupID(i+1), nodes)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// found makes the seats of a new group.
func (r *run) found(g dsdb.GroupID, nodes []int) {
	r.groups[g] = newHistory()
	var peers []raftnode.Peer
	for _, n := range nodes {
		peers = append(peers, r.seat(g, r.Nodes[n]).peer())
	}
	for _, s := range r.seatsOf(g) {
		s.born = peers
	}
}

// seat makes a seat with a new id.
func (r *run) seat(g dsdb.GroupID, n *Node) *seat {
	r.spent++
	s := &seat{group: g, replica: r.spent, node: n, name: n.DataID}
	r.seats = append(r.seats, s)
	return s
}

// seatsOf returns the seats of a group that are, or will be, its members.
func (r *run) seatsOf(g dsdb.GroupID) []*seat {
	var ss []*seat
	for _, s := range r.seats {
		if s.group == g && !s.gone {
			ss = append(ss, s)
		}
	}
	return ss
}

// Groups returns the ids of all groups.
func (r *run) Groups() []dsdb.GroupID { return slices.Sorted(maps.Keys(r.groups)) }

// dir is the folder of a replica.
func dir(g dsdb.GroupID, r dsdb.ReplicaID) string { return fmt.Sprintf("group-%d/replica-%d", g, r) }

// replicas says what a node runs when it starts, and erases what else its log has.
func (r *run) replicas(n *Node) ([]raftnode.GroupSpec, error) {
	var specs []raftnode.GroupSpec
	for _, s := range r.seats {
		if s.node != n || s.gone || s.lost {
			continue
		}
		spec, err := r.spec(s)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	for _, g := range n.run.log.Groups() {
		if !slices.ContainsFunc(specs, func(s raftnode.GroupSpec) bool { return s.ID == g }) {
			n.erase(g, func() {})
		}
	}
	return specs, nil
}

// spec opens the state machine of a seat.
func (r *run) spec(s *seat) (raftnode.GroupSpec, error) {
	m, err := openMachine(r, s.node, s.group, dir(s.group, s.replica), s.born != nil)
	if err != nil {
		return raftnode.GroupSpec{}, err
	}
	r.groups[s.group].copies[s.node.Index] = m
	return raftnode.GroupSpec{ID: s.group, Replica: s.replica, Founders: s.born, StateMachine: m}, nil
}

// begin notes the start of a call and returns a function for its end.
func (r *run) begin(g dsdb.GroupID, key int, c *call) (end func()) {
	r.stamp++
	c.start = r.stamp
	h := r.groups[g]
	h.calls[key] = append(h.calls[key], c)
	return func() {
		r.stamp++
		c.end = r.stamp
	}
}

// set writes a register through node n, which must be up. then, which may be
// nil, is told the outcome if there is one.
func (r *run) set(n *Node, g dsdb.GroupID, key, padding int, then func(error)) (id uint64) {
	r.write++
	id = r.write
	h, c := r.groups[g], &call{write: true, value: id}
	end := r.begin(g, key, c)
	n.Propose(g, command(id, key, padding), waiter(func(v dsdb.Verdict, err error) {
		switch {
		case err == nil:
			end()
			r.acknowledged(g, id, v.Index)
			if r.Chance(0.05) {
				r.match(n, g, v.Index)
			}
		case dsdb.KindOf(err) == dsdb.KindUnavailable || dsdb.KindOf(err) == dsdb.KindNotLeader:
			end()
			c.failed = true
			r.count("writes refused")
			h.refused[id] = true
			if at, ok := h.at[id]; ok {
				r.violation("group %d: write %d was refused (%v), but is in entry %d", g, id, err, at)
			}
		}
		if vfs.NoSpace(err) {
			r.count("writes without space")
		}
		if then != nil {
			then(err)
		}
	}))
	return id
}

// match waits until all voters have an entry, and looks whether they do.
func (r *run) match(l *Node, g dsdb.GroupID, index uint64) {
	l.Matched(g, index, waiter(func(_ dsdb.Verdict, err error) {
		if err != nil {
			return
		}
		r.count("writes that all voters have")
		for _, p := range l.Status(g).Members.Voters {
			n := r.node(p.Node)
			if n == nil || !n.Holds(g) || n.Status(g).Replica != p.Replica {
				continue // it is away, or about to be replaced
			}
			if _, last := n.run.log.Bounds(g); last < index {
				r.violation("group %d: entry %d is said to be in all logs, that of node %d ends at %d", g, index, n.Index, last)
			}
		}
	}))
}

func (r *run) acknowledged(g dsdb.GroupID, id, index uint64) {
	h := r.groups[g]
	r.count("writes acknowledged")
	r.Note("acknowledged", uint64(g), id, index)
	if h.at[id] != index {
		r.violation("group %d: write %d is acknowledged at %d, but was applied at %d", g, id, index, h.at[id])
	}
	h.acked[id] = index
}

// get reads a register through node n, which must be up.
func (r *run) get(n *Node, g dsdb.GroupID, key int, then func(value uint64, err error)) {
	r.getAt(n, n, g, key, then)
}

// getAt asks the leader l for a read index and reads a register on node n, when
// that has caught up. Both must be up, and n must hold a replica.
func (r *run) getAt(l, n *Node, g dsdb.GroupID, key int, then func(value uint64, err error)) {
	c := &call{}
	end, p := r.begin(g, key, c), n.run
	done := func(err error) {
		if err == nil {
			end()
			c.value = r.groups[g].copies[n.Index].values[key]
			r.count("reads")
			r.Note("read", uint64(g), uint64(key), c.value)
		}
		if then != nil {
			then(c.value, err)
		}
	}
	l.ReadIndex(g, waiter(func(v dsdb.Verdict, err error) {
		if err != nil {
			done(err)
			return
		}
		confirmed := func() { n.Applied(g, v.Index, waiter(func(_ dsdb.Verdict, err error) { done(err) })) }
		if l == n {
			confirmed()
			return
		}
		r.count("reads of followers")
		r.After(r.network.latency(), func() { n.do(p, confirmed) })
	}))
}

// flush makes the state of a machine durable, so that its log can be truncated.
func (r *run) flush(n *Node, g dsdb.GroupID, then func()) {
	r.groups[g].copies[n.Index].flush(func(err error) {
		if err == nil {
			r.count("flushes")
			n.Flushed(g)
		}
		if then != nil {
			then()
		}
	})
}

// settled checks that all replicas are equal, with all that was acknowledged,
// that nobody waits any more, and that what clients saw is linearizable.
func (r *run) settled() {
	for _, g := range r.Groups() {
		h := r.groups[g]
		for _, n := range r.Holders(g) {
			st, m := n.Status(g), h.copies[n.Index]
			switch {
			case st.Failed != nil:
				r.violation("group %d: replica on node %d failed: %v", g, n.Index, st.Failed)
			case m.index != uint64(birth+len(h.canon)):
				r.violation("group %d: node %d has applied up to %d of %d", g, n.Index, m.index, birth+len(h.canon))
			case st.Waiting > 0:
				r.violation("group %d: %d calls still wait on node %d", g, st.Waiting, n.Index)
			}
		}
		if id := h.lost(); id != 0 {
			r.violation("group %d: write %d, acknowledged at %d, is lost", g, id, h.acked[id])
		}
		for key, calls := range h.calls {
			r.count("registers checked")
			for _, c := range calls {
				if c.write && c.end == 0 {
					r.count("writes of unknown outcome")
				}
			}
			if is := linearizable(calls); is != porcupine.Ok {
				r.violation("group %d: register %d is not linearizable: %v", g, key, is)
			}
		}
	}
	if r.most.max(bounds) != bounds {
		r.violation("queues grow beyond %+v: %+v", bounds, r.most)
	}
}
