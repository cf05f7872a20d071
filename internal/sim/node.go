package sim

import (
	"fmt"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// Node is one simulated machine with its disk, and the process on it.
type Node struct {
	Index   int
	cluster *Cluster
	disk    *disk
	created map[dsdb.GroupID]bool   // groups whose creation is durable
	terms   map[dsdb.GroupID]uint64 // the latest that are durable
	lagging time.Duration           // until then its state machines are slow
	pausing bool                    // what arrives meanwhile waits
	backlog []func()
	run     *process // nil while the process is down
}

func newNode(c *Cluster, i int) *Node {
	return &Node{Index: i, cluster: c, disk: newDisk(c.World), created: map[dsdb.GroupID]bool{}, terms: map[dsdb.GroupID]uint64{}}
}

// Up reports whether the process runs.
func (n *Node) Up() bool { return n.run != nil }

// Status returns what the node, which must be up, knows of its replica of g.
func (n *Node) Status(g dsdb.GroupID) raftnode.GroupStatus { return n.run.core.Status(g) }

// Leads reports whether the node, which must be up, believes to lead g.
func (n *Node) Leads(g dsdb.GroupID) bool { return n.Status(g).Leader == replica(n.Index, g) }

// Start boots the process from what is on its disk.
func (n *Node) Start() error {
	c := n.cluster
	log, err := n.openLog()
	if err != nil {
		return fmt.Errorf("node %d: %w", n.Index, err)
	}
	c.boots++
	p := &process{node: n, log: log, core: raftnode.NewCore(log, c.boots, c.options.Logger),
		pace: c.Between(9500*time.Microsecond, 10500*time.Microsecond), seen: map[dsdb.GroupID]raftnode.GroupStatus{}}
	n.run, n.pausing, n.backlog = p, false, nil
	c.Note("start", uint64(n.Index), c.boots)
	for _, g := range c.Groups() {
		if !c.Holds(n.Index, g) {
			continue
		}
		spec := c.spec(n.Index, g)
		spec.New = !n.created[g]
		if err := p.core.Open(spec); err != nil {
			return fmt.Errorf("node %d: %w", n.Index, err)
		}
		p.groups = append(p.groups, g)
	}
	p.wake()
	p.tick()
	p.prepare()
	return nil
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

// Kill ends the process; what it wrote stays in the machine's page cache.
func (n *Node) Kill() {
	n.cluster.Note("kill", uint64(n.Index))
	n.end()
	n.disk.dying = false
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

// end stops the process, half the time in the middle of a write that is under way.
func (n *Node) end() {
	if n.run.writing != nil && n.cluster.Chance(0.5) {
		n.disk.dying = true
		_ = n.run.log.Write(updates(n.run.writing), true) // what it reports dies with the process
	}
	n.run, n.backlog = nil, nil
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

// ReadIndex tells w when the node, which must be up and lead, has applied all
// that was acknowledged before the call.
func (n *Node) ReadIndex(g dsdb.GroupID, w raftnode.Waiter) {
	n.input(func(c *raftnode.Core) { c.ReadIndex(g, &reader{n, n.run, g, w}) })
}

// reader waits for a read index, then for that to be applied.
type reader struct {
	node  *Node
	run   *process
	group dsdb.GroupID
	then  raftnode.Waiter
}

// Done implements raftnode.Waiter.
func (r *reader) Done(v dsdb.Verdict, err error) {
	if err != nil {
		r.then.Done(v, err)
		return
	}
	r.node.do(r.run, func() { r.run.core.Applied(r.group, v.Index, r.then); r.run.wake() })
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
func (n *Node) receive(from dsdb.NodeID, e raftnode.Envelope) {
	m := e.Message
	n.cluster.Note("message", uint64(n.Index), uint64(e.Group), uint64(e.From), uint64(m.GetType()), m.GetIndex())
	if n.run != nil {
		n.input(func(c *raftnode.Core) { c.Step(from, e) })
	}
}

// do runs f in process p: now, after a pause, or never if p has ended.
func (n *Node) do(p *process, f func()) {
	switch {
	case p == nil || n.run != p:
	case n.pausing:
		n.backlog = append(n.backlog, f)
	default:
		f()
	}
}
