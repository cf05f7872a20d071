// Package dedupe remembers which proposals a state machine has applied, so that
// a second copy of an entry, which a retry put into the log, has no effect and
// gets the answer of the first. A Window is a part of the state: what it holds
// follows from the log alone, and it goes into manifests and snapshots as of
// the index of what they hold (FORMAT.md).
//
// A proposal arrives with its dsdb.ProposalID. Check tells whether it is one
// that was seen; if not it is applied, and Record notes it with its verdict.
// The package knows neither the log nor what a proposal says.
package dedupe

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/dasudian/dsdb"
)

const (
	// Width is how many sequence numbers of a coordinator a Window tells apart:
	// the greatest it has seen and those below it. A proposal whose number is
	// lower than that has no effect, so a coordinator must not have it outstanding.
	Width = 1024

	maxCoordinators = 1024      // the one longest unused makes room for another
	maxVerdictBytes = 128 << 10 // of the verdicts that are kept of one coordinator
	verdictCost     = 64        // what a verdict takes beside its text and value
)

// Window remembers proposals. The zero Window has seen none. It is not safe
// for concurrent use.
type Window struct {
	coordinators map[dsdb.NodeID]*coordinator
	uses         uint64 // counts what was recorded
}

// coordinator is what is known of the proposals of one process in one epoch.
type coordinator struct {
	node     dsdb.NodeID
	epoch    uint64
	greatest uint64             // sequence number that was seen; 0: none
	seen     [Width / 64]uint64 // bit seq % Width, for those in (greatest - Width, greatest]
	kept     []kept             // by seq
	bytes    int                // that kept takes
	used     uint64             // Window.uses when it was last recorded
}

// kept is a verdict that says more than "applied in full".
type kept struct {
	seq     uint64
	verdict dsdb.Verdict // Index is 0
}

// unknown is the verdict on a proposal of which nobody can tell any more
// whether it was applied.
var unknown = dsdb.Verdict{
	Rejected: 1, Kind: dsdb.KindTimeout,
	Reason: "timeout: the outcome of this write is not known any more",
}

// Check tells whether the proposal id is a duplicate, which must have no
// effect, and if so what to answer: the verdict that was recorded, or, if it
// is too old for that, one of KindTimeout. The zero id is never a duplicate.
func (w *Window) Check(id dsdb.ProposalID) (v dsdb.Verdict, dup bool) {
	if id == (dsdb.ProposalID{}) {
		return v, false
	}
	if id.Seq == 0 {
		return unknown, true
	}
	c := w.coordinators[id.Node]
	switch {
	case c == nil || id.Epoch > c.epoch || id.Epoch == c.epoch && id.Seq > c.greatest:
		return v, false
	case id.Epoch < c.epoch || c.greatest-id.Seq >= Width:
		return unknown, true
	case c.seen[id.Seq%Width/64]>>(id.Seq%64)&1 == 0:
		return v, false
	}
	if i, ok := slices.BinarySearchFunc(c.kept, id.Seq, bySeq); ok {
		v = c.kept[i].verdict
		v.Value = slices.Clone(v.Value)
	}
	return v, true
}

func bySeq(k kept, seq uint64) int { return cmp.Compare(k.seq, seq) }

// Record notes that the proposal id was applied, and its verdict, of which
// Index is not kept. Check has said that it is no duplicate. The zero id is not noted.
func (w *Window) Record(id dsdb.ProposalID, v dsdb.Verdict) {
	if id.Seq == 0 {
		return
	}
	c := w.coordinators[id.Node]
	if c == nil {
		c = w.add(id.Node)
	}
	if id.Epoch != c.epoch {
		*c = coordinator{node: id.Node, epoch: id.Epoch}
	}
	w.uses++
	c.used = w.uses
	if id.Seq > c.greatest {
		c.slide(id.Seq)
	}
	c.seen[id.Seq%Width/64] |= 1 << (id.Seq % 64)
	v.Index = 0
	if v.Rejected != 0 || v.Value != nil {
		v.Value = slices.Clone(v.Value)
		c.keep(kept{id.Seq, v})
	}
}

// add makes a coordinator that has seen nothing, in place of the one longest
// unused if there are too many.
func (w *Window) add(node dsdb.NodeID) *coordinator {
	if w.coordinators == nil {
		w.coordinators = map[dsdb.NodeID]*coordinator{}
	}
	if len(w.coordinators) >= maxCoordinators {
		delete(w.coordinators, w.byUse()[0].node)
	}
	c := &coordinator{node: node}
	w.coordinators[node] = c
	return c
}

// byUse returns the coordinators, the longest unused first.
func (w *Window) byUse() []*coordinator {
	all := make([]*coordinator, 0, len(w.coordinators))
	for _, c := range w.coordinators {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *coordinator) int { return cmp.Compare(a.used, b.used) })
	return all
}

// slide moves the window up so that it ends with seq.
func (c *coordinator) slide(seq uint64) {
	if seq-c.greatest >= Width {
		clear(c.seen[:])
	} else {
		for s := c.greatest + 1; s <= seq; s++ {
			c.seen[s%Width/64] &^= 1 << (s % 64)
		}
	}
	c.greatest = seq
	old := 0
	for old < len(c.kept) && seq-c.kept[old].seq >= Width {
		c.bytes -= c.kept[old].cost()
		old++
	}
	c.kept = slices.Delete(c.kept, 0, old)
}

// keep keeps a verdict. If there are too many bytes of them, the oldest become
// unknown.
func (c *coordinator) keep(k kept) {
	at, _ := slices.BinarySearchFunc(c.kept, k.seq, bySeq)
	c.kept = slices.Insert(c.kept, at, k)
	c.bytes += k.cost()
	for i := 0; c.bytes > maxVerdictBytes && i < len(c.kept); i++ {
		c.bytes -= c.kept[i].cost()
		c.kept[i].verdict = unknown
		c.bytes += c.kept[i].cost()
	}
}

// cost is what the verdict takes; those that are unknown share their text.
func (k *kept) cost() int {
	if k.forgotten() {
		return verdictCost
	}
	return verdictCost + len(k.verdict.Reason) + len(k.verdict.Value)
}

func (k *kept) forgotten() bool {
	v := &k.verdict
	return v.Kind == unknown.Kind && v.Rejected == unknown.Rejected && v.Value == nil && v.Reason == unknown.Reason
}

// Clone returns a copy that shares nothing that changes.
func (w *Window) Clone() *Window {
	n := &Window{uses: w.uses}
	if w.coordinators != nil {
		n.coordinators = make(map[dsdb.NodeID]*coordinator, len(w.coordinators))
	}
	for node, c := range w.coordinators {
		d := *c
		d.kept = slices.Clone(c.kept)
		n.coordinators[node] = &d
	}
	return n
}

// known counts the sequence numbers that are seen, for those who decode.
func (c *coordinator) known() (n int) {
	for _, word := range c.seen {
		n += bits.OnesCount64(word)
	}
	return n
}
