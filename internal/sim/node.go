package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// Node is one simulated process with its disk. It drives a core as
// raftnode.Host does, with simulated time in the place of goroutines.
type Node struct {
	Index   int
	cluster *Cluster
	disk    *disk
	created map[dsdb.GroupID]bool   // groups whose creation is durable
	votedIn map[dsdb.GroupID]uint64 // the last term with a vote
	pausing bool                    // what arrives meanwhile waits
	backlog []func()
	run     *process // nil while the node is down
}

// process is what a crash ends.
type process struct {
	log      *wal.Log
	core     *raftnode.Core
	draining bool // a Drain is due
	appends  []raftnode.Append
	writing  []raftnode.Append // being written, nil if nothing is
	tasks    []raftnode.ApplyTask
	applying bool
	slice    int
}

// Up reports whether the process runs.
func (n *Node) Up() bool { return n.run != nil }

// Status returns what the node, which must be up, knows of its replica of g.
func (n *Node) Status(g dsdb.GroupID) raftnode.GroupStatus { return n.run.core.Status(g) }

// Start boots the process from what is on its disk.
func (n *Node) Start() error {
	c := n.cluster
	log, err := n.openLog()
	if err != nil {
		return fmt.Errorf("node %d: %w", n.Index, err)
	}
	c.boots++
	p := &process{log: log, core: raftnode.NewCore(log, c.boots, c.options.Logger)}
	n.run, n.pausing, n.backlog = p, false, nil
	c.Note("start", uint64(n.Index), c.boots)
	for _, g := range c.Groups() {
		spec := c.spec(n.Index, g)
		spec.New = !n.created[g]
		if err := p.core.Open(spec); err != nil {
			return fmt.Errorf("node %d: %w", n.Index, err)
		}
	}
	n.wake(p)
	n.tick(p)
	return nil
}

// openLog recovers the log. Nothing that the simulated disks do may look like damage.
func (n *Node) openLog() (*wal.Log, error) {
	log, report, err := wal.Open(n.disk, "wal", wal.Options{SegmentSize: 256 << 10, MaxSpare: 2, CacheBytes: -1})
	if err != nil {
		return nil, err
	}
	if len(report.Corrupt) > 0 || len(report.Suspect) > 0 {
		return nil, fmt.Errorf("log is damaged: %v, groups %v", report.Corrupt, report.Suspect)
	}
	return log, nil
}

// Crash kills the process. What it had not synced survives if only the process
// died; if the power failed, unsyncedPercent of it does.
func (n *Node) Crash(unsyncedPercent int) {
	c := n.cluster
	c.Note("crash", uint64(n.Index), uint64(unsyncedPercent))
	if n.run.writing != nil && c.Chance(0.5) { // in the middle of the write
		n.disk.failing = true
		_ = n.run.log.Write(updates(n.run.writing), true) // what it reports dies with the process
	}
	n.run, n.backlog = nil, nil
	n.disk.Crash(unsyncedPercent)
	n.disk.failing = false
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
	p := n.run
	n.do(p, func() { p.core.Propose(g, data, w); n.wake(p) })
}

// ReadIndex asks the node's core, which must be up, for a linearizable read.
func (n *Node) ReadIndex(g dsdb.GroupID, w raftnode.Waiter) {
	p := n.run
	n.do(p, func() { p.core.ReadIndex(g, w); n.wake(p) })
}

// Flushed tells the node's core that the state machine of g flushed.
func (n *Node) Flushed(g dsdb.GroupID) {
	p := n.run
	n.do(p, func() { p.core.Flushed(g); n.wake(p) })
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

func (n *Node) after(p *process, d time.Duration, f func()) {
	n.cluster.After(d, func() { n.do(p, f) })
}

func (n *Node) receive(e raftnode.Envelope) {
	n.cluster.Note("message", uint64(n.Index), uint64(e.Group), uint64(e.From), uint64(e.Message.GetType()), e.Message.GetIndex())
	if p := n.run; p != nil {
		n.do(p, func() { p.core.Step(e); n.wake(p) })
	}
}

// tick moves the core's clock; the clocks of nodes differ a little in speed.
func (n *Node) tick(p *process) {
	n.after(p, n.cluster.Between(9500*time.Microsecond, 10500*time.Microsecond), func() {
		p.core.Tick(p.slice)
		p.slice = (p.slice + 1) % raftnode.TickSlices
		n.wake(p)
		n.tick(p)
	})
}

// wake lets the core act on its inputs soon: like a worker's loop it takes
// several at once.
func (n *Node) wake(p *process) {
	if p.draining {
		return
	}
	p.draining = true
	n.after(p, n.cluster.Between(0, 100*time.Microsecond), func() {
		p.draining = false
		n.spread(p, p.core.Drain())
	})
}

func (n *Node) spread(p *process, out *raftnode.Outputs) {
	for _, box := range out.Network {
		n.cluster.network.send(n.Index, int(box.Node), box.Messages)
	}
	for _, r := range out.Results {
		r.Waiter.Done(r.Verdict, r.Err)
	}
	p.appends = append(p.appends, out.Appends...)
	n.write(p)
	p.tasks = append(p.tasks, out.Tasks...)
	n.apply(p)
}

// write makes durable what has queued up, in one write to the log.
func (n *Node) write(p *process) {
	if p.writing != nil || len(p.appends) == 0 {
		return
	}
	c := n.cluster
	p.writing, p.appends = p.appends, nil
	d := c.Between(100*time.Microsecond, 2*time.Millisecond)
	if c.Chance(0.002) {
		d = c.Between(50*time.Millisecond, 500*time.Millisecond) // the disk stalls
	}
	n.after(p, d, func() {
		if err := p.log.Write(updates(p.writing), true); err != nil {
			panic(&Error{c.Now().String(), fmt.Sprintf("node %d: write to the log: %v", n.Index, err)})
		}
		if err := p.log.Recycle(); err != nil {
			panic(&Error{c.Now().String(), fmt.Sprintf("node %d: recycle the log: %v", n.Index, err)})
		}
		done := p.writing
		p.writing = nil
		for _, a := range done {
			n.created[a.Update.Group] = true
			if hs := a.Update.HardState; hs != nil && hs.Vote != 0 && hs.Term > n.votedIn[a.Update.Group] {
				n.votedIn[a.Update.Group] = hs.Term
				c.voted(n)
			}
		}
		c.Note("stored", uint64(n.Index), uint64(len(done)))
		p.core.StorageDone(done)
		n.wake(p)
		n.write(p)
	})
}

func updates(as []raftnode.Append) []wal.Update {
	var us []wal.Update
	for _, a := range as {
		if !a.Empty {
			us = append(us, a.Update)
		}
	}
	return us
}

// apply runs the next apply task.
func (n *Node) apply(p *process) {
	if p.applying || len(p.tasks) == 0 {
		return
	}
	p.applying = true
	t := p.tasks[0]
	p.tasks = slices.Delete(p.tasks, 0, 1)
	d := n.cluster.Between(20*time.Microsecond, time.Millisecond)
	if n.cluster.Chance(0.01) {
		d = n.cluster.Between(10*time.Millisecond, 200*time.Millisecond)
	}
	n.after(p, d, func() {
		p.applying = false
		err := t.Run()
		n.cluster.Note("applied", uint64(n.Index), uint64(t.Group), uint64(len(t.Entries)))
		p.core.ApplyDone(t, err)
		n.wake(p)
		n.apply(p)
	})
}
