package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// Node is one simulated machine with its disk, and the process on it.
type Node struct {
	Index    int
	MetaID   dsdb.NodeID // what the other nodes call it in the meta group,
	DataID   dsdb.NodeID // and in all others
	cluster  *Cluster
	disk     *disk
	created  map[dsdb.ReplicaID]bool // replicas whose creation is durable
	terms    map[dsdb.GroupID]uint64 // the latest that are durable
	lagging  time.Duration           // until then its state machines are slow
	pausing  bool                    // what arrives meanwhile waits
	backlog  []func()
	scrapped bool     // it does not come back
	run      *process // nil while the process is down
}

func newNode(c *Cluster, i int) *Node {
	id := dsdb.NodeID(i + 1)
	n := &Node{Index: i, MetaID: id, DataID: id, cluster: c}
	n.format()
	return n
}

// format gives the machine a new, empty disk.
func (n *Node) format() {
	n.disk = newDisk(n.cluster.World)
	n.created, n.terms = map[dsdb.ReplicaID]bool{}, map[dsdb.GroupID]uint64{}
}

// name is what the other nodes call the node in a group.
func (n *Node) name(g dsdb.GroupID) dsdb.NodeID {
	if g == dsdb.MetaGroup {
		return n.MetaID
	}
	return n.DataID
}

// node returns the node with an id, nil if that is not, or no longer, one of them.
func (c *Cluster) node(id dsdb.NodeID) *Node {
	for _, n := range c.Nodes {
		if n.MetaID == id || n.DataID == id {
			return n
		}
	}
	return nil
}

// Up reports whether the process runs.
func (n *Node) Up() bool { return n.run != nil }

// Holds reports whether the process runs, with a replica of g.
func (n *Node) Holds(g dsdb.GroupID) bool { return n.run != nil && slices.Contains(n.run.groups, g) }

// knows reports whether the process, which must be up, has a replica of g in its
// log or is about to.
func (n *Node) knows(g dsdb.GroupID) bool {
	_, known := n.run.log.State(g)
	return known || n.Holds(g)
}

// Status returns what the node, which must be up, knows of its replica of g.
func (n *Node) Status(g dsdb.GroupID) raftnode.GroupStatus { return n.run.core.Status(g) }

// Leads reports whether the node, which must be up, believes to lead g.
func (n *Node) Leads(g dsdb.GroupID) bool { return n.Status(g).Leading }

// tick is how often a core is told that time passes.
const tick = raftnode.TickEvery / raftnode.TickSlices

// Start boots the process from what is on its disk. It reports errPower if the
// power failed meanwhile.
func (n *Node) Start() error {
	err := n.boot()
	if n.disk.dead {
		n.CutPower(n.cluster.Rand.IntN(3) * 50)
		return errPower
	}
	if err != nil && n.Up() {
		n.end()
	}
	return err
}

func (n *Node) boot() error {
	c := n.cluster
	if err := n.disk.RemoveAll(incomingDir); err != nil {
		return err
	}
	log, err := n.openLog()
	if err != nil {
		return fmt.Errorf("node %d: %w", n.Index, err)
	}
	c.boots++
	p := &process{node: n, log: log, core: raftnode.NewCore(shortLog{log}, c.boots, c.options.Logger), writer: raftnode.NewLogWriter(log),
		pace: c.Between(tick*95/100, tick*105/100), seen: map[dsdb.GroupID]raftnode.GroupStatus{}, erasing: map[dsdb.GroupID]bool{}}
	n.run, n.pausing, n.backlog = p, false, nil
	c.Note("start", uint64(n.Index), c.boots)
	if err := n.openReplicas(); err != nil {
		return fmt.Errorf("node %d: %w", n.Index, err)
	}
	p.tick()
	p.prepare()
	return nil
}

// openReplicas opens what the node is to run.
func (n *Node) openReplicas() error {
	specs, err := n.cluster.options.Replicas(n)
	if err != nil {
		return err
	}
	for _, s := range specs {
		if err := n.Open(s); err != nil {
			return err
		}
	}
	return nil
}

