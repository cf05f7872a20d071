package tasks

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/shard"
)

// Shard is what the Maintainer does with a shard. Flush and Compact of one
// shard are never called at the same time.
type Shard interface {
	Stats() shard.Stats
	Flush() (bool, error)            // whether the log may forget more
	Compact(full bool) (bool, error) // whether there was anything to do
	Rest() bool                      // lets go of memory if nothing has used the shard since the call before
}

// Store is where the Maintainer finds shards and what it tells the log.
type Store interface {
	// Shards returns the open shards by id.
	Shards() []ManagedShard
	// Flushed says that the log may forget what the shard has flushed.
	Flushed(id dsdb.ShardID)
	// Changes counts the log entries applied to all shards: while it stands still
	// there is little to look for.
	Changes() uint64
	// LogBytes returns how much log there is, and which shards keep it from shrinking.
	LogBytes() (bytes int64, pinning []dsdb.ShardID)
}

// ManagedShard is a shard with its id.
type ManagedShard struct {
	ID dsdb.ShardID
	Shard
}

// Limits say when the Maintainer acts.
type Limits struct {
	FlushBytes  int64         // points in memory of one shard
	TotalBytes  int64         // points in memory of all shards: above half of it the largest are flushed; 0: no limit
	LogBytes    int64         // bytes of log: above it the shards that pin the oldest part are flushed; 0: no limit
	FlushCold   time.Duration // without writes for so long: flush
	CompactCold time.Duration // without writes for so long: compact into one run; without queries either: rest
	Compactions int           // at the same time
}

// Maintainer flushes and compacts shards. Make it with NewMaintainer, and Run it.
type Maintainer struct {
	store  Store
	limits Limits
	log    *slog.Logger

	memBytes atomic.Int64
	slots    chan struct{}

	mu   sync.Mutex // guards seen and busy
	seen map[dsdb.ShardID]*activity
}

// activity is what the Maintainer remembers of a shard.
type activity struct {
	index uint64    // last applied entry seen
	since time.Time // when it was first seen
	busy  bool      // a flush or compaction is running
	full  uint64    // the index at which the shard was last compacted in full
	round uint64    // of the last look at it
	tried time.Time // when work on it last failed
	asked time.Time // when it was last asked to rest
}

// idleRounds is how many rounds pass between two looks while nothing changes.
const idleRounds = 10

// retryAfter is how long a shard rests after a flush or compaction failed.
const retryAfter = 10 * time.Second

// NewMaintainer returns a Maintainer over the shards of store.
func NewMaintainer(store Store, limits Limits, log *slog.Logger) *Maintainer {
	return &Maintainer{store: store, limits: limits, log: log,
		slots: make(chan struct{}, max(limits.Compactions, 1)), seen: map[dsdb.ShardID]*activity{}}
}

// MemBytes returns the bytes of points in memory as of the last look.
func (m *Maintainer) MemBytes() int64 { return m.memBytes.Load() }

// Run looks at all shards ten times a second while entries are applied and
// once a second while none are, until ctx ends, then waits for the work it has started.
func (m *Maintainer) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	changes := uint64(0)
	for round := uint64(1); ; round++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if c := m.store.Changes(); c != changes || round%idleRounds == 0 {
				changes = c
				m.look(now, round, &work)
			}
		}
	}
}

// look starts what is due.
func (m *Maintainer) look(now time.Time, round uint64, work *sync.WaitGroup) {
	total := int64(0)
	var largest *due
	pinned := m.pinned(round)
	for _, s := range m.store.Shards() {
		st := s.Stats()
		total += st.MemBytes
		a := m.note(s.ID, st.LastAppliedIndex, now, round)
		d := &due{shard: s, stats: st, cold: now.Sub(a.since), isFull: a.full == st.LastAppliedIndex}
		if a.busy || now.Sub(a.tried) < retryAfter {
			continue
		}
		if largest == nil || st.MemBytes > largest.stats.MemBytes {
			largest = d
		}
		if d.decide(m.limits, pinned[s.ID]) {
			m.start(d, work)
		} else if st.LastAppliedIndex == st.FlushedIndex && now.Sub(a.asked) >= m.limits.CompactCold {
			m.change(s.ID, func(a *activity) { a.asked = now })
			s.Rest()
		}
	}
	m.memBytes.Store(total)
	if m.limits.TotalBytes > 0 && total > m.limits.TotalBytes/2 && largest != nil && largest.stats.MemRows > 0 && !largest.flush {
		largest.flush = true
		m.start(largest, work)
	}
	m.forget(round)
}

