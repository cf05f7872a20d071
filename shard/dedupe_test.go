package shard

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
)

// A client writes 1 and its coordinator does not learn what came of it, another
// client overwrites that by 2, the coordinator tries again: 2 stays, whatever
// happened to the replica in between.
func TestRetryDoesNotUndoALaterWrite(t *testing.T) {
	steps := map[string]func(m *machine){
		"nothing": func(m *machine) {},
		"flush":   (*machine).flush,
		"flush, restart": func(m *machine) {
			m.flush()
			check(t, m.shard.Close())
			m.open()
		},
		"restart": func(m *machine) {
			check(t, m.shard.Close())
			m.open()
		},
		"flush, full compaction": func(m *machine) {
			m.flush()
			_, err := m.shard.Compact(true)
			check(t, err)
		},
		"flush, replaced by a replica from a snapshot": func(m *machine) {
			m.flush()
			m.moveToOther()
		},
	}
	value := func(v string) []point {
		return []point{{"cpu", dsdb.Tags{{Key: "host", Value: "a"}}, 10, []field{{"i", dsdb.Integer, v}}}}
	}
	conflict := append(value("1i"), point{"cpu", nil, 11, []field{{"i", dsdb.Float, "2.5"}}})
	for after1, step1 := range steps {
		for after2, step2 := range steps {
			m := newMachine(t, 1)
			one := AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 1}, batchOf(conflict))
			first := m.apply(one)
			step1(m)
			m.apply(AppendWrite(nil, dsdb.ProposalID{Node: 2, Epoch: 1, Seq: 1}, batchOf(value("2i"))))
			step2(m)
			second := m.apply(one)
			if fmt.Sprint(first) != fmt.Sprint(second) || first.Rejected != 1 || !strings.Contains(first.Reason, "field type conflict") {
				t.Errorf("%s, %s: first %+v, then %+v", after1, after2, first, second)
			}
			src, err := m.shard.Source()
			check(t, err)
			got := dump(t, src, dsdb.Scan{Measurement: "cpu", Fields: []string{"i"}, Range: dsdb.AllTime}, nil)
			if want := []string{"cpu,host=a 000010 2i"}; !slices.Equal(got, want) {
				t.Errorf("%s, %s: %q, want %q", after1, after2, got, want)
			}
			check(t, src.Close())
			check(t, m.shard.Close())
		}
	}
}

// A coordinator that has started again has a new epoch: what is left of the old
// one is refused, also by a replica that has only files.
func TestEntriesOfAnOldEpochAreRefused(t *testing.T) {
	m := newMachine(t, 1)
	p := []point{{"cpu", nil, 10, []field{{"i", dsdb.Integer, "1i"}}}}
	m.apply(AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 5, Seq: 1}, batchOf(p)))
	m.flush()
	check(t, m.shard.Close())
	m.open()
	p[0].time = 11
	v := m.apply(AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 4, Seq: 999}, batchOf(p)))
	if v.Kind != dsdb.KindTimeout || v.Rejected == 0 {
		t.Errorf("verdict %+v", v)
	}
	if n := m.shard.Stats().RowsApplied; n != 0 {
		t.Errorf("%d rows were applied", n)
	}
	check(t, m.shard.Close())
}

// Several writes in one entry do what they do in an entry each: also when some
// of them, or all, come again, and each gets its own verdict.
func TestWritesInOneEntry(t *testing.T) {
	m := newMachine(t, 1)
	write := func(seq uint64, ps ...point) []byte {
		return AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: seq}, batchOf(ps))
	}
	integer := func(at int64, v string) point {
		return point{"cpu", nil, at, []field{{"i", dsdb.Integer, v}}}
	}
	float := func(at int64) point { return point{"cpu", nil, at, []field{{"i", dsdb.Float, "0.5"}}} }
	one, two, three := write(1, integer(10, "1i")), write(2, float(11), integer(12, "2i"), float(13)), write(3, integer(10, "3i"))
	m.apply(one)
	both := AppendWrites(nil, [][]byte{one, two, three})
	want := []int{0, 2, 0}
	for _, again := range []bool{false, true} {
		v := m.apply(both)
		vs, err := Verdicts(v, 3)
		check(t, err)
		for i, v := range vs {
			if v.Rejected != want[i] || (v.Reason != "") != (want[i] > 0) {
				t.Errorf("again %v, write %d: %+v", again, i, v)
			}
		}
		if v.Rejected != 2 || v.Kind != dsdb.KindConflict {
			t.Errorf("again %v, all: %+v", again, v)
		}
		m.apply(write(4, integer(10, "4i")))
		m.flush()
	}
	src, err := m.shard.Source()
	check(t, err)
	got := dump(t, src, dsdb.Scan{Measurement: "cpu", Fields: []string{"i"}, Range: dsdb.AllTime}, nil)
	if want := []string{"cpu 000010 4i", "cpu 000012 2i"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	check(t, src.Close())
	if _, err := Verdicts(dsdb.Verdict{Value: []byte{3, 1, 1, 0}}, 3); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("verdict on a fourth write: %v", err)
	}
	check(t, m.shard.Close())
}
