package dedupe

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
)

// twin is the obvious window: it remembers every proposal, and computes from
// that which of them are in the window.
type twin struct {
	epoch    map[dsdb.NodeID]uint64
	greatest map[dsdb.NodeID]uint64
	verdicts map[dsdb.ProposalID]dsdb.Verdict
}

func (w *twin) check(id dsdb.ProposalID) (dsdb.Verdict, bool) {
	if id == (dsdb.ProposalID{}) {
		return dsdb.Verdict{}, false
	}
	if id.Seq == 0 || id.Epoch < w.epoch[id.Node] || id.Epoch == w.epoch[id.Node] && id.Seq+1024 <= w.greatest[id.Node] {
		return unknown, true
	}
	v, ok := w.verdicts[id]
	return v, ok
}

func (w *twin) record(id dsdb.ProposalID, v dsdb.Verdict) {
	if id.Seq == 0 {
		return
	}
	if id.Epoch > w.epoch[id.Node] {
		w.epoch[id.Node], w.greatest[id.Node] = id.Epoch, 0
	}
	w.greatest[id.Node] = max(w.greatest[id.Node], id.Seq)
	v.Index = 0
	w.verdicts[id] = v
}

// Whatever is proposed, repeated, lost and restarted, in whatever order: the
// window answers as the twin does, and so does one that was loaded from its
// bytes or cloned.
func TestWindowAgainstTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		w, obvious := &Window{}, &twin{map[dsdb.NodeID]uint64{}, map[dsdb.NodeID]uint64{}, map[dsdb.ProposalID]dsdb.Verdict{}}
		front, epoch := [4]uint64{}, [4]uint64{1, 1, 1, 1}
		for i := range 6000 {
			node := r.IntN(4)
			if r.IntN(500) == 0 {
				epoch[node] += r.Uint64N(3)
				front[node] = 0
			}
			front[node] += []uint64{0, 1, 1, 1, 1, r.Uint64N(3), r.Uint64N(400), r.Uint64N(4000)}[max(0, r.IntN(200)-192)]
			id := dsdb.ProposalID{Node: dsdb.NodeID(node + 1), Epoch: epoch[node] - r.Uint64N(50)/49, Seq: front[node] - min(front[node], r.Uint64N(10), r.Uint64N(1500))}
			if r.IntN(20) == 0 {
				id.Seq = front[node] - min(front[node], r.Uint64N(1100))
			}
			if r.IntN(100) == 0 {
				id = dsdb.ProposalID{}
			}
			got, dup := w.Check(id)
			want, wantDup := obvious.check(id)
			if dup != wantDup || !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, step %d, %+v: %+v %v, want %+v %v", seed, i, id, got, dup, want, wantDup)
			}
			if !dup {
				v := randomVerdict(r)
				w.Record(id, v)
				obvious.record(id, v)
			}
			switch r.IntN(40) {
			case 0:
				w = w.Clone()
			case 1:
				w = reload(t, w)
			}
		}
	}
}

func randomVerdict(r *rand.Rand) (v dsdb.Verdict) {
	v.Index = r.Uint64()
	switch r.IntN(8) {
	case 0:
		v.Rejected, v.Kind, v.Reason = 1+r.IntN(9), dsdb.KindConflict, fmt.Sprint("field type conflict ", r.IntN(99))
	case 1:
		v.Value = fmt.Append([]byte{}, r.IntN(1000))
	case 2:
		v.Value = []byte{}
	}
	return v
}

// reload returns the window as its bytes say it is.
func reload(t *testing.T, w *Window) *Window {
	t.Helper()
	b := w.Append(nil)
	n := &Window{}
	if err := n.Load(b); err != nil {
		t.Fatal(err)
	}
	if again := n.Append([]byte("x")); !bytes.Equal(again[1:], b) {
		t.Fatalf("%x became %x", b, again[1:])
	}
	return n
}

