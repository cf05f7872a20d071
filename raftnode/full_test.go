package raftnode

import (
	"fmt"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// A follower whose log takes nothing hears its leader again and again, who cannot
// know that what it said before is still on its way: that does not pile up. When
// there is space the follower goes on, and it has not campaigned meanwhile.
func TestNothingPilesUpWhileTheLogIsFull(t *testing.T) {
	tr := newTrio(t)
	tr.write("0", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	term, want := tr.status(0).Term, []string{"0"}
	full := tr.cores[2]
	full.Refuse(dsdb.Errorf(dsdb.KindUnavailable, "no space"))
	var queued []Append
	hear := func() {
		for _, m := range tr.take(2) {
			full.Step(Sender{Node: dsdb.NodeID(m.From)}, m)
		}
		out := full.Drain()
		queued = append(queued, out.Appends...)
		for _, box := range out.Network {
			tr.boxes[box.Node-1] = append(tr.boxes[box.Node-1], box.Messages...)
		}
	}
	for n := range 100 * heartbeatTicks {
		if n%20 == 0 {
			want = append(want, fmt.Sprint(len(want)))
			tr.write(want[len(want)-1], 0, 1)
		}
		for s := range TickSlices {
			full.Tick(s)
		}
		hear()
		tr.tick(1, 0, 1)
	}
	for range 4 * electionTicks { // nor does it campaign while it hears nobody
		for s := range TickSlices {
			full.Tick(s)
		}
		tr.boxes[2] = nil
		hear()
	}
	if len(queued) > 3 {
		t.Errorf("%d appends wait for space", len(queued))
	}
	full.Refuse(nil)
	for _, a := range queued {
		if !a.Empty {
			write(t, tr.logs[2], []wal.Update{a.Update}...)
		}
	}
	full.StorageDone(queued)
	tr.settle(2)
	tr.caughtUp(2, want)
	if now := tr.status(0).Term; now != term {
		t.Errorf("term %d after %d", now, term)
	}
}
