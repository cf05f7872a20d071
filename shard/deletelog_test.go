package shard

import (
	"fmt"
	"testing"

	"github.com/dasudian/dsdb"
)

// A shard remembers so many deletes and bytes of them, an equal one once. A hint
// that may be older than one of those forgotten is rejected as a whole, since
// nobody can tell any more what of it was deleted.
func TestForgottenDeletes(t *testing.T) {
	var l deleteLog
	remember := func(index uint64, d Delete) {
		l.add(keptDelete{index, AppendDelete(nil, dsdb.ProposalID{}, d)[1:], d})
	}
	for i := range uint64(maxDeletes + 5) {
		remember(10+i, Delete{DropSeries: true, Range: dsdb.TimeRange{Start: int64(i)}})
	}
	if len(l.kept) != maxDeletes || l.floor != 14 || l.kept[0].index != 15 {
		t.Errorf("%d are kept from %d on, floor %d", len(l.kept), l.kept[0].index, l.floor)
	}
	for i := range uint64(100) {
		remember(2000+i, Delete{Measurements: []string{"cpu"}})
	}
	if len(l.kept) != maxDeletes || l.floor != 15 {
		t.Errorf("of equal deletes more than the last is kept: %d in all, floor %d", len(l.kept), l.floor)
	}
	remember(3000, Delete{Measurements: []string{fmt.Sprintf("%0*d", maxDeleteBytes, 0)}})
	if len(l.kept) != 0 || l.floor != 3000 || l.bytes != 0 {
		t.Errorf("after a huge delete %d of %d bytes are kept, floor %d", len(l.kept), l.bytes, l.floor)
	}

	m := newMachine(t, 1)
	points := []point{{"cpu", nil, 10, []field{{"i", dsdb.Integer, "1i"}}}, {"cpu", nil, 11, []field{{"i", dsdb.Integer, "1i"}}}}
	for i := range maxDeletes + 1 {
		m.apply(AppendDelete(nil, dsdb.ProposalID{}, Delete{DropSeries: true, Range: dsdb.TimeRange{Start: int64(i)}}))
	}
	for _, reopened := range []bool{false, true} {
		if reopened {
			m.flush()
			check(t, m.shard.Close())
			m.open()
		}
		if v := m.apply(AppendHints(nil, dsdb.ProposalID{}, 0, [][]byte{AppendHint(nil, 0, batchOf(points))})); v.Rejected != 2 || v.Kind != dsdb.KindInvalid {
			t.Errorf("reopened %v, a hint older than the first delete: %+v", reopened, v)
		}
		v := m.apply(AppendHints(nil, dsdb.ProposalID{}, 0, [][]byte{AppendHint(nil, 1, batchOf(points))}))
		if _, deleted, err := Delivered(v); v.Rejected != 0 || deleted != 2 || err != nil {
			t.Errorf("reopened %v, a hint older than those that are remembered: %+v", reopened, v)
		}
	}
	check(t, m.shard.Close())
}

// Any bytes as a verdict are the counts of a delivery, or reported.
func FuzzDelivered(f *testing.F) {
	f.Add([]byte{3, 200, 1})
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := Delivered(dsdb.Verdict{Value: b}); err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt {
			t.Fatal(err)
		}
	})
}
