package wal

import (
	"maps"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// group is what the log knows of one group: its state and where each entry
// lies. Entries are first..last; first is above Truncated.Index+1 only if
// entries between are missing, which damage alone can cause.
type group struct {
	id      dsdb.GroupID
	state   GroupState
	suspect bool
	ends    bool  // the newest entry was written after the last damage
	dirty   uint8 // what of the state is not on disk yet: dirtyHardState, dirtyTruncate
	stretch
	stranded []stretch     // whole ones from before those that are missing, ascending
	cached   []Entry       // the newest entries, up to the last
	weight   int64         // bytes of cached
	used     atomic.Uint64 // Log.clock when cached was last used
}

// stretch is consecutive entries of a group: which they are, and where each lies.
type stretch struct {
	first  uint64       // index of locs[0]
	locs   []loc        // one per entry
	runs   []segmentRun // ascending by first; the first covers locs[0]
	terms  []termRun    // likewise
	marked []uint64     // entries of a Kind that is not 0, ascending
}

const (
	dirtyHardState = 1 << iota
	dirtyTruncate
)

// loc is where an entry's record lies in its segment, and the size of its payload.
type loc struct{ off, size uint32 }

// segmentRun says that the entries from first up to the next run lie in seg.
type segmentRun struct {
	first uint64
	seg   *segment
}

// termRun says that the entries from first up to the next run have this term.
type termRun struct{ first, term uint64 }

// last returns the index of the last entry, or where the log was truncated.
func (e *stretch) last() uint64 { return e.first + uint64(len(e.locs)) - 1 }

func (g *group) complete() bool { return g.first == g.state.Truncated.Index+1 }

// term returns the term of an entry that is there.
func (e *stretch) term(index uint64) uint64 {
	i := sort.Search(len(e.terms), func(i int) bool { return e.terms[i].first > index })
	return e.terms[i-1].term
}

// segment returns where an entry that is there lies.
func (e *stretch) segment(index uint64) *segment {
	i := sort.Search(len(e.runs), func(i int) bool { return e.runs[i].first > index })
	return e.runs[i-1].seg
}

// checkpoint returns the state as a checkpoint records it.
func (g *group) checkpoint() checkpoint {
	return checkpoint{state: g.state, last: g.last(), terms: g.terms, suspect: g.suspect}
}

// place is where a batch lies.
type place struct {
	seg   *segment
	body  int64 // offset of the first record in seg
	batch uint64
}

// table is the state of all groups: what the records of the log, applied in
// order, amount to. Writing and recovery both go through apply, so that the
// state after a restart is the state before it.
type table struct {
	groups  map[dsdb.GroupID]*group
	removed map[dsdb.GroupID]dsdb.ReplicaID // tombstones: the highest replica id of a group that left this node
	spent   dsdb.ReplicaID                  // the highest id of a tombstone that is in removed no more
	bytes   int64                           // payload and headers of all entries
	cached  int64                           // sum of the groups' weight
}

// maxTombstones bounds removed. Of more the older half is forgotten but for spent,
// the highest of their ids: as ids are given in ascending order and never again, a
// replica with a lower one cannot be about to come any more.
const maxTombstones = 8192

// anyGroup stands for all groups in the tombstone that carries spent.
const anyGroup = ^dsdb.GroupID(0)

func newTable() table {
	return table{groups: map[dsdb.GroupID]*group{}, removed: map[dsdb.GroupID]dsdb.ReplicaID{}}
}

func (t *table) ids() []dsdb.GroupID { return slices.Sorted(maps.Keys(t.groups)) }

// apply carries out one well-formed record that starts off bytes into the body of p.
func (t *table) apply(r *record, p place, off int) {
	switch r.typ {
	case recState:
		if r.replica > t.removed[r.group] {
			t.restate(r, p)
		}
		return
	case recCreate, recReset:
		if r.replica <= t.removed[r.group] {
			return
		}
		c, _ := r.checkpoint()
		t.drop(r.group, p.batch)
		t.put(r.group, c)
		return
	case recRemove:
		if r.group == anyGroup {
			t.spent = max(t.spent, r.replica)
			return
		}
		t.bury(r.group, r.replica)
		if g := t.groups[r.group]; g != nil && g.state.Replica <= r.replica {
			t.drop(r.group, p.batch)
		}
		return
	case recClean, recMarker:
		return
	}
	g := t.lookup(r, p)
	if g == nil {
		return
	}
	switch r.typ {
	case recEntry:
		t.append(g, r, p, off)
	case recHardState:
		g.state.HardState = r.hardState()
		g.dirty &^= dirtyHardState
	case recInstall:
		g.state.Installing = nil
		if r.index > 0 {
			c, _ := r.checkpoint()
			c.state.Conf = slices.Clone(c.state.Conf)
			g.state.Installing = &c.state
		}
	case recTruncate:
		t.truncate(g, Position{r.index, r.term}, slices.Clone(r.payload), p.batch)
		g.dirty &^= dirtyTruncate
	}
}

// bury notes that a replica has left.
func (t *table) bury(id dsdb.GroupID, replica dsdb.ReplicaID) {
	t.removed[id] = max(t.removed[id], replica)
	if len(t.removed) <= maxTombstones {
		return
	}
	ids := slices.Sorted(maps.Values(t.removed))
	t.spent = max(t.spent, ids[len(ids)/2])
	maps.DeleteFunc(t.removed, func(_ dsdb.GroupID, r dsdb.ReplicaID) bool { return r <= t.spent })
}

// left returns the highest id that a new replica of a group may not have: also of
// one that is here those before it have left.
func (t *table) left(id dsdb.GroupID) dsdb.ReplicaID {
	r, known := t.removed[id]
	switch g := t.groups[id]; {
	case g != nil && g.state.Replica > r:
		return g.state.Replica - 1
	case g == nil && !known:
		return t.spent
	}
	return r
}

// put enters a group that has no entries here.
func (t *table) put(id dsdb.GroupID, c checkpoint) *group {
	c.state.Conf = slices.Clone(c.state.Conf)
	g := &group{id: id, state: c.state, suspect: c.suspect, stretch: stretch{first: c.last + 1}}
	t.groups[id] = g
	return g
}

// lookup returns the group a record belongs to. A record of a group that is
// not known shows that the one which created it was lost: such a group is suspect.
func (t *table) lookup(r *record, p place) *group {
	g := t.groups[r.group]
	if g != nil && g.state.Replica == r.replica {
		return g
	}
	if r.replica <= t.removed[r.group] || g != nil && r.replica < g.state.Replica {
		return nil
	}
	t.drop(r.group, p.batch)
	return t.put(r.group, checkpoint{state: GroupState{Replica: r.replica}, suspect: true})
}

func (t *table) drop(id dsdb.GroupID, batch uint64) {
	if g := t.groups[id]; g != nil {
		t.cut(g, g.first, batch)
		t.cutStranded(g, 0, batch)
		delete(t.groups, id)
	}
}

// append enters one entry, which replaces those at and above its index.
func (t *table) append(g *group, r *record, p place, off int) {
	if r.index <= g.state.Truncated.Index || r.index == ^uint64(0) {
		return
	}
	switch {
	case r.index > g.last()+1:
		t.strand(g)
		g.first = r.index
	case r.index < g.first:
		t.cut(g, g.first, p.batch)
		t.cutStranded(g, r.index, p.batch)
		g.first = r.index
	}
	t.cut(g, r.index, p.batch)
	g.ends = true
	if n := len(g.runs); n == 0 || g.runs[n-1].seg != p.seg {
		g.runs = append(g.runs, segmentRun{r.index, p.seg})
		p.seg.live++
	}
	if n := len(g.terms); n == 0 || g.terms[n-1].term != r.term {
		g.terms = append(g.terms, termRun{r.index, r.term})
	}
	l := loc{uint32(p.body + int64(off)), uint32(len(r.payload))}
	g.locs = append(g.locs, l)
	if r.kind != 0 {
		g.marked = append(g.marked, r.index)
	}
	t.bytes += l.bytes()
}

func (l loc) bytes() int64 { return int64(recordSize(int(l.size))) }

// cut forgets the entries at and above index.
func (t *table) cut(g *group, index, batch uint64) {
	if index > g.last() {
		return
	}
	t.bytes -= g.cut(index, batch)
	for n := len(g.cached); n > 0 && g.cached[n-1].Index >= index; n-- {
		t.uncache(g, &g.cached[n-1])
		g.cached = g.cached[:n-1]
	}
}

// cut forgets the entries at and above index, and returns the bytes of their records.
func (e *stretch) cut(index, batch uint64) (freed int64) {
	if index > e.last() {
		return 0
	}
	keep := int(max(index, e.first) - e.first)
	for _, l := range e.locs[keep:] {
		freed += l.bytes()
	}
	e.locs = e.locs[:keep]
	for n := len(e.runs); n > 0 && e.runs[n-1].first >= index; n-- {
		e.runs[n-1].seg.release(batch)
		e.runs = e.runs[:n-1]
	}
	for n := len(e.terms); n > 0 && e.terms[n-1].first >= index; n-- {
		e.terms = e.terms[:n-1]
	}
	for n := len(e.marked); n > 0 && e.marked[n-1] >= index; n-- {
		e.marked = e.marked[:n-1]
	}
	return freed
}

// truncate forgets the entries up to and including p; it does nothing if they
// are gone already.
func (t *table) truncate(g *group, p Position, conf []byte, batch uint64) {
	if p.Index < g.state.Truncated.Index || p.Index == ^uint64(0) {
		return
	}
	g.state.Truncated = p
	if len(conf) > 0 {
		g.state.Conf = conf
	}
	t.trimStranded(g, p.Index+1, batch)
	if p.Index < g.first {
		return
	}
	first := p.Index + 1
	if first > g.last() {
		t.cut(g, g.first, batch)
		g.first, g.locs, g.runs, g.terms, g.cached = first, nil, nil, nil, nil
		return
	}
	t.bytes -= g.trim(first, batch)
	stale := sort.Search(len(g.cached), func(i int) bool { return g.cached[i].Index >= first })
	t.evictFront(g, stale)
}

// trim forgets the entries below first, which is one of them, and returns the
// bytes of their records.
func (e *stretch) trim(first, batch uint64) (freed int64) {
	n := first - e.first
	for _, l := range e.locs[:n] {
		freed += l.bytes()
	}
	e.first, e.locs = first, dropFront(e.locs, int(n))
	for len(e.runs) > 1 && e.runs[1].first <= first {
		e.runs[0].seg.release(batch)
		e.runs = e.runs[1:]
	}
	for len(e.terms) > 1 && e.terms[1].first <= first {
		e.terms = e.terms[1:]
	}
	for len(e.marked) > 0 && e.marked[0] < first {
		e.marked = e.marked[1:]
	}
	e.runs[0].first, e.terms[0].first = first, first
	return freed
}

// dropFront returns s without its first n elements, in memory of its own when
// little is left of much.
func dropFront[T any](s []T, n int) []T {
	if s = s[n:]; n > len(s) {
		return slices.Clone(s)
	}
	return s
}

// restate compares a group with a checkpoint of it. They differ only if
// records were lost; then the checkpoint counts, and of entries that it does not
// prove those are set aside that it does not refute.
func (t *table) restate(r *record, p place) {
	c, _ := r.checkpoint()
	g := t.groups[r.group]
	if g != nil && g.state.Replica != r.replica {
		t.drop(r.group, p.batch)
		g = nil
	}
	if g == nil {
		g = t.put(r.group, c)
	}
	t.truncate(g, c.state.Truncated, nil, p.batch)
	if !g.proves(&c) {
		t.refute(g, &c, p.batch)
		t.strand(g)
		g.first = c.last + 1
	}
	c.state.Conf = slices.Clone(c.state.Conf)
	g.state, g.suspect, g.dirty = c.state, c.suspect, 0
}

// proves reports whether the entries are those that the checkpoint describes,
// as far as there are any.
func (g *group) proves(c *checkpoint) bool {
	if g.last() != c.last {
		return false
	}
	if len(g.locs) == 0 {
		return true
	}
	i := sort.Search(len(c.terms), func(i int) bool { return c.terms[i].first > g.first })
	if i == 0 || c.terms[i-1].term != g.terms[0].term {
		return false
	}
	return slices.Equal(c.terms[i:], g.terms[1:])
}

// lost notes that records are missing before what comes next: nothing is
// certain of any group until a checkpoint speaks of it. A group whose removal
// is lost has its tombstone in the checkpoint.
func (t *table) lost() {
	for _, g := range t.groups {
		g.suspect, g.ends = true, false
	}
}

// applyBody applies the records of a batch.
func (t *table) applyBody(body []byte, p place) {
	for off := 0; off < len(body); {
		r, size, err := parseRecord(body[off:])
		if err != nil {
			panic("BUG: batch was not checked: " + err.Error())
		}
		t.apply(&r, p, off)
		off += size
	}
}

// appendCheckpoint appends the records of a checkpoint and returns their number.
func (t *table) appendCheckpoint(dst []byte) ([]byte, uint32) {
	n := uint32(0)
	if t.spent > 0 {
		dst = appendRecord(dst, record{typ: recRemove, group: anyGroup, replica: t.spent})
		n++
	}
	for _, id := range slices.Sorted(maps.Keys(t.removed)) {
		dst = appendRecord(dst, record{typ: recRemove, group: id, replica: t.removed[id]})
		n++
	}
	for _, id := range t.ids() {
		c := t.groups[id].checkpoint()
		dst = appendRecord(dst, c.record(recState, id))
		n++
		if s := c.state.Installing; s != nil {
			in := checkpoint{state: *s, last: s.Truncated.Index}
			dst = appendRecord(dst, in.record(recInstall, id))
			n++
		}
	}
	return dst, n
}
