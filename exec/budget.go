package exec

import (
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// budget bounds the bytes that one query holds in cells, value lists and row
// buffers. Decode buffers belong to cursors and are not counted. Safe for
// concurrent use.
type budget struct {
	limit int64
	used  atomic.Int64
	peak  atomic.Int64
}

// take reserves n bytes, or reports KindTooLarge and reserves nothing.
func (b *budget) take(n int64) error {
	used := b.used.Add(n)
	if used > b.limit {
		b.used.Add(-n)
		return dsdb.Errorf(dsdb.KindTooLarge, "query memory limit exceeded: (%d/%d)", used, b.limit)
	}
	for p := b.peak.Load(); used > p && !b.peak.CompareAndSwap(p, used); p = b.peak.Load() {
	}
	return nil
}

func (b *budget) give(n int64) { b.used.Add(-n) }
