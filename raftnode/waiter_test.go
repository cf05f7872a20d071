package raftnode

import (
	"context"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

// impatient is a waiter that may give up.
type impatient struct {
	result
	gone bool
}

func (w *impatient) Gone() bool { return w.gone }

// A voter is away for long, and a replica hears nothing for long: those who have
// given up waiting for them are forgotten, the others are told.
func TestWhoGivesUpIsForgotten(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.write("b", 0, 1) // node 2 hears nothing
	last := tr.status(0).Commit
	for range 100 {
		for _, w := range []*impatient{{gone: true}, {gone: true}} {
			tr.cores[0].Matched(trioGroup, last, w)
			tr.cores[2].Applied(trioGroup, last, w)
		}
	}
	matched, applied := new(impatient), new(impatient)
	tr.cores[0].Matched(trioGroup, last, matched)
	tr.cores[2].Applied(trioGroup, last, applied)
	for _, i := range []int{0, 2} {
		tr.settle(i)
		if n := tr.status(i).Waiting; n != 1 {
			t.Errorf("node %d remembers %d", i, n)
		}
	}
	tr.await(func() bool { return matched.told == 1 && applied.told == 1 }, 0, 1, 2)
}

// The host's callers give up when their context ends.
func TestCallersGiveUpWithTheirContext(t *testing.T) {
	h := openHost(t, newMemLog())
	startSingle(t, h, 1, new(ledger))
	at := propose(t, h, 1, "x").Index
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := h.Applied(ctx, 1, at+1000); dsdb.KindOf(err) != dsdb.KindTimeout {
			t.Errorf("%v", err)
		}
		cancel()
	}
	propose(t, h, 1, "y")
	await(t, func() bool { return h.Status(1).Waiting == 0 })
}