// pinned names the shards to flush because the log is too long. It asks once a second.
func (m *Maintainer) pinned(round uint64) map[dsdb.ShardID]bool {
	if m.limits.LogBytes <= 0 || round%idleRounds != 0 {
		return nil
	}
	bytes, ids := m.store.LogBytes()
	if bytes <= m.limits.LogBytes {
		return nil
	}
	out := make(map[dsdb.ShardID]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out
}

// note remembers when the shard last changed.
func (m *Maintainer) note(id dsdb.ShardID, index uint64, now time.Time, round uint64) activity {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.seen[id]
	if a == nil {
		a = &activity{index: index, since: now, asked: now}
		m.seen[id] = a
	}
	if a.index != index {
		a.index, a.since = index, now
	}
	a.round = round
	return *a
}

// forget drops what is known of shards that are gone.
func (m *Maintainer) forget(round uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, a := range m.seen {
		if a.round != round && !a.busy {
			delete(m.seen, id)
		}
	}
}

// due is what a shard needs now.
type due struct {
	shard       ManagedShard
	stats       shard.Stats
	cold        time.Duration
	isFull      bool // nothing was applied since the last full compaction
	flush, full bool
}

// decide reports whether anything is due.
func (d *due) decide(l Limits, pinned bool) bool {
	unflushed := d.stats.LastAppliedIndex > d.stats.FlushedIndex
	d.flush = unflushed && (pinned || d.stats.MemBytes >= l.FlushBytes || d.cold >= l.FlushCold)
	d.full = !unflushed && !d.isFull && d.cold >= l.CompactCold
	return d.flush || d.full
}

// start does what is due on a goroutine of its own, flushes at once, full
// compactions when a place is free.
func (m *Maintainer) start(d *due, work *sync.WaitGroup) {
	if d.full {
		select {
		case m.slots <- struct{}{}:
		default:
			return // at the next look
		}
	}
	m.change(d.shard.ID, func(a *activity) { a.busy = true })
	work.Add(1)
	go func() {
		defer work.Done()
		err := m.do(d)
		if d.full {
			<-m.slots
		}
		if err != nil && m.stored(d.shard.ID) {
			m.log.Error("shard maintenance failed; it will be tried again", "shard", d.shard.ID, "err", err)
		}
		m.change(d.shard.ID, func(a *activity) {
			a.busy = false
			switch {
			case err != nil:
				a.tried = time.Now()
			case d.full:
				a.full = d.stats.LastAppliedIndex
			}
		})
	}()
}

// stored reports whether the shard is still there: one that was dropped while
// it was worked on has failed for a good reason.
func (m *Maintainer) stored(id dsdb.ShardID) bool {
	for _, s := range m.store.Shards() {
		if s.ID == id {
			return true
		}
	}
	return false
}

func (m *Maintainer) change(id dsdb.ShardID, fn func(*activity)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.seen[id]; a != nil {
		fn(a)
	}
}

// do flushes, and merges what small files there are, or merges all into one run.
func (m *Maintainer) do(d *due) error {
	began := time.Now()
	if d.flush {
		rose, err := d.shard.Flush()
		if rose {
			m.store.Flushed(d.shard.ID)
		}
		if err != nil {
			return err
		}
		m.log.Debug("shard flushed", "shard", d.shard.ID, "rows", d.stats.MemRows, "bytes", d.stats.MemBytes, "duration", time.Since(began).Seconds())
		began = time.Now()
	}
	done, err := d.shard.Compact(d.full)
	if err == nil && done {
		m.log.Debug("shard compacted", "shard", d.shard.ID, "full", d.full, "duration", time.Since(began).Seconds())
	}
	return err
}
