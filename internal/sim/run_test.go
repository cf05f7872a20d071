package sim

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// run is a cluster, its clients, and what must not happen. Every violation is
// added to errs.
type run struct {
	*Cluster
	groups map[dsdb.GroupID]*history
	write  uint64 // id of the newest write
	stamp  int64  // orders the starts and ends of calls
	most   sizes
	errs   []string
	quiet  bool // clients have stopped
}

// sizes are the largest queues and caches of a run.
type sizes struct {
	Appends, Tasks, Backlog int
	Waiting, Cached         uint64
}

// The bounds on them: a run has eight clients with one call each, and pauses of
// at most five seconds.
var bounds = sizes{Appends: 2000, Tasks: 500, Backlog: 20000, Waiting: 5000, Cached: 4 << 20}

func (s sizes) max(o sizes) sizes {
	return sizes{max(s.Appends, o.Appends), max(s.Tasks, o.Tasks), max(s.Backlog, o.Backlog),
		max(s.Waiting, o.Waiting), max(s.Cached, o.Cached)}
}

// newRun makes a cluster without clients. The voters of each group are listed
// as Options.Voters says.
func newRun(t *testing.T, seed uint64, shape func(*World) (nodes int, voters [][]int)) *run {
	cryptotest.SetGlobalRandom(t, seed)
	w := NewWorld(seed)
	r := &run{groups: map[dsdb.GroupID]*history{}}
	o := Options{NewMachine: r.newMachine}
	o.Nodes, o.Voters = shape(w)
	if *trace {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug - 1}))
		w.trace = func(what string, nums []uint64) { fmt.Fprintln(os.Stderr, w.Now(), what, nums) }
	}
	for i := range o.Voters {
		r.groups[dsdb.GroupID(i+1)] = newHistory()
	}
	c, err := NewCluster(w, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Cluster = c
	return r
}

// newMachine is what a node starts with: the flushed part of its last machine.
func (r *run) newMachine(node int, g dsdb.GroupID) raftnode.StateMachine {
	h := r.groups[g]
	if old := h.copies[node]; old != nil {
		h.copies[node] = old.restarted()
	} else {
		h.copies[node] = &registerMachine{run: r, history: h}
	}
	return h.copies[node]
}

func (r *run) violation(format string, args ...any) {
	r.errs = append(r.errs, fmt.Sprintf("at %v: ", r.Now())+fmt.Sprintf(format, args...))
}

// waiter calls a function with an outcome.
type waiter func(v dsdb.Verdict, err error)

func (w waiter) Done(v dsdb.Verdict, err error) { w(v, err) }

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
			r.acknowledged(g, id, binary.LittleEndian.Uint64(v.Value))
		case dsdb.KindOf(err) == dsdb.KindUnavailable && !vfs.NoSpace(err):
			end()
			c.failed = true
			r.count("writes refused")
			h.refused[id] = true
			if at, ok := h.at[id]; ok {
				r.violation("group %d: write %d was refused (%v), but is in entry %d", g, id, err, at)
			}
		case vfs.NoSpace(err): // it may have been on its way to the log already
			r.count("writes without space")
		}
		if then != nil {
			then(err)
		}
	}))
	return id
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
	h, c := r.groups[g], &call{}
	end := r.begin(g, key, c)
	n.ReadIndex(g, waiter(func(_ dsdb.Verdict, err error) {
		if err == nil {
			end()
			c.value = h.copies[n.Index].values[key]
			r.count("reads")
			r.Note("read", uint64(g), uint64(key), c.value)
		}
		if then != nil {
			then(c.value, err)
		}
	}))
}

// flush makes the state of a machine durable, so that its log can be truncated.
func (r *run) flush(n *Node, g dsdb.GroupID) {
	m := r.groups[g].copies[n.Index]
	m.flushed = len(m.log)
	n.Flushed(g)
}

// measure looks at the queues of the nodes ten times a second.
func (r *run) measure() {
	for _, n := range r.Nodes {
		if !n.Up() {
			continue
		}
		s := sizes{Appends: len(n.run.appends), Tasks: len(n.run.tasks), Backlog: len(n.backlog)}
		for _, g := range n.run.groups {
			st := n.Status(g)
			s.Waiting, s.Cached = s.Waiting+st.Waiting, max(s.Cached, st.Cached)
		}
		r.most = r.most.max(s)
	}
	r.After(100*time.Millisecond, r.measure)
}

// settled checks that all replicas are equal, with all that was acknowledged,
// that nobody waits any more, and that what clients saw is linearizable.
func (r *run) settled() {
	for _, g := range r.Groups() {
		h := r.groups[g]
		for _, n := range r.Voters(g) {
			st, m := n.Status(g), h.copies[n.Index]
			switch {
			case st.Failed != nil:
				r.violation("group %d: replica on node %d failed: %v", g, n.Index, st.Failed)
			case len(m.log) != len(h.canon):
				r.violation("group %d: node %d has applied %d entries of %d", g, n.Index, len(m.log), len(h.canon))
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
