package sim

import (
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// staleReads is what reads promise that do not ask whether what they see is
// current: it was written, is on one replica nothing older than before, and not
// older than they accept.
type staleReads struct {
	seen []seen
	last map[view]uint64 // what was seen last
}

// seen is a value that a stale read has returned.
type seen struct {
	cell
	value uint64
}

// view is a cell as a replica in the process of a node shows it.
type view struct {
	*process
	dsdb.ReplicaID
	cell
}

// glance is a stale read on its way: what it saw was current after since, or, if
// that is negative, at any time.
type glance struct {
	*member
	cell
	limit, since time.Duration
	then         func()
}

// glance reads a cell from a replica that is not too old, of a random limit,
// here or on another node.
func (s *store) glance(m *member, c cell, then func()) {
	r := &glance{member: m, cell: c, since: -1, then: then}
	if s.Chance(0.7) {
		r.limit = s.Between(20*time.Millisecond, 2*time.Second)
		r.since = s.Now() - r.limit
	}
	m.fresh(dsdb.MetaGroup, r.limit, func(err error) {
		rp, missing := m.catalogue.View().Policy(c.db, "")
		if err != nil || missing != nil {
			r.refused()
			return
		}
		g := rp.GroupFor(c.time())
		if g == nil {
			s.count("stale reads of no shard")
			r.check(0)
			then()
			return
		}
		sh := g.Shards[g.Partition(seriesKey(c.series))]
		var nodes []*Node
		for _, i := range s.Rand.Perm(len(sh.Replicas)) {
			switch n := s.node(sh.Replicas[i].Node); {
			case n == nil || !sh.Replicas[i].Whole():
			case n == m.node:
				nodes = slices.Insert(nodes, 0, n)
			default:
				nodes = append(nodes, n)
			}
		}
		r.ask(nodes, sh)
	})
}

func (r *glance) refused() {
	r.store.count("stale reads refused")
	r.then()
}

// ask reads the cell on the first of some nodes that can, as the server does.
func (r *glance) ask(nodes []*Node, sh meta.Shard) {
	if len(nodes) == 0 {
		r.refused()
		return
	}
	r.call(nodes[0], func(at *member, reply func(error)) {
		at.fresh(sh.ID.Group(), r.limit, func(err error) {
			var value uint64
			if err == nil {
				value, err = at.scan(sh.ID, r.cell)
			}
			if err == nil {
				r.saw(at, sh.ID, value)
			}
			reply(err)
		})
	}, opTimeout, func(err error) {
		if err != nil {
			r.ask(nodes[1:], sh)
			return
		}
		r.then()
	})
}

// saw notes what a replica showed, and checks it against what it showed before.
func (r *glance) saw(at *member, id dsdb.ShardID, value uint64) {
	s := r.store
	s.count("stale reads")
	s.seen = append(s.seen, seen{r.cell, value})
	v := view{at.proc, at.shards[id].id, r.cell}
	if was, ok := s.last[v]; ok && overtaken(s.writesOf(r.cell, value), s.writesOf(r.cell, was)) {
		s.violation("%+v of shard %d on node %d: %d after %d, which is newer", r.cell, id, at.node.Index, value, was)
	}
	s.last[v] = value
	r.check(value)
}

// check checks that a value is not older than the read accepts: nothing that was
// acknowledged before that time has certainly replaced it.
func (r *glance) check(value uint64) {
	if r.since < 0 {
		return
	}
	s := r.store
	s.count("bounded stale reads")
	by := s.writesOf(r.cell, value)
	for _, op := range s.calls[r.cell] {
		if op.write && op.end > 0 && !op.failed && op.ended < r.since && overtaken(by, []*call{op}) {
			s.violation("%+v: %d is more than %v old: %d was acknowledged at %v", r.cell, value, r.limit, op.value, op.ended)
			return
		}
	}
}

// nothing is what makes a cell empty at first, before all calls.
var nothing = &call{write: true, end: 1}

// writesOf are the calls one of which a value must be from: the write of it, of no
// value a delete, or that there was none.
func (s *store) writesOf(c cell, value uint64) (ops []*call) {
	if value == 0 {
		ops = append(ops, nothing)
	}
	for _, op := range s.calls[c] {
		if op.write && op.value == value && !op.failed {
			ops = append(ops, op)
		}
	}
	if len(ops) == 0 && s.written(c, value) == nil {
		s.fail("%+v: %d was read and never written", c, value)
	}
	return ops
}

// overtaken reports whether each of some writes of a cell certainly took effect
// before each of some others.
func overtaken(ops, by []*call) bool {
	return len(ops) > 0 && !slices.ContainsFunc(ops, func(o *call) bool {
		return slices.ContainsFunc(by, func(b *call) bool { return !o.before(b) })
	})
}

// before reports whether a write certainly took effect before another of the same cell.
func (c *call) before(o *call) bool {
	return c.end > 0 && c.end < o.start || c.index > 0 && o.index > 0 && c.index < o.index
}

// written returns the write of a value, nil if there is none.
func (s *store) written(c cell, value uint64) *call {
	for _, op := range s.calls[c] {
		if op.write && op.value == value {
			return op
		}
	}
	return nil
}

// judgeStale checks that no stale read saw a write that was refused.
func (s *store) judgeStale() {
	for _, r := range s.seen {
		if op := s.written(r.cell, r.value); r.value != 0 && op.failed {
			s.violation("%+v: %d was read, the write of which was refused", r.cell, r.value)
		}
	}
}
