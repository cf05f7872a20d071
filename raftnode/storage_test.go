package raftnode

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb/wal"
)

func randomEntry(rng *rand.Rand, index, term uint64) *raftpb.Entry {
	e := &raftpb.Entry{Index: &index, Term: &term}
	if n := rng.IntN(300); n > 0 {
		e.Data = make([]byte, n)
	}
	if rng.IntN(10) == 0 {
		e.Type = raftpb.EntryConfChangeV2.Enum()
	}
	return e
}

func TestEntrySizeIsTheEncodedSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		e := randomEntry(rng, rng.Uint64()>>rng.IntN(64), rng.Uint64()>>rng.IntN(64))
		if got, want := entrySize(e), uint64(proto.Size(e)); got != want {
			t.Fatalf("%v: %d bytes, encoded %d", e, got, want)
		}
		back := raftEntries(appendLogEntries(nil, []*raftpb.Entry{e}))[0]
		if !proto.Equal(e, back) {
			t.Fatalf("%v came back from the log as %v", e, back)
		}
	}
}

// The storage answers like the raft library's own, whatever is cached.
func TestStorageAnswersLikeMemoryStorage(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		log, twin := newMemLog(), raft.NewMemoryStorage()
		if err := log.Write([]wal.Update{{Group: 1, Create: &wal.GroupState{Replica: 1, Truncated: birth, HardState: wal.HardState{Term: 1, Commit: 10}}}}, true); err != nil {
			t.Fatal(err)
		}
		index, term := birth.Index, birth.Term
		if err := twin.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term}}); err != nil {
			t.Fatal(err)
		}
		s := &storage{group: 1, log: log, truncated: birth, last: birth.Index, applied: birth.Index}
		for range 30 {
			mutateStorage(t, rng, s, twin, log)
			compareStorage(t, rng, s, twin)
		}
	}
}

// mutateStorage appends, overwrites, applies, truncates or evicts.
func mutateStorage(t *testing.T, rng *rand.Rand, s *storage, twin *raft.MemoryStorage, log *memLog) {
	switch rng.IntN(5) {
	case 0, 1: // append from anywhere above what is applied
		from := s.applied + 1 + rng.Uint64N(s.last-s.applied+1)
		term, err := twin.Term(from - 1)
		if err != nil {
			t.Fatal(err)
		}
		term += rng.Uint64N(2)
		var ents []*raftpb.Entry
		for i := range rng.Uint64N(6) + 1 {
			ents = append(ents, randomEntry(rng, from+i, term))
		}
		u := wal.Update{Group: 1, Entries: appendLogEntries(nil, ents)}
		if err := errors.Join(twin.Append(ents), log.Write([]wal.Update{u}, true)); err != nil {
			t.Fatal(err)
		}
		s.appended(ents)
	case 2:
		s.applied += rng.Uint64N(s.last - s.applied + 1)
	case 3:
		index := s.truncated.Index + rng.Uint64N(s.applied-s.truncated.Index+1)
		if index == s.truncated.Index {
			return
		}
		term, err := s.Term(index)
		if err != nil {
			t.Fatal(err)
		}
		p := wal.Position{Index: index, Term: term}
		if err := errors.Join(twin.Compact(index), log.Write([]wal.Update{{Group: 1, Truncate: &p}}, true)); err != nil {
			t.Fatal(err)
		}
		s.truncate(p)
	case 4:
		s.evict(uint64(rng.IntN(500)))
	}
}

func compareStorage(t *testing.T, rng *rand.Rand, s *storage, twin *raft.MemoryStorage) {
	t.Helper()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	wantFirst, _ := twin.FirstIndex()
	wantLast, _ := twin.LastIndex()
	if first != wantFirst || last != wantLast {
		t.Fatalf("bounds %d..%d, want %d..%d", first, last, wantFirst, wantLast)
	}
	for i := first - 2; i <= last+1; i++ {
		got, err := s.Term(i)
		want, wantErr := twin.Term(i)
		if got != want || err != wantErr {
			t.Fatalf("term of %d: %d, %v; want %d, %v", i, got, err, want, wantErr)
		}
	}
	if first > last {
		return
	}
	lo := first + rng.Uint64N(last-first+1)
	hi := lo + 1 + rng.Uint64N(last-lo+1)
	got, err := s.Entries(lo, hi, 1<<40)
	want, wantErr := twin.Entries(lo, hi, 1<<40)
	// Where the cache begins in the middle, a prefix is enough.
	if err != wantErr || len(got) == 0 || len(got) > len(want) {
		t.Fatalf("entries [%d, %d): %d, %v; want %d, %v", lo, hi, len(got), err, len(want), wantErr)
	}
	for i := range got {
		if got[i].GetIndex() != want[i].GetIndex() || got[i].GetTerm() != want[i].GetTerm() || !bytes.Equal(got[i].GetData(), want[i].GetData()) {
			t.Fatalf("entry %d: %v, want %v", lo+uint64(i), got[i], want[i])
		}
	}
	if cut, err := s.Entries(lo, hi, 1); err != nil || len(cut) != 1 {
		t.Fatalf("entries [%d, %d) in one byte: %d, %v", lo, hi, len(cut), err)
	}
}

func FuzzOpenProposal(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendProposal(nil, 1, 2, nil))
	f.Add(appendProposal(nil, 1<<63, 7, []byte("payload")))
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		origin, seq, payload, err := openProposal(data)
		if err == nil && !bytes.Equal(appendProposal(nil, origin, seq, payload), data) {
			t.Errorf("%x does not round trip", data)
		}
	})
}
