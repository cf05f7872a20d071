package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// twin is the obvious log: what the updates amount to, in plain maps and slices.
type twin struct {
	groups  map[dsdb.GroupID]twinGroup
	removed map[dsdb.GroupID]dsdb.ReplicaID
}

// twinGroup is never changed in place, so that twins can share it.
type twinGroup struct {
	state   GroupState
	entries []Entry
}

func newTwin() *twin {
	return &twin{map[dsdb.GroupID]twinGroup{}, map[dsdb.GroupID]dsdb.ReplicaID{}}
}

func (w *twin) clone() *twin { return &twin{maps.Clone(w.groups), maps.Clone(w.removed)} }

func (w *twin) apply(us []Update) {
	for _, u := range us {
		g := w.groups[u.Group]
		if u.Create != nil {
			g = twinGroup{state: *u.Create}
		}
		if s := u.Installing; s != nil {
			if g.state.Installing = s; s.Truncated.Index == 0 {
				g.state.Installing = nil
			}
		}
		if u.Reset != nil {
			g = twinGroup{state: *u.Reset}
		}
		if len(u.Entries) > 0 {
			keep := u.Entries[0].Index - g.state.Truncated.Index - 1
			g.entries = append(slices.Clone(g.entries[:keep]), u.Entries...)
		}
		if u.HardState != nil {
			g.state.HardState = *u.HardState
		}
		if t := u.Truncate; t != nil && t.Index > g.state.Truncated.Index {
			g.entries = slices.Clone(g.entries[t.Index-g.state.Truncated.Index:])
			g.state.Truncated = *t
			if len(u.Conf) > 0 {
				g.state.Conf = u.Conf
			}
		}
		w.groups[u.Group] = g
		if u.Remove {
			delete(w.groups, u.Group)
			w.removed[u.Group] = max(w.removed[u.Group], g.state.Replica)
		}
	}
}

// differs says how the log differs from the twin, nil if it does not.
func (w *twin) differs(l *Log) error {
	if got, want := l.Groups(), slices.Sorted(maps.Keys(w.groups)); !slices.Equal(got, want) {
		return fmt.Errorf("groups %v, want %v", got, want)
	}
	for g, r := range w.removed {
		if h, here := w.groups[g]; here {
			r = h.state.Replica - 1
		}
		if l.Removed(g) != r {
			return fmt.Errorf("group %d: removed up to %d, want %d", g, l.Removed(g), r)
		}
	}
	for id, g := range w.groups {
		s, _ := l.State(id)
		if s.Replica != g.state.Replica || s.HardState != g.state.HardState || s.Truncated != g.state.Truncated || !bytes.Equal(s.Conf, g.state.Conf) {
			return fmt.Errorf("group %d: state %+v, want %+v", id, s, g.state)
		}
		if got, want := s.Installing, g.state.Installing; !reflect.DeepEqual(got, want) {
			return fmt.Errorf("group %d: installing %+v, want %+v", id, got, want)
		}
		var marked []uint64
		for _, e := range g.entries {
			if e.Kind != 0 {
				marked = append(marked, e.Index)
			}
		}
		if got := l.Marked(id); !slices.Equal(got, marked) {
			return fmt.Errorf("group %d: marked entries %d, want %d", id, got, marked)
		}
		first, last := l.Bounds(id)
		got, err := l.Entries(id, first, last+1, 1<<40, nil)
		if err != nil {
			return fmt.Errorf("group %d: %w", id, err)
		}
		if err := sameEntries(got, g.entries); err != nil {
			return fmt.Errorf("group %d: %w", id, err)
		}
		if n := len(g.entries); n > 0 {
			if term, err := l.Term(id, g.entries[n/2].Index); err != nil || term != g.entries[n/2].Term {
				return fmt.Errorf("group %d: term of %d is %d, %v", id, g.entries[n/2].Index, term, err)
			}
		}
	}
	return nil
}

// script makes random updates that the rules of the log allow.
type script struct {
	rng     *rand.Rand
	replica dsdb.ReplicaID
	size    int // largest entry
}

func newScript(seed uint64, size int) *script {
	return &script{rng: rand.New(rand.NewPCG(seed, 1)), size: size}
}

func (s *script) updates(w *twin) []Update {
	w = w.clone()
	var us []Update
	for range 1 + s.rng.IntN(3) {
		u := s.update(w, dsdb.GroupID(1+s.rng.IntN(5)))
		w.apply([]Update{u})
		us = append(us, u)
	}
	return us
}

