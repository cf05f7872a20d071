package exec

import (
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// budget bounds the bytes that one query holds in cells, value lists and row
// buffers. Decode buffers belong to cursors and are not counted. Safe for
// concurrent use.
type budget struct {
	limit  int64
	used   atomic.Int64
	peak   atomic.Int64
	shared *Memory // of all queries; nil: without bound
}

// Memory bounds the bytes that all queries of a process hold together, counted as
// for each of them. The zero Memory has no bound. Safe for concurrent use.
type Memory struct {
	Limit int64 // 0: none
	used  atomic.Int64
}

// Used returns the bytes that queries hold now.
func (m *Memory) Used() int64 { return m.used.Load() }

// take reserves n bytes, or reports KindUnavailable and reserves nothing.
func (m *Memory) take(n int64) error {
	if m == nil {
		return nil
	}
	if used := m.used.Add(n); m.Limit > 0 && used > m.Limit && n > 0 {
		m.used.Add(-n)
		return dsdb.Errorf(dsdb.KindUnavailable, "all queries together hold more than %d bytes, which is as much as they may: try again when some have ended", m.Limit)
	}
	return nil
}

// take reserves n bytes, or reports KindTooLarge, of all queries together
// KindUnavailable, and reserves nothing.
func (b *budget) take(n int64) error {
	used := b.used.Add(n)
	if used > b.limit {
		b.used.Add(-n)
		return dsdb.Errorf(dsdb.KindTooLarge, "query memory limit exceeded: (%d/%d)", used, b.limit)
	}
	if err := b.shared.take(n); err != nil {
		b.used.Add(-n)
		return err
	}
	for p := b.peak.Load(); used > p && !b.peak.CompareAndSwap(p, used); p = b.peak.Load() {
	}
	return nil
}

func (b *budget) give(n int64) {
	b.used.Add(-n)
	_ = b.shared.take(-n) // less is never too much
}

// close gives back all that is reserved still: the query is over.
func (b *budget) close() { b.give(b.used.Load()) }
