package wal

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// appended is a log of groups that only grow, and where each entry lies: in which
// batch, by its number.
type appended struct {
	log     *Log
	entries map[dsdb.GroupID][]Entry
	batch   map[dsdb.GroupID][]uint64
	where   map[uint64]Range // of a batch: its bytes
}

func appendRandomly(t *testing.T, mem *vfs.Mem, rng *rand.Rand, batches int) *appended {
	l, _ := open(t, mem, small())
	a := &appended{l, map[dsdb.GroupID][]Entry{}, map[dsdb.GroupID][]uint64{}, map[uint64]Range{}}
	write(t, l, create(1, 1), create(2, 2), create(3, 3))
	for range batches {
		var us []Update
		for g := dsdb.GroupID(1); g <= 3; g++ {
			if rng.IntN(2) == 0 {
				from := uint64(11 + len(a.entries[g]))
				us = append(us, Update{Group: g, Entries: entries(from, from+1+rng.Uint64N(3), 1+from/20, 1+rng.IntN(3000))})
			}
		}
		write(t, l, us...)
		seg := l.active()
		size := roundUp(int64(len(l.w.buf)), pageSize)
		a.where[l.lastBatch] = Range{File: seg.path, Offset: seg.end - size, Len: size}
		for _, u := range us {
			a.entries[u.Group] = append(a.entries[u.Group], u.Entries...)
			for range u.Entries {
				a.batch[u.Group] = append(a.batch[u.Group], l.lastBatch)
			}
		}
	}
	return a
}

// whole returns the stretches of a group's entries above an index that are in no
// damaged batch.
func (a *appended) whole(g dsdb.GroupID, above uint64, damaged map[uint64]bool) (spans []Span) {
	for i, e := range a.entries[g] {
		n := len(spans)
		switch {
		case e.Index <= above || damaged[a.batch[g][i]]:
		case n > 0 && spans[n-1].Last+1 == e.Index:
			spans[n-1].Last++
		default:
			spans = append(spans, Span{e.Index, e.Index})
		}
	}
	return spans
}

// Whichever batches of a log are damaged, what lies in the others can be read:
// before a gap, behind it and between two, also after restarts and when the log
// goes on with other groups, until the group is truncated, reset or removed.
func TestEntriesBesideDamageCanBeRead(t *testing.T) {
	gaps := 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mem := vfs.NewMem(seed)
		a := appendRandomly(t, mem, rng, 40)
		if err := a.log.Close(); err != nil {
			t.Fatal(err)
		}
		damaged := map[uint64]bool{}
		for range 1 + rng.IntN(3) {
			var seq uint64
			for at := a.where[seq]; at.Len == 0; at = a.where[seq] {
				seq = rng.Uint64N(a.log.lastBatch)
			}
			if !damaged[seq] {
				flip(t, mem, a.where[seq].File, a.where[seq].Offset+rng.Int64N(batchHeaderSize+recordHeader), 1<<rng.IntN(8))
				damaged[seq] = true
			}
		}
		above := map[dsdb.GroupID]uint64{}
		check := func(l *Log, what string) {
			t.Helper()
			checkBooks2(t, l)
			for g := dsdb.GroupID(1); g <= 3; g++ {
				want := a.whole(g, max(10, above[g]), damaged)
				if got := l.Rest(g).Spans; !slices.Equal(got, want) {
					t.Fatalf("seed %d, %s: of group %d there is %v, want %v (damaged %v)", seed, what, g, got, want, damaged)
				}
				for _, s := range want {
					a.wantSpan(t, l, g, s)
				}
				gaps += max(0, len(want)-1)
			}
		}
		before := listing(t, mem)
		l, r, err := Read(mem, dir, small())
		if err != nil || len(r.Corrupt) == 0 {
			t.Fatalf("seed %d: %v %+v", seed, err, r)
		}
		check(l, "read only")
		if err := l.Write(nil, true); err == nil {
			t.Fatal("a log that is to be left as it is was written to")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if after := listing(t, mem); after != before {
			t.Fatalf("seed %d: reading made %s of %s", seed, after, before)
		}
		l, _ = open(t, mem, small())
		check(l, "opened")
		write(t, l, create(9, 9)) // a group beside them fills segments, and lets go of them
		for i := uint64(11); i < 60; i++ {
			write(t, l, Update{Group: 9, Entries: entries(i, i+1, 1, 3000)})
			write(t, l, Update{Group: 9, Truncate: &Position{i, 1}})
			if err := l.Recycle(); err != nil {
				t.Fatal(err)
			}
		}
		check(l, "gone on")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = open(t, mem, small())
		check(l, "opened again")
		above[1] = uint64(len(a.entries[1])) / 2
		above[2], above[3] = 1<<40, 1<<40
		write(t, l, Update{Group: 2, Reset: &GroupState{Replica: 2, HardState: HardState{Term: 9, Commit: 90}, Truncated: Position{90, 9}}}, Update{Group: 3, Remove: true})
		l.table.truncate(l.table.groups[1], Position{above[1], 1}, nil, l.lastBatch)
		check(l, "truncated, reset, removed")
		l.Close()
	}
	if gaps < 100 {
		t.Errorf("only %d gaps were seen", gaps)
	}
}

