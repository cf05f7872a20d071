package exec

import (
	"testing"

	"github.com/dasudian/dsdb"
)

// TestWideRange says that points may lie more than 2^63 nanoseconds apart.
func TestWideRange(t *testing.T) {
	const day = 24 * 3600 * second
	w := &world{}
	for i, at := range []int64{-106000 * day, 0, 106000 * day} {
		pts := []point{{measurement: "m", time: at, fields: map[string]any{"v": float64(i)}}}
		w.shards = append(w.shards, newMemShard(dsdb.ShardID(i+1), dsdb.TimeRange{Start: at, End: at + 7*day}, pts, 1))
	}
	for _, c := range []struct{ text, want string }{
		{"SELECT count(v) FROM m WHERE time > '1678-01-01' AND time < '2262-04-01' GROUP BY time(7d) fill(none)",
			"m time count\n  -9158486400000000000 1\n  0 1\n  9157881600000000000 1\n"},
		{"SELECT sum(v) FROM m WHERE time > '1678-01-01' AND time < '2262-04-01' GROUP BY time(106000d) fill(0) ORDER BY time DESC",
			"m time sum\n  9158400000000000000 2\n  0 1\n  -9158400000000000000 0\n  0 0\n"},
		{"SELECT v FROM m ORDER BY time DESC", "m time v\n  9158400000000000000 2\n  0 1\n  -9158400000000000000 0\n"},
	} {
		for _, o := range []Options{{}, {MemoryLimit: 1 << 20, ChunkRows: 1}} {
			got, err := answer(w, c.text, o)
			if err != nil || got != c.want {
				t.Errorf("%s:\n%s%v\nwant\n%s", c.text, got, err, c.want)
			}
			far, err := farAnswer(w, c.text, everywhere(w), o)
			if err != nil || far != c.want {
				t.Errorf("%s: on other nodes\n%s%v\nwant\n%s", c.text, far, err, c.want)
			}
		}
	}
}
