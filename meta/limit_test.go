package meta

import "testing"

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
