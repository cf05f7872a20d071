package sim

import (
	"math/bits"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// process is what a crash ends: a core with its log. It drives the core as
// raftnode.Host does, with simulated time in the place of goroutines.
type process struct {
	node     *Node
	log      *wal.Log
	core     *raftnode.Core
	groups   []dsdb.GroupID
	seen     map[dsdb.GroupID]raftnode.GroupStatus // the last time they were looked at
	pace     time.Duration                         // of a tick: clocks of nodes differ in speed
	turn     int                                   // of its clock
	looked   int                                   // position in groups of the one that inspect looked at last
	draining bool                                  // a Drain is due
	writer   *raftnode.LogWriter
	writing  bool   // a write to the log is under way, or was the last
	batches  uint64 // that were stored
	tasks    []raftnode.ApplyTask
	applying bool
	watches  []*watch
	erasing  map[dsdb.GroupID]bool // on their way out of the log
}

// watch waits for the end of a process.
type watch struct {
	told func()
	off  bool // nobody waits any more
}

// watch has told called when the process ends, unless the watch is off by then.
func (p *process) watch(told func()) *watch {
	if len(p.watches) >= 64 {
		p.watches = slices.DeleteFunc(p.watches, func(w *watch) bool { return w.off })
	}
	w := &watch{told: told}
	p.watches = append(p.watches, w)
	return w
}

// ended is called when the process has ended.
func (p *process) ended() {
	for _, w := range p.watches {
		if !w.off {
			w.told()
		}
	}
}

// after runs f in d, unless the process has ended by then.
func (p *process) after(d time.Duration, f func()) {
	n := p.node
	n.cluster.After(d, func() { n.do(p, f) })
}

// tick moves the core's clock.
func (p *process) tick() {
	p.after(p.pace+p.node.cluster.Between(0, tick/20), func() {
		due := raftnode.DueSlices(p.turn, p.core.Awake())
		p.turn = (p.turn + 1) % raftnode.TickSlices
		for rest := due; rest != 0; rest &= rest - 1 {
			p.core.Tick(bits.TrailingZeros64(rest))
		}
		if due != 0 {
			p.wake()
		}
		p.tick()
	})
}

// prepare keeps space for the log reserved. That there is none shows when it is needed.
func (p *process) prepare() {
	_ = p.log.PrepareSpare()
	p.after(time.Second, p.prepare)
}

// wake lets the core act on its inputs soon: like a worker's loop it takes
// several at once.
func (p *process) wake() {
	if p.draining {
		return
	}
	p.draining = true
	p.after(p.node.cluster.Between(0, 100*time.Microsecond), func() {
		p.draining = false
		p.spread(p.core.Drain())
		p.inspect()
	})
}

func (p *process) spread(out *raftnode.Outputs) {
	for _, box := range out.Network {
		if to := p.node.cluster.node(box.Node); to != nil {
			p.node.cluster.network.send(p.node, to, box.Messages)
		}
	}
	for _, s := range out.Snapshots {
		p.ship(s)
	}
	for _, r := range out.Results {
		r.Waiter.Done(r.Verdict, r.Err)
	}
	for _, a := range out.Appends {
		p.writer.Add(raftnode.Queued{Append: a, Core: p.core})
	}
	p.tasks = append(p.tasks, out.Tasks...)
	p.write()
	p.apply()
}

// uninstalled notes that a snapshot was not installed: the replica has begun anew
// from its log, which need not know all that was known to be committed.
func (p *process) uninstalled(g dsdb.GroupID) {
	was := p.seen[g]
	was.Commit = min(was.Commit, was.Applied)
	p.seen[g] = was
}

// inspect checks what must hold of every replica at any time: nothing goes
// back, what is applied is committed, a term has one leader, which leads once:
// if it forgot that it did, its entries could be others. Of very many replicas it
// looks at some, in turn.
func (p *process) inspect() {
	n, c := p.node, p.node.cluster
	for range min(len(p.groups), 32) {
		p.looked = (p.looked + 1) % len(p.groups)
		g := p.groups[p.looked]
		now, was := p.core.Status(g), p.seen[g]
		p.seen[g] = now
		if now.Term < was.Term || now.Commit < was.Commit || now.Applied < was.Applied || now.Applied > now.Commit {
			c.fail("group %d on node %d: %+v after %+v", g, n.Index, now, was)
		}
		if now.Failed != nil && was.Failed == nil {
			c.failed(n, g, now.Failed)
		}
		if now.Members.Index != was.Members.Index || len(now.Members.Voters) != len(was.Members.Voters) {
			c.agree(n, g, now.Members)
		}
		if len(now.Members.Outgoing) > 0 && len(was.Members.Outgoing) == 0 {
			c.joint(n, g)
		}
		if !now.Leading {
			continue
		}
		of, l := reign{g, now.Term}, leader{now.Leader, p}
		other, led := c.leaders[of]
		if led && other != l {
			c.fail("group %d: replicas %d and %d, or one after its restart, lead in term %d", g, other.replica, l.replica, now.Term)
		}
		if !led {
			c.leaders[of] = l
			c.count("elections")
		}
	}
}

// write has what has queued up made durable, in one write to the log.
func (p *process) write() {
	if p.writing || !p.writer.Take() {
		return
	}
	p.writing = true
	d := p.node.cluster.Between(100*time.Microsecond, 2*time.Millisecond)
	p.after(d+p.node.disk.stall(), p.store)
}

// store is the end of a write, or without space of an attempt.
func (p *process) store() {
	full := p.writer.Full()
	r := p.writer.Write()
	switch {
	case r.Failed != nil:
		p.fail(r.Failed)
	case r.Full != nil:
		if !full {
			p.node.cluster.count("disks full")
		}
		if r.Dry {
			p.core.Refuse(r.Full)
		} else {
			p.core.RefusePoints(r.Full)
		}
		p.note(&r)
		p.after(raftnode.RetryEvery, p.store)
	default:
		if r.Again {
			p.core.Refuse(nil)
		}
		p.stored(&r)
	}
}

// stored tells who is to know what has become durable.
func (p *process) stored(r *raftnode.Written) {
	p.writing = false
	p.batches++
	p.note(r)
	p.write()
	p.mark(p.batches)
}

// note tells those whom it concerns what a write has stored.
func (p *process) note(r *raftnode.Written) {
	n, as := p.node, r.Of(p.core)
	for _, a := range as {
		if a.Update.Create != nil {
			n.created[a.Update.Create.Replica] = true
		}
		if hs := a.Update.HardState; hs != nil && hs.Term > n.terms[a.Update.Group] {
			n.terms[a.Update.Group] = hs.Term
			n.cluster.voted(n)
		}
	}
	n.cluster.Note("stored", uint64(n.Index), uint64(len(as)))
	p.core.StorageDone(as)
	r.Tell()
	p.wake()
}

// mark has the log mark its end if a batch is the last for a while.
func (p *process) mark(batch uint64) {
	p.after(raftnode.MarkAfter, func() {
		if p.writing || p.batches != batch {
			return
		}
		if err := p.writer.Mark(); err != nil {
			p.fail(err)
			return
		}
		if !p.writer.Proven() { // there is no space
			p.mark(batch)
			return
		}
		p.node.cluster.count("marks")
	})
}

// fail ends the process as its host does when the log has failed: the end comes a
// little later.
func (p *process) fail(err error) {
	n := p.node
	p.writing = true
	p.core.Refuse(p.writer.Fail(err))
	p.wake()
	p.after(n.cluster.Between(0, 2*time.Millisecond), func() {
		if n.disk.dead {
			return
		}
		n.cluster.Note("died", uint64(n.Index))
		n.Kill()
		n.cluster.died(n, err)
	})
}

// apply runs the next apply task.
func (p *process) apply() {
	if p.applying || len(p.tasks) == 0 {
		return
	}
	p.applying = true
	t := p.tasks[0]
	p.tasks = slices.Delete(p.tasks, 0, 1)
	c := p.node.cluster
	d := c.Between(20*time.Microsecond, time.Millisecond)
	if c.Chance(0.01) || c.Now() < p.node.lagging {
		d = c.Between(10*time.Millisecond, 200*time.Millisecond)
	}
	p.after(d, func() {
		p.applying = false
		c.sameEntries(t.Group, t.Entries)
		err := t.Run()
		c.Note("applied", uint64(p.node.Index), uint64(t.Group), uint64(len(t.Entries)))
		p.core.ApplyDone(t, err)
		c.options.Applied(p.node, t.Group)
		p.wake()
		p.apply()
	})
}
