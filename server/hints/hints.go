// Package hints keeps the points of writes that no leader took until one does:
// a bounded queue on disk, in order by shard, in a log of its own (package wal)
// beside that of the raft groups, so that neither holds the other up.
//
// A hint goes: Add, which returns once it is durable → Next, any number of times,
// also after a restart → Done. What a hint says, where it is delivered and when it
// is too old is the caller's. FORMAT.md describes the files.
package hints

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/wal"
)

// Options configure a queue.
type Options struct {
	FS      vfs.FS
	Dir     string
	MaxSize int64 // bytes of the files; with less than 1 MiB they take a little more
	// Cluster and Node are those that the files must be of.
	Cluster, Node [16]byte
	Logger        *slog.Logger
}

// Hint is the points of one write to one shard.
type Hint struct {
	Shard            dsdb.ShardID
	Made             int64  // when, in milliseconds since 1970
	Database, Policy string // for those who read the log
	Points           int
	Data             []byte // of shard.AppendHint
}

// Batch is the hints of a shard that wait longest.
type Batch struct {
	Shard   dsdb.ShardID
	Hints   []Hint // in the order in which they were added; none if all are damaged
	Lost    int    // those that are damaged
	Damage  error  // of the first of these
	through uint64 // the entry of the last one
	lane    *lane  // of the shard
	moved   uint64 // of it, when the batch was read
}

// Stats are figures about a queue.
type Stats struct {
	Shards int   // that have hints
	Hints  int   // that wait
	Points int   // of these
	Bytes  int64 // of these
	Disk   int64 // bytes of the files
}

// Queue is an open queue. Safe for concurrent use.
type Queue struct {
	o    Options
	wake chan struct{} // holds one when there is work
	done chan struct{} // closed when the writer has ended

	mu     sync.Mutex // guards all below
	log    *wal.Log   // nil: there was no hint yet, or no space to open it
	late   bool       // it is to be opened as soon as there is space
	shards map[dsdb.ShardID]*lane
	work   []*task
	closed bool
}

// lane is the hints of one shard that wait: entries next to last of the log, all
// of them durable.
type lane struct {
	next, last    uint64
	points, bytes int    // of them
	suspect       bool   // after damage the log takes no more of them until these are gone
	moved         uint64 // by so much the numbers of its entries have been raised
}

// Open opens the queue in a folder, which is made at the first hint. Damage in it
// does not make it fail: it is logged, with file and offset. If there is no space
// to open what is there, that is tried again.
func Open(o Options) (*Queue, error) {
	q := &Queue{o: o, wake: make(chan struct{}, 1), done: make(chan struct{}), shards: map[dsdb.ShardID]*lane{}}
	names, err := o.FS.List(o.Dir)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("hinted handoff: %w", err)
	}
	if len(names) > 0 {
		err := q.openLog()
		if q.late = dsdb.KindOf(err) == dsdb.KindUnavailable || vfs.NoSpace(err); err != nil && !q.late {
			return nil, err
		}
		if q.late {
			o.Logger.Error("hinted handoff: what waits is delivered when there is space again", "err", err)
		}
	}
	go q.run()
	return q, nil
}

// openLog recovers the log. mu is held, or nobody else uses the queue yet.
func (q *Queue) openLog() error {
	l, report, err := wal.Open(q.o.FS, q.o.Dir, wal.Options{SegmentSize: q.segmentSize(), MaxSpare: 1, CacheBytes: -1,
		ClusterID: q.o.Cluster, NodeUUID: q.o.Node})
	if err != nil {
		return fmt.Errorf("hinted handoff: %w", err)
	}
	if report.Torn != nil {
		q.o.Logger.Info("hinted handoff: an unfinished write, which nobody was told had succeeded, was dropped", "where", report.Torn.String())
	}
	for _, r := range report.Corrupt {
		q.o.Logger.Error("hinted handoff: damage: points acknowledged at consistency any may be lost", "where", r.String())
	}
	l.Noted()
	q.log = l
	for _, g := range l.Groups() {
		if err := q.recover(g, slices.Contains(report.Suspect, g)); err != nil {
			q.log = nil
			clear(q.shards)
			return errors.Join(err, l.Close())
		}
	}
	q.late = false
	return nil
}

// segmentSize is that of the log's files: the folder is freed by files.
func (q *Queue) segmentSize() int64 { return min(16<<20, q.o.MaxSize/16) }

