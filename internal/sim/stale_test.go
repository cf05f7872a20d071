package sim

import (
	"slices"

	"github.com/dasudian/dsdb"
)

// staleReads is what reads promise that ask nobody whether they are current: they
// see something that was written, and on one replica nothing older than before.
type staleReads struct {
	seen   []seen
	newest map[view]uint64
}

// seen is a value that a stale read has returned.
type seen struct {
	cell
	value uint64
}

// view is a cell as the process of a node shows it.
type view struct {
	*process
	cell
}

// glance reads a cell from a replica as it is, here or on another node.
func (s *store) glance(m *member, c cell, then func()) {
	rp, err := m.catalogue.View().Policy(c.db, "")
	if err != nil {
		then()
		return
	}
	g := rp.GroupFor(c.time())
	if g == nil {
		then()
		return
	}
	sh := g.Shards[g.Partition(seriesKey(c.series))]
	at := m.node
	if own := m.shards[sh.ID]; own == nil || own.Shard == nil || own.Damage() != nil {
		at = s.node(sh.Replicas[s.Rand.IntN(len(sh.Replicas))].Node) // a witness has nothing to show
	}
	m.call(at, func(at *member, reply func(error)) {
		value, err := at.scan(sh.ID, c)
		if err == nil {
			s.glanced(at, sh.ID, c, value)
		}
		reply(err)
	}, opTimeout, func(error) { then() })
}

// glanced notes what a replica showed. Of two values, both acknowledged, the one
// of the later entry is the newer.
func (s *store) glanced(at *member, id dsdb.ShardID, c cell, value uint64) {
	s.count("stale reads")
	s.seen = append(s.seen, seen{c, value})
	op := s.written(c, value)
	if op == nil || op.index == 0 {
		return
	}
	v := view{at.proc, c}
	if op.index < s.newest[v] {
		s.violation("%+v of shard %d on node %d: the value of entry %d after one of entry %d", c, id, at.node.Index, op.index, s.newest[v])
	}
	s.newest[v] = op.index
}

// written returns the write of a value, nil for that of no value.
func (s *store) written(c cell, value uint64) *call {
	if value == 0 {
		return nil
	}
	i := slices.IndexFunc(s.calls[c], func(op *call) bool { return op.write && op.value == value })
	if i < 0 {
		s.fail("%+v: %d was read and never written", c, value)
	}
	return s.calls[c][i]
}

// judgeStale checks that no stale read saw a write that was refused.
func (s *store) judgeStale() {
	for _, r := range s.seen {
		if op := s.written(r.cell, r.value); op != nil && op.failed {
			s.violation("%+v: %d was read, the write of which was refused", r.cell, r.value)
		}
	}
}