// A clone goes its own way.
func TestCloneSharesNothing(t *testing.T) {
	w := &Window{}
	rejected := dsdb.Verdict{Rejected: 1, Reason: "no"}
	for seq := range uint64(10) {
		w.Record(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: seq + 1}, rejected)
	}
	before := w.Append(nil)
	c := w.Clone()
	for seq := range uint64(3000) {
		c.Record(dsdb.ProposalID{Node: 1 + dsdb.NodeID(seq%2), Epoch: 1, Seq: seq + 11}, rejected)
	}
	if !bytes.Equal(w.Append(nil), before) {
		t.Fatal("the window changed with its clone")
	}
}

// Of very many coordinators those longest unused are forgotten, by the order
// of the log, also across Load.
func TestManyCoordinators(t *testing.T) {
	w := &Window{}
	for n := range dsdb.NodeID(1024) {
		w.Record(dsdb.ProposalID{Node: n + 1, Epoch: 1, Seq: 1}, dsdb.Verdict{})
	}
	w = reload(t, w)
	w.Record(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 2}, dsdb.Verdict{})    // used again
	w.Record(dsdb.ProposalID{Node: 5000, Epoch: 1, Seq: 1}, dsdb.Verdict{}) // one too many
	w = reload(t, w)
	for _, c := range []struct {
		node dsdb.NodeID
		dup  bool
	}{{1, true}, {2, false}, {3, true}, {5000, true}} {
		if _, dup := w.Check(dsdb.ProposalID{Node: c.node, Epoch: 1, Seq: 1}); dup != c.dup {
			t.Errorf("node %d: duplicate %v, want %v", c.node, dup, c.dup)
		}
	}
}

// However much the verdicts say, a coordinator takes bounded space: the oldest
// are forgotten, but not that their proposals were seen.
func TestLongVerdictsAreForgotten(t *testing.T) {
	w := &Window{}
	long := dsdb.Verdict{Rejected: 1, Kind: dsdb.KindConflict, Reason: strings.Repeat("x", 10<<10)}
	for seq := uint64(1); seq <= 5000; seq++ {
		w.Record(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: seq}, long)
	}
	w = reload(t, w)
	if n := len(w.Append(nil)); n > 256<<10 {
		t.Errorf("the window takes %d bytes", n)
	}
	for seq, want := range map[uint64]dsdb.Verdict{5000: long, 4995: long, 4900: unknown, 3977: unknown, 3976: unknown} {
		if got, dup := w.Check(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: seq}); !dup || !reflect.DeepEqual(got, want) {
			t.Errorf("proposal %d: %.60v, duplicate %v", seq, got, dup)
		}
	}
	huge := dsdb.Verdict{Value: make([]byte, 1<<20)}
	w.Record(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 5001}, huge)
	if got, _ := w.Check(dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 5001}); got.Kind != dsdb.KindTimeout {
		t.Errorf("a verdict of a mebibyte is kept")
	}
	reload(t, w)
}

// Any bytes load as a window that appends the same bytes, or are reported.
func FuzzLoad(f *testing.F) {
	w := &Window{}
	r := rand.New(rand.NewPCG(1, 1))
	f.Add(w.Append(nil))
	for i := range 3000 {
		w.Record(dsdb.ProposalID{Node: dsdb.NodeID(r.IntN(3)), Epoch: 7, Seq: uint64(i/3 + 1)}, randomVerdict(r))
		if i == 20 || i == 2999 {
			f.Add(w.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &Window{}
		if err := w.Load(b); err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt || len(w.Append(nil)) != 4 {
				t.Fatalf("%v, and the window holds %d bytes", err, len(w.Append(nil)))
			}
			return
		}
		if again := w.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		w.Record(dsdb.ProposalID{Node: 1, Epoch: 1 << 63, Seq: 9}, dsdb.Verdict{Rejected: 1})
	})
}

func BenchmarkCheckRecord(b *testing.B) {
	b.ReportAllocs()
	w := &Window{}
	for i := range b.N {
		id := dsdb.ProposalID{Node: 3, Epoch: 1, Seq: uint64(i) + 1}
		if _, dup := w.Check(id); !dup {
			w.Record(id, dsdb.Verdict{})
		}
	}
}
