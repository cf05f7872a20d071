package wal

import (
	"fmt"
	"slices"

	"github.com/dasudian/dsdb"
)

// cacheRun is a copy of consecutive entries of one group.
type cacheRun struct {
	group   dsdb.GroupID
	entries []Entry
}

// copyEntries returns the entries of a batch in memory of their own, one piece
// per group and run, so that a cached entry keeps only its neighbours alive.
func copyEntries(body []byte) []cacheRun {
	var runs []cacheRun
	for len(body) > 0 {
		r, size, _ := parseRecord(body)
		if r.typ != recEntry {
			body = body[size:]
			continue
		}
		bytes, n := measureRun(body, r.group)
		run := cacheRun{r.group, make([]Entry, 0, n)}
		data := make([]byte, 0, bytes)
		for range n {
			r, size, _ = parseRecord(body)
			at := len(data)
			data = append(data, r.payload...)
			run.entries = append(run.entries, r.entry(data[at:len(data):len(data)]))
			body = body[size:]
		}
		runs = append(runs, run)
	}
	return runs
}

// measureRun returns payload bytes and number of the entries of group that body begins with.
func measureRun(body []byte, group dsdb.GroupID) (bytes, n int) {
	for len(body) > 0 {
		r, size, _ := parseRecord(body)
		if r.typ != recEntry || r.group != group {
			break
		}
		bytes += len(r.payload)
		n++
		body = body[size:]
	}
	return bytes, n
}

// entry returns the record as an entry with the given data.
func (r *record) entry(data []byte) Entry {
	if len(data) == 0 {
		data = nil
	}
	return Entry{Index: r.index, Term: r.term, Kind: r.kind, Data: data}
}

// entryOverhead is what an entry counts beside its data, in the cache and
// against the maxBytes of Entries.
const entryOverhead = recordHeader

func (e *Entry) weight() int64 { return int64(len(e.Data) + entryOverhead) }

// cache enters entries that were just appended.
func (t *table) cache(r cacheRun, now uint64) {
	g := t.groups[r.group]
	if g == nil || len(g.locs) == 0 {
		return // a later update of the same batch took them away
	}
	for i := range r.entries {
		e := r.entries[i]
		if e.Index < g.first || e.Index > g.last() || g.term(e.Index) != e.Term {
			continue
		}
		if n := len(g.cached); n > 0 && g.cached[n-1].Index+1 != e.Index {
			t.evictFront(g, n)
		}
		g.cached = append(g.cached, e)
		g.weight += e.weight()
		t.cached += e.weight()
	}
	g.used.Store(now)
}

// uncache takes the weight of a cached entry off the books.
func (t *table) uncache(g *group, e *Entry) {
	g.weight -= e.weight()
	t.cached -= e.weight()
}

// evictFront drops the n oldest cached entries of g.
func (t *table) evictFront(g *group, n int) {
	for i := range g.cached[:n] {
		t.uncache(g, &g.cached[i])
	}
	clear(g.cached[:n])
	if g.cached = dropFront(g.cached, n); len(g.cached) == 0 {
		g.cached = nil
	}
}

// evict drops the older half of what is cached of the group used least
// recently until no more than limit bytes are cached.
func (t *table) evict(limit int64) {
	for t.cached > max(limit, 0) {
		var oldest *group
		var age uint64
		for _, g := range t.groups {
			used := g.used.Load()
			if len(g.cached) > 0 && (oldest == nil || used < age || used == age && g.id < oldest.id) {
				oldest, age = g, used
			}
		}
		if oldest == nil {
			panic("BUG: cached bytes without cached entries")
		}
		t.evictFront(oldest, (len(oldest.cached)+1)/2)
	}
}

// Term returns the term of an entry, or of the position the log was truncated
// at. It reports ErrCompacted below that and ErrUnavailable above the last entry.
func (l *Log) Term(id dsdb.GroupID, index uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g, es, err := l.lookup(id, index, index)
	if err != nil {
		if g != nil && index == g.state.Truncated.Index {
			return g.state.Truncated.Term, nil
		}
		return 0, err
	}
	return es.term(index), nil
}

// lookup returns the group, and what the entries lo..hi, both included, are among,
// if they are there; of those before a loss it is enough that lo is.
func (l *Log) lookup(id dsdb.GroupID, lo, hi uint64) (*group, *stretch, error) {
	g := l.table.groups[id]
	switch {
	case g == nil:
		return nil, nil, dsdb.Errorf(dsdb.KindNotFound, "wal: group %d has no replica here", id)
	case lo <= g.state.Truncated.Index:
		return g, nil, ErrCompacted
	case hi > g.last():
		return g, nil, ErrUnavailable
	case lo >= g.first:
		return g, &g.stretch, nil
	}
	for i := range g.stranded {
		if es := &g.stranded[i]; es.first <= lo && lo <= es.last() {
			return g, es, nil
		}
	}
	return g, nil, dsdb.Errorf(dsdb.KindCorrupt, "wal: group %d: entry %d is lost", id, lo)
}

