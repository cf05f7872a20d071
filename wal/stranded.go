package wal

import (
	"slices"

	"github.com/dasudian/dsdb"
)

// After damage a group may have whole entries before those that are missing. They
// prove nothing, and no replica goes on from them by itself; but they may be the
// last copy of what they say. So they are set aside: they keep their segments, and
// can be read, until the group is truncated behind them, reset, or removed.

// strand sets the entries of a group aside, since others are missing before what
// comes next.
func (t *table) strand(g *group) {
	if len(g.locs) == 0 {
		return
	}
	t.evictFront(g, len(g.cached))
	g.stranded = append(g.stranded, g.stretch)
	g.stretch = stretch{}
}

// cutStranded forgets stranded entries at and above index.
func (t *table) cutStranded(g *group, index, batch uint64) {
	for i := range g.stranded {
		t.bytes -= g.stranded[i].cut(index, batch)
	}
	g.dropEmpty()
}

// trimStranded forgets stranded entries below first.
func (t *table) trimStranded(g *group, first, batch uint64) {
	for i := range g.stranded {
		switch es := &g.stranded[i]; {
		case es.last() < first:
			t.bytes -= es.cut(0, batch)
		case es.first < first:
			t.bytes -= es.trim(first, batch)
		}
	}
	g.dropEmpty()
}

func (g *group) dropEmpty() {
	g.stranded = slices.DeleteFunc(g.stranded, func(es stretch) bool { return len(es.locs) == 0 })
}

// refute forgets the entries that are not those which a checkpoint describes:
// what replaced them is lost.
func (t *table) refute(g *group, c *checkpoint, batch uint64) {
	index := c.last + 1
	for _, es := range append(slices.Clip(g.stranded), g.stretch) {
		index = min(index, es.refuted(c))
	}
	t.cut(g, index, batch)
	t.cutStranded(g, index, batch)
}

// refuted returns the first index of which the term is not that of a checkpoint, or
// that is above its last; c.last+1 if there is none. The checkpoint may not know
// the terms of the oldest entries.
func (e *stretch) refuted(c *checkpoint) uint64 {
	if len(c.terms) == 0 {
		return c.last + 1
	}
	their := stretch{first: c.terms[0].first, terms: c.terms}
	low, high := max(e.first, their.first), min(e.last(), c.last)
	if low > high {
		return c.last + 1
	}
	marks := []uint64{low}
	for _, r := range append(slices.Clone(e.terms), c.terms...) {
		if low < r.first && r.first <= high {
			marks = append(marks, r.first)
		}
	}
	slices.Sort(marks)
	for _, index := range marks {
		if e.term(index) != their.term(index) {
			return index
		}
	}
	return c.last + 1
}

// Span is a stretch of a group's entries, both ends included.
type Span struct{ First, Last uint64 }

// Rest is what damage has left of a group's entries.
type Rest struct {
	Suspect bool
	Spans   []Span // of whole entries behind the truncation, ascending; entries between two are lost
	Ends    bool   // the last was written after the damage: of later ones none is lost
}

// Rest returns what the log has of the entries of a group that may be suspect. Of
// an unknown group it is empty.
func (l *Log) Rest(id dsdb.GroupID) (r Rest) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g := l.table.groups[id]
	if g == nil {
		return r
	}
	r.Suspect, r.Ends = g.suspect, g.ends
	for _, es := range append(slices.Clip(g.stranded), g.stretch) {
		n := len(r.Spans)
		switch {
		case len(es.locs) == 0:
		case n > 0 && r.Spans[n-1].Last+1 == es.first:
			r.Spans[n-1].Last = es.last()
		default:
			r.Spans = append(r.Spans, Span{es.first, es.last()})
		}
	}
	return r
}

// Highest returns the highest group, and the highest id of a replica, that the log
// knows to have been on this node, removed ones included.
func (l *Log) Highest() (g dsdb.GroupID, r dsdb.ReplicaID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	r = l.table.spent
	for id, e := range l.table.groups {
		g, r = max(g, id), max(r, e.state.Replica)
	}
	for id, gone := range l.table.removed {
		g, r = max(g, id), max(r, gone)
	}
	return g, r
}