// wantSpan reads a stretch of entries, by pieces and each alone.
func (a *appended) wantSpan(t *testing.T, l *Log, g dsdb.GroupID, s Span) {
	t.Helper()
	want := a.entries[g][s.First-11 : s.Last-10]
	var got []Entry
	for next := s.First; next <= s.Last; next = got[len(got)-1].Index + 1 {
		more, err := l.Entries(g, next, s.Last+1, 5000, nil)
		if err != nil || len(more) == 0 {
			t.Fatalf("group %d, entry %d: %d, %v", g, next, len(more), err)
		}
		got = append(got, more...)
	}
	if err := sameEntries(got, want); err != nil {
		t.Fatalf("group %d: %v", g, err)
	}
	for _, e := range want {
		if term, err := l.Term(g, e.Index); err != nil || term != e.Term {
			t.Fatalf("group %d: term of %d is %d, %v", g, e.Index, term, err)
		}
	}
}

// listing describes all files of the log.
func listing(t *testing.T, fs vfs.FS) string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sb strings.Builder
	for _, name := range names {
		b, err := vfs.ReadFile(fs, dir+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sb, "%s: %d bytes, %08x\n", name, len(b), crc32.Checksum(b, castagnoli))
	}
	return sb.String()
}

// A checkpoint behind the damage tells which of the entries before it were
// replaced in what is lost: those are no more.
func TestReplacedEntriesAreNotSetAside(t *testing.T) {
	for _, c := range []struct {
		name  string
		last  uint64
		terms []termRun
		want  []Span
	}{
		{"a later term from 14 on", 20, []termRun{{11, 2}, {14, 3}}, []Span{{11, 13}}},
		{"all of another term", 20, []termRun{{11, 3}}, nil},
		{"fewer", 14, []termRun{{11, 2}}, []Span{{11, 14}}},
		{"nothing is said of the oldest", 25, []termRun{{16, 3}}, []Span{{11, 15}}},
		{"they are the same", 30, []termRun{{11, 2}}, []Span{{11, 18}}},
	} {
		tab := newTable()
		tab.put(1, checkpoint{state: GroupState{Replica: 1, Truncated: Position{10, 1}}, last: 10})
		p := place{seg: &segment{}, body: 64, batch: 1}
		for _, e := range entries(11, 19, 2, 10) {
			tab.apply(&record{typ: recEntry, replica: 1, group: 1, term: e.Term, index: e.Index, payload: e.Data}, p, 0)
		}
		tab.lost()
		said := checkpoint{state: GroupState{Replica: 1, Truncated: Position{10, 1}}, last: c.last, terms: c.terms}
		r := said.record(recState, 1)
		tab.apply(&r, p, 0)
		if got := (&Log{table: tab}).Rest(1).Spans; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
