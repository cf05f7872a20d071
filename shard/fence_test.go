package shard

import (
	"testing"

	"github.com/dasudian/dsdb"
)

// Of several writes in one entry those below the fence are refused, each for itself.
// A proposal that comes again has the verdict that it had: refused once the fence is
// lower than it, and applied, though there is a fence now.
func TestWritesInOneEntryBelowAFence(t *testing.T) {
	m := newMachine(t, 1)
	write := func(seq, prepared uint64) []byte {
		p := []point{{"cpu", nil, int64(seq), []field{{"i", dsdb.Integer, "1i"}}}}
		return AppendPrepared(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: seq}, prepared, batchOf(p))
	}
	early, old, new, unsaid := write(1, 4), write(2, 4), write(3, 5), write(4, 0)
	if v := m.apply(early); v.Rejected > 0 {
		t.Errorf("before the fence: %+v", v)
	}
	m.apply(AppendFence(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 5}, 5))
	all := AppendWrites(nil, [][]byte{early, old, new, unsaid})
	for range 2 {
		vs, err := Verdicts(m.apply(all), 4)
		check(t, err)
		for i, want := range []bool{false, true, false, true} {
			if Refused(vs[i]) != want || !want && vs[i].Rejected > 0 {
				t.Errorf("write %d: %+v", i, vs[i])
			}
		}
		if v := m.apply(old); !Refused(v) {
			t.Errorf("one that was refused comes again: %+v", v)
		}
	}
	if rows := m.shard.Stats().RowsApplied; rows != 2 {
		t.Errorf("%d rows were applied, want 2", rows)
	}
	if kinds := [2]byte{all[0], AppendWrites(nil, [][]byte{unsaid})[0]}; kinds != [2]byte{entryPrepared, entryWrites} {
		t.Errorf("entries of kinds %v", kinds)
	}
	check(t, m.shard.Close())
}

// A fence is a part of what replicas are compared by.
func TestChecksumOfAFence(t *testing.T) {
	var digests [3][16]byte
	for i := range digests {
		m := newMachine(t, 1)
		m.apply(AppendFence(nil, dsdb.ProposalID{}, uint64(1+i/2)))
		m.apply(AppendChecksum(nil))
		m.shard.sum.running.Wait()
		_, digests[i], _ = m.shard.Checksum()
		check(t, m.shard.Close())
	}
	if digests[0] != digests[1] || digests[1] == digests[2] {
		t.Errorf("digests %x", digests)
	}
}