// recover counts the hints of a shard.
func (q *Queue) recover(g dsdb.GroupID, suspect bool) error {
	first, last := q.log.Bounds(g)
	ln := &lane{next: first, last: last, suspect: suspect}
	for at := first; at <= last; {
		b, err := q.read(g, at, last)
		if err != nil {
			return fmt.Errorf("hinted handoff: shard %d: %w", g, err)
		}
		ln.count(b.Hints, 1)
		at = b.through + 1
	}
	if first <= last {
		q.shards[dsdb.ShardID(g)] = ln
	} else if suspect {
		return q.log.Write([]wal.Update{{Group: g, Remove: true}}, true)
	}
	return nil
}

// count adds hints to those of the lane, or with sign -1 takes them away.
func (ln *lane) count(hints []Hint, sign int) {
	for i := range hints {
		ln.points += sign * hints[i].Points
		ln.bytes += sign * len(hints[i].Data)
	}
}

// readBytes and readPoints are how much is read at once, or one hint if that is
// more: a shard applies it as one entry.
const (
	readBytes  = 1 << 20
	readPoints = 50_000
)

// read reads hints of a shard from an entry on. Where one is damaged it ends
// before that, or if that is the first one, begins behind it.
func (q *Queue) read(g dsdb.GroupID, at, last uint64) (Batch, error) {
	b := Batch{Shard: dsdb.ShardID(g)}
	for ; at <= last && len(b.Hints) == 0; at = b.through + 1 {
		es, err := q.log.Entries(g, at, last+1, readBytes, nil)
		if dsdb.KindOf(err) == dsdb.KindCorrupt {
			es, err = q.log.Entries(g, at, at+1, readBytes, nil)
		}
		b.through = at
		if dsdb.KindOf(err) == dsdb.KindCorrupt {
			b.lose(err)
			continue
		}
		if err != nil {
			return b, err
		}
		for i, points := 0, 0; i < len(es); i++ {
			h, err := decode(b.Shard, es[i].Data)
			if points += h.Points; points > readPoints && len(b.Hints) > 0 {
				break
			}
			if b.through = es[i].Index; err == nil {
				b.Hints = append(b.Hints, h)
			} else {
				b.lose(fmt.Errorf("entry %d: %w", es[i].Index, err))
			}
		}
	}
	return b, nil
}

func (b *Batch) lose(err error) {
	if b.Lost++; b.Damage == nil {
		b.Damage = err
	}
}

// Next returns the hints of a shard that wait longest, at most 1 MiB or 50,000
// points if they are several, until Done is called for them. ok is false if there
// are none.
func (q *Queue) Next(id dsdb.ShardID) (b Batch, ok bool, err error) {
	for {
		q.mu.Lock()
		ln := q.shards[id]
		if ln == nil || ln.next > ln.last {
			q.mu.Unlock()
			return b, false, nil
		}
		next, last, moved := ln.next, ln.last, ln.moved
		q.mu.Unlock()
		b, err = q.read(id.Group(), next, last)
		b.lane, b.moved = ln, moved
		if errors.Is(err, wal.ErrCompacted) && q.hasMoved(&b) {
			continue
		}
		if err != nil {
			return b, true, fmt.Errorf("hinted handoff: shard %d: %w", id, err)
		}
		return b, true, nil
	}
}

// hasMoved reports whether the hints of a batch have other numbers by now.
func (q *Queue) hasMoved(b *Batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return b.lane.moved != b.moved
}

// Shards returns the shards that have hints, ascending.
func (q *Queue) Shards() (ids []dsdb.ShardID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, ln := range q.shards {
		if ln.next <= ln.last {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Stats returns figures about the queue as it is now.
func (q *Queue) Stats() (s Stats) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, ln := range q.shards {
		if n := int(ln.last + 1 - ln.next); n > 0 {
			s.Shards++
			s.Hints += n
			s.Points += ln.points
			s.Bytes += int64(ln.bytes)
		}
	}
	if q.log != nil {
		s.Disk = q.log.Stats().DiskBytes
	}
	return s
}

// Close ends the queue. What waits is there again when it is opened.
func (q *Queue) Close() error {
	q.mu.Lock()
	was := q.closed
	q.closed = true
	q.mu.Unlock()
	if !was {
		close(q.wake)
	}
	<-q.done
	if q.log == nil {
		return nil
	}
	return q.log.Close()
}