func (s *script) update(w *twin, id dsdb.GroupID) Update {
	g, ok := w.groups[id]
	if !ok {
		s.replica++
		u := create(id, s.replica)
		if s.rng.IntN(2) == 0 {
			u.Entries = s.entries(11, 2)
		}
		return u
	}
	st := g.state
	last := st.Truncated.Index + uint64(len(g.entries))
	switch p := s.rng.IntN(100); {
	case p < 2:
		return Update{Group: id, Remove: true}
	case p < 5:
		hs := st.HardState
		hs.Term++
		hs.Vote, hs.Commit = 0, last+5
		return Update{Group: id, Reset: &GroupState{Replica: st.Replica, HardState: hs, Truncated: Position{last + 5, hs.Term}, Conf: []byte("reset")}}
	case p < 7:
		return Update{Group: id, Installing: &GroupState{}}
	case p < 11:
		hs := st.HardState
		hs.Term++
		hs.Vote, hs.Commit = 0, last+7
		return Update{Group: id, Installing: &GroupState{Replica: st.Replica, HardState: hs, Truncated: Position{last + 7, hs.Term}, Conf: []byte("install")}}
	case p < 25 && len(g.entries) > 0:
		return s.truncation(id, g)
	case p < 40:
		hs := HardState{Term: st.HardState.Term + 1, Vote: uint64(1 + s.rng.IntN(3)), Commit: st.HardState.Commit}
		return Update{Group: id, HardState: &hs}
	}
	term := st.HardState.Term
	first := last + 1
	if s.rng.IntN(5) == 0 {
		first = st.Truncated.Index + 1 + s.rng.Uint64N(uint64(len(g.entries)+1))
		term++
	}
	es := s.entries(first, term)
	hs := HardState{Term: term, Commit: min(max(st.HardState.Commit, st.Truncated.Index), es[len(es)-1].Index)}
	if term == st.HardState.Term {
		hs.Vote = st.HardState.Vote
	}
	return Update{Group: id, Entries: es, HardState: &hs}
}

func (s *script) truncation(id dsdb.GroupID, g twinGroup) Update {
	e := g.entries[s.rng.IntN(len(g.entries))]
	if s.rng.IntN(3) == 0 {
		e = g.entries[len(g.entries)-1]
	}
	u := Update{Group: id, Truncate: &Position{e.Index, e.Term}}
	if s.rng.IntN(2) == 0 {
		u.Conf = fmt.Appendf(nil, "conf at %d", e.Index)
	}
	return u
}

func (s *script) entries(first, term uint64) []Entry {
	return entries(first, first+1+s.rng.Uint64N(4), term, s.rng.IntN(s.size))
}

// lazy makes updates that may be written without sync.
func (s *script) lazy(w *twin) []Update {
	var us []Update
	for _, id := range slices.Sorted(maps.Keys(w.groups)) {
		g := w.groups[id]
		hs := g.state.HardState
		hs.Commit = g.state.Truncated.Index + uint64(len(g.entries))
		u := Update{Group: id, HardState: &hs}
		if len(g.entries) > 0 && s.rng.IntN(3) == 0 {
			u = s.truncation(id, g)
		}
		us = append(us, u)
	}
	return us
}

func TestLogEqualsTwinOverRestarts(t *testing.T) {
	for seed := range uint64(12) {
		mem := vfs.NewMem(seed)
		o := small()
		o.CacheBytes = []int64{-1, 2 << 10, 1 << 20}[seed%3]
		l, _ := open(t, mem, o)
		s, w := newScript(seed, 3000), newTwin()
		for step := range 200 {
			us, sync := s.updates(w), true
			if s.rng.IntN(4) == 0 {
				us, sync = s.lazy(w), false
			}
			if err := l.Write(us, sync); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			w.apply(us)
			switch s.rng.IntN(20) {
			case 0:
				l = reopen(t, mem, l, o)
			case 1, 2, 3:
				if err := errors.Join(l.Recycle(), l.PrepareSpare()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.differs(l); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
		checkBooks(t, l)
		l.Close()
	}
}

func reopen(t *testing.T, mem *vfs.Mem, l *Log, o Options) *Log {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mem.Crash(0)
	l, r := open(t, mem, o)
	if !r.Clean || r.Torn != nil || len(r.Corrupt) > 0 || len(r.Suspect) > 0 {
		t.Fatalf("after a clean shutdown: %+v", r)
	}
	return l
}

// checkBooks compares the sums that the log keeps with what they sum up.
func checkBooks(t *testing.T, l *Log) {
	t.Helper()
	live := map[*segment]int{}
	var bytes, cached int64
	for _, g := range l.table.groups {
		for _, es := range append(slices.Clip(g.stranded), g.stretch) {
			for _, lc := range es.locs {
				bytes += lc.bytes()
			}
			for _, r := range es.runs {
				live[r.seg]++
			}
		}
		for i := range g.cached {
			cached += g.cached[i].weight()
		}
	}
	if bytes != l.table.bytes || cached != l.table.cached {
		t.Fatalf("%d bytes of entries, %d cached; the books say %d and %d", bytes, cached, l.table.bytes, l.table.cached)
	}
	for _, s := range l.segs {
		if s.live != live[s] {
			t.Fatalf("segment %d has %d runs; the books say %d", s.seq, live[s], s.live)
		}
	}
	if len(live) > len(l.segs) {
		t.Fatal("entries lie in segments that were given up")
	}
}