// Open lets the process, which must be up, run one more replica.
func (n *Node) Open(s raftnode.GroupSpec) error {
	s.Node, s.New = n.name(s.ID), !n.created[s.Replica]
	if err := n.run.core.Open(s); err != nil {
		return err
	}
	delete(n.run.seen, s.ID)
	n.run.groups = append(n.run.groups, s.ID)
	n.run.wake()
	return nil
}

// Remove ends a replica and erases it from the log, as the host does; then is
// called when both are done.
func (n *Node) Remove(g dsdb.GroupID, then func()) {
	p := n.run
	n.cluster.Note("remove", uint64(n.Index), uint64(g))
	p.groups = slices.DeleteFunc(p.groups, func(o dsdb.GroupID) bool { return o == g })
	n.input(func(c *raftnode.Core) {
		c.Remove(g, waiter(func(dsdb.Verdict, error) { n.do(p, func() { n.erase(g, then) }) }))
	})
}

// erase takes a replica from the log and then from the disk. If that is under way
// already it does nothing.
func (n *Node) erase(g dsdb.GroupID, then func()) {
	p := n.run
	state, known := p.log.State(g)
	if !known {
		then()
		return
	}
	if p.erasing[g] {
		return
	}
	p.erasing[g] = true
	p.writer.Add(raftnode.Erase(g, waiter(func(_ dsdb.Verdict, err error) {
		if err == nil {
			delete(p.erasing, g)
			_ = n.disk.RemoveAll(n.cluster.options.Dir(g, state.Replica)) // what stays is in nobody's way
			then()
		}
	})))
	p.write()
}

// openLog recovers the log. Nothing that the simulated disks do may look like damage.
func (n *Node) openLog() (*wal.Log, error) {
	log, report, err := wal.Open(n.disk, "wal", wal.Options{SegmentSize: 128 << 10, MaxSpare: 2, CacheBytes: -1})
	if err != nil {
		return nil, err
	}
	if len(report.Corrupt) > 0 || len(report.Suspect) > 0 {
		return nil, fmt.Errorf("log is damaged: %v, groups %v", report.Corrupt, report.Suspect)
	}
	return log, nil
}

// shortLog keeps so little of what is flushed that replicas which are behind
// often need a snapshot.
type shortLog struct{ *wal.Log }

// Keep implements raftnode.LogReader.
func (l shortLog) Keep(g dsdb.GroupID, index uint64, maxBytes int64) uint64 {
	return l.Log.Keep(g, index, min(maxBytes, 16<<10))
}

// Kill ends the process; what it wrote stays in the machine's page cache.
func (n *Node) Kill() {
	n.cluster.Note("kill", uint64(n.Index))
	n.end()
	if n.disk.dead {
		n.disk.powerCut(0)
	}
	n.disk.revive()
}

// CutPower ends the process and loses what it had not synced, but for the given
// part of the writes.
func (n *Node) CutPower(unsyncedPercent int) {
	n.cluster.Note("power cut", uint64(n.Index), uint64(unsyncedPercent))
	if n.Up() {
		n.end()
	}
	n.disk.powerCut(unsyncedPercent)
}

// Wipe ends the process and gives the machine an empty disk, and other names: it
// is nobody whom the others know.
func (n *Node) Wipe() {
	n.cluster.Note("wipe", uint64(n.Index))
	if n.Up() {
		n.end()
	}
	n.format()
	n.cluster.strangers++
	n.MetaID = dsdb.NodeID(1000*n.cluster.strangers + n.Index + 1)
	n.DataID = n.MetaID
}

// end stops the process, half the time in the middle of a write that is under way.
func (n *Node) end() {
	if n.run.writing && n.cluster.Chance(0.5) {
		n.disk.dying = true
		n.run.writer.Write() // what it reports dies with the process
	}
	p := n.run
	n.run, n.backlog = nil, nil
	p.ended()
	n.missed()
}

// missed lets the other nodes notice, after a while, that the process is gone:
// their connections to it break. Not all find out that they cannot be made again.
func (n *Node) missed() {
	c, was := n.cluster, n.names()
	for _, other := range c.Nodes {
		p := other.run
		if p == nil {
			continue
		}
		c.After(c.Between(100*time.Millisecond, 600*time.Millisecond), func() {
			if !n.Up() && c.Chance(0.7) {
				other.do(p, func() { other.PeerDown(was...) })
				return
			}
			other.do(p, func() { other.Unreachable(was...) })
		})
	}
}

