package meta

import (
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb"
)

// Whatever time groups are asked for, no data node gets more than the limit by them,
// and none for want of room if all of them would fit.
func TestNoNodeExceedsTheLimit(t *testing.T) {
	const limit = 40
	refused := 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newTestData(t, 1+r.IntN(4))
		n := 1 + r.IntN(3)
		d = mustApply(t, d, &CreateDatabase{Name: "more", Policy: &PolicySpec{ReplicaN: &n}})
		for range 60 {
			now := (1000 + r.Int64N(40)) * week
			c := &EnsureShardGroups{Database: "more", Now: now, Limit: limit, Witness: r.IntN(2) == 0}
			for range 1 + r.IntN(5) {
				c.Times = append(c.Times, now+(r.Int64N(60)-50)*week)
			}
			next, v := d.Apply(Encode(dsdb.ProposalID{}, c))
			if v.Rejected > 0 {
				free := *c
				free.Limit = 0
				next, _ = d.Apply(Encode(dsdb.ProposalID{}, &free))
				if fullest(next) <= farLimit(limit) {
					t.Fatalf("seed %d: %v refused, a node would hold %d: %s", seed, c.Times, fullest(next), v.Reason)
				}
				refused++
				continue
			}
			if d = next; fullest(d) > limit {
				t.Fatalf("seed %d: a node holds %d", seed, fullest(d))
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// fullest returns how many replicas and witnesses the data node holds that holds the most.
func fullest(d *Data) (most int) {
	p := newPlacer(d, nil)
	for i := range p.nodes {
		most = max(most, p.held(i))
	}
	return most
}

// A command says the limit only where it may be reached: far from it, it is one
// that programs know which do not know the limit.
func TestLimitIsSaidWhereItMayBeReached(t *testing.T) {
	d := mustApply(t, newTestData(t, 3), &EnsureShardGroups{Database: "db", Times: manyWeeks(400), Now: 4000 * week})
	for _, c := range []struct {
		times, limit int
		said         bool
	}{
		{1, 0, false},
		{1, 5000, false},
		{32, 5000, false}, // 400 on each node, 400 + 32·128 < 4500
		{33, 5000, true},
		{1, 586, false}, // 400 + 128 = 586 - 58
		{1, 585, true},
		{1, 400, true},
	} {
		cmd := EnsureShardGroups{Database: "db", Times: manyWeeks(int64(c.times)), Now: 4000 * week}
		cmd.Bound(d, c.limit)
		if said := cmd.Limit == c.limit && c.limit > 0; said != c.said {
			t.Errorf("%d times, limit %d: command says %d", c.times, c.limit, cmd.Limit)
		}
	}
}
