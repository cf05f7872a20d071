package raftnode

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// memLog is a Log in memory, slow and obvious. It survives the hosts that use
// it, as a disk would.
type memLog struct {
	mu     sync.Mutex
	groups map[dsdb.GroupID]*memGroup
	gone   map[dsdb.GroupID]dsdb.ReplicaID
	kept   map[dsdb.GroupID]int64 // maxBytes of the last Keep
	writes int
	fail   error // what Write returns
}

type memGroup struct {
	state   wal.GroupState
	entries []wal.Entry // the first has index state.Truncated.Index+1
}

func newMemLog() *memLog {
	return &memLog{groups: map[dsdb.GroupID]*memGroup{}, gone: map[dsdb.GroupID]dsdb.ReplicaID{}, kept: map[dsdb.GroupID]int64{}}
}

// clone is what a disk holds whose last writes are to be lost.
func (l *memLog) clone() *memLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newMemLog()
	for id, g := range l.groups {
		c.groups[id] = &memGroup{g.state, slices.Clone(g.entries)}
	}
	maps.Copy(c.gone, l.gone)
	return c
}

func (l *memLog) Write(us []wal.Update, sync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.writes++
	for _, u := range us {
		if err := l.update(u); err != nil {
			return err
		}
	}
	return nil
}

func (l *memLog) update(u wal.Update) error {
	if u.Create != nil {
		if l.groups[u.Group] != nil || u.Create.Replica <= l.gone[u.Group] {
			return fmt.Errorf("group %d: create replica %d again", u.Group, u.Create.Replica)
		}
		l.groups[u.Group] = &memGroup{state: *u.Create}
	}
	g := l.groups[u.Group]
	if g == nil {
		return fmt.Errorf("group %d is not there", u.Group)
	}
	if s := u.Installing; s != nil {
		if g.state.Installing = s; s.Truncated.Index == 0 {
			g.state.Installing = nil
		}
	}
	if u.Reset != nil {
		*g = memGroup{state: *u.Reset}
	}
	if len(u.Entries) > 0 {
		n := u.Entries[0].Index - g.state.Truncated.Index - 1
		if n > uint64(len(g.entries)) {
			return fmt.Errorf("group %d: gap before %d", u.Group, u.Entries[0].Index)
		}
		g.entries = g.entries[:n:n]
		for _, e := range u.Entries {
			e.Data = slices.Clone(e.Data)
			g.entries = append(g.entries, e)
		}
	}
	if u.HardState != nil {
		if u.HardState.Commit > g.state.Truncated.Index+uint64(len(g.entries)) || u.HardState.Term < g.state.HardState.Term {
			return fmt.Errorf("group %d: hard state %+v", u.Group, *u.HardState)
		}
		g.state.HardState = *u.HardState
	}
	if u.Truncate != nil {
		g.entries = g.entries[u.Truncate.Index-g.state.Truncated.Index:]
		g.state.Truncated, g.state.Conf = *u.Truncate, u.Conf
	}
	if u.Remove {
		l.gone[u.Group] = g.state.Replica
		delete(l.groups, u.Group)
	}
	return nil
}

func (l *memLog) Recycle() error { return nil }

func (l *memLog) PrepareSpare() error { return nil }

func (l *memLog) Removed(g dsdb.GroupID) dsdb.ReplicaID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone[g]
}

func (l *memLog) Groups() []dsdb.GroupID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.groups))
}

func (l *memLog) State(g dsdb.GroupID) (wal.GroupState, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.groups[g] == nil {
		return wal.GroupState{}, false
	}
	return l.groups[g].state, true
}

func (l *memLog) Bounds(g dsdb.GroupID) (first, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.groups[g].state.Truncated.Index + 1
	return first, first + uint64(len(l.groups[g].entries)) - 1
}

func (l *memLog) Marked(g dsdb.GroupID) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var is []uint64
	for _, e := range l.groups[g].entries {
		if e.Kind != 0 {
			is = append(is, e.Index)
		}
	}
	return is
}

func (l *memLog) Keep(g dsdb.GroupID, index uint64, maxBytes int64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept[g] = maxBytes
	m := l.groups[g]
	first := m.state.Truncated.Index + 1
	from := index + 1
	for from > first {
		if maxBytes -= int64(len(m.entries[from-1-first].Data)); maxBytes < 0 {
			break
		}
		from--
	}
	return from
}

func (l *memLog) Term(g dsdb.GroupID, index uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.groups[g]
	switch t := m.state.Truncated; {
	case index < t.Index:
		return 0, wal.ErrCompacted
	case index == t.Index:
		return t.Term, nil
	case index-t.Index > uint64(len(m.entries)):
		return 0, wal.ErrUnavailable
	}
	return m.entries[index-m.state.Truncated.Index-1].Term, nil
}

func (l *memLog) Entries(g dsdb.GroupID, lo, hi, maxBytes uint64, dst []wal.Entry) ([]wal.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.groups[g]
	base := m.state.Truncated.Index + 1
	if lo < base {
		return dst, wal.ErrCompacted
	}
	if hi > base+uint64(len(m.entries)) {
		return dst, wal.ErrUnavailable
	}
	size := uint64(0)
	for _, e := range m.entries[lo-base : hi-base] {
		size += uint64(len(e.Data))
		if size > maxBytes && e.Index > lo {
			break
		}
		dst = append(dst, e)
	}
	return dst, nil
}