// Entries appends to dst the entries of g in [lo, hi), as many as fit into
// maxBytes, where each counts its data and 44 bytes, but at least one. The
// newest come from memory, others from disk, with their checksum verified:
// KindCorrupt names file and offset. It reports ErrCompacted if lo is
// truncated and ErrUnavailable if hi-1 is above the last entry.
func (l *Log) Entries(id dsdb.GroupID, lo, hi, maxBytes uint64, dst []Entry) ([]Entry, error) {
	if lo >= hi {
		return dst, nil
	}
	for {
		cached, spans, err := l.plan(id, lo, hi, maxBytes)
		if err != nil {
			return dst, err
		}
		out, err := readSpans(spans, dst)
		if err == nil {
			return append(out, cached...), nil
		}
		// The segment may have been recycled, or the entries replaced, while
		// it was read. If the plan still holds, it is damage.
		_, again, lerr := l.plan(id, lo, hi, maxBytes)
		if lerr != nil {
			return dst, lerr
		}
		if len(again) > 0 && again[0].same(&spans[0]) {
			return dst, err
		}
	}
}

// span is a stretch of one segment that holds wanted entries.
type span struct {
	seg  *segment
	off  int64
	size int64
	want []wanted
}

// wanted is an entry at off in a span.
type wanted struct {
	off   int64
	group dsdb.GroupID
	index uint64
}

func (s *span) same(o *span) bool { return s.seg == o.seg && s.off == o.off && s.size == o.size }

// Entries on disk that lie close together are read together.
const (
	maxSpan    = 1 << 20
	maxSpanGap = 16 << 10
)

// plan returns, for the entries that fit into maxBytes, those in memory and
// where the ones before them lie on disk.
func (l *Log) plan(id dsdb.GroupID, lo, hi, maxBytes uint64) (cached []Entry, spans []span, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g, es, err := l.lookup(id, lo, hi-1)
	if err != nil {
		return nil, nil, err
	}
	hi = min(hi, es.last()+1)
	g.used.Store(l.counters.clock.Add(1))
	end, sum := lo, uint64(0)
	for ; end < hi; end++ {
		sum += uint64(es.locs[end-es.first].size) + entryOverhead
		if sum > maxBytes && end > lo {
			break
		}
	}
	split := end
	if n := len(g.cached); n > 0 {
		if first := g.cached[0].Index; first < end {
			split = max(first, lo)
			cached = slices.Clone(g.cached[split-first : end-first])
		}
	}
	for i := lo; i < split; i++ {
		spans = es.addSpan(id, spans, i)
	}
	return cached, spans, nil
}

// addSpan adds entry i to the last span, or opens another one.
func (e *stretch) addSpan(id dsdb.GroupID, spans []span, i uint64) []span {
	at, seg := e.locs[i-e.first], e.segment(i)
	off, size := int64(at.off), int64(recordHeader)+int64(at.size)
	if n := len(spans); n > 0 {
		s := &spans[n-1]
		end := s.off + s.size
		if s.seg == seg && off >= end && off-end <= maxSpanGap && off+size-s.off <= maxSpan {
			s.size = off + size - s.off
			s.want = append(s.want, wanted{off - s.off, id, i})
			return spans
		}
	}
	return append(spans, span{seg: seg, off: off, size: size, want: []wanted{{0, id, i}}})
}

func readSpans(spans []span, dst []Entry) ([]Entry, error) {
	for _, s := range spans {
		buf := make([]byte, s.size)
		if _, err := s.seg.file.ReadAt(buf, s.off); err != nil {
			return nil, fmt.Errorf("wal: read %s at %d: %w", s.seg.path, s.off, err)
		}
		for _, w := range s.want {
			r, err := checkRecord(buf[w.off:])
			if err == nil && (r.typ != recEntry || r.group != w.group || r.index != w.index) {
				err = fmt.Errorf("%d: type %d of group %d, index %d", w.index, r.typ, r.group, r.index)
			}
			if err != nil {
				return nil, dsdb.Errorf(dsdb.KindCorrupt, "wal: %s at %d: %w", s.seg.path, s.off+w.off, err)
			}
			dst = append(dst, r.entry(r.payload))
		}
	}
	return dst, nil
}