// names are what the other nodes call the node.
func (n *Node) names() []dsdb.NodeID {
	if n.DataID == n.MetaID {
		return []dsdb.NodeID{n.MetaID}
	}
	return []dsdb.NodeID{n.MetaID, n.DataID}
}

// PeerDown tells the node's core, which must be up, that the process with these
// ids is gone.
func (n *Node) PeerDown(ids ...dsdb.NodeID) {
	n.cluster.count("processes missed")
	n.input(func(c *raftnode.Core) {
		for _, id := range ids {
			c.PeerDown(id)
		}
	})
}

// Unreachable tells the node's core, which must be up, that a connection to the
// process with these ids broke.
func (n *Node) Unreachable(ids ...dsdb.NodeID) {
	n.cluster.count("connections broken")
	n.input(func(c *raftnode.Core) {
		for _, id := range ids {
			c.Unreachable(id)
		}
	})
}

// Pause stops the process for d, as a SIGSTOP or a busy machine does.
func (n *Node) Pause(d time.Duration) {
	if n.pausing {
		return
	}
	p := n.run
	n.pausing = true
	n.cluster.Note("pause", uint64(n.Index), uint64(d))
	n.cluster.After(d, func() {
		if n.run != p {
			return
		}
		n.pausing = false
		late := n.backlog
		n.backlog = nil
		for _, f := range late {
			n.do(p, f)
		}
	})
}

// Propose hands data to the node's core, which must be up.
func (n *Node) Propose(g dsdb.GroupID, data []byte, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.Propose(g, data, w) })
}

// ReadIndex asks the node's core, which must be up, for a linearizable read.
func (n *Node) ReadIndex(g dsdb.GroupID, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.ReadIndex(g, w) })
}

// Applied asks the node's core, which must be up, when it has applied an index.
func (n *Node) Applied(g dsdb.GroupID, index uint64, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.Applied(g, index, w) })
}

// Change asks the node's core, which must be up, for other members of a group.
func (n *Node) Change(g dsdb.GroupID, cs []raftnode.Change, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.Change(g, cs, w) })
}

// Matched asks the node's core, which must be up and lead, when all voters have an entry.
func (n *Node) Matched(g dsdb.GroupID, index uint64, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.Matched(g, index, w) })
}

// Transfer asks the node's core, which must be up, to hand on the leadership of a group.
func (n *Node) Transfer(g dsdb.GroupID, to dsdb.ReplicaID, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.Transfer(g, to, w) })
}

// Flushed tells the node's core that the state machine of g flushed.
func (n *Node) Flushed(g dsdb.GroupID) {
	n.input(func(c *raftnode.Core) { c.Flushed(g) })
}

func (n *Node) input(f func(*raftnode.Core)) {
	p := n.run
	n.do(p, func() { f(p.core); p.wake() })
}

// receive takes a message from the network.
func (n *Node) receive(from *Node, e raftnode.Envelope) {
	m := e.Message
	n.cluster.Note("message", uint64(n.Index), uint64(e.Group), uint64(e.From), uint64(m.GetType()), m.GetIndex())
	if n.run != nil {
		n.input(func(c *raftnode.Core) { c.Step(raftnode.Sender{Node: from.name(e.Group)}, e) })
	}
}

// do runs f in process p: now, after a pause, or never if p has ended. If the
// power fails while f uses the disk, f is the last that the process did.
func (n *Node) do(p *process, f func()) {
	switch {
	case p == nil || n.run != p:
	case n.pausing:
		n.backlog = append(n.backlog, f)
	default:
		f()
		if n.disk.dead {
			n.CutPower(n.cluster.Rand.IntN(3) * 50)
			n.cluster.died(n, errPower)
		}
	}
}

// errWiped is the end of a process whose machine has lost its disk.
var errWiped = errors.New("the disk is gone")

// waiter calls a function with an outcome.
type waiter func(v dsdb.Verdict, err error)

// Done implements raftnode.Waiter.
func (w waiter) Done(v dsdb.Verdict, err error) { w(v, err) }
