package hints

import (
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// task is what the writer is asked for: to add a hint, or to forget what was done
// of those of a shard.
type task struct {
	shard dsdb.ShardID
	hint  *Hint // nil: forget
	entry []byte
	done  chan error // holds one; nil: nobody waits
}

// markAfter is how long the log rests before a mark is written that proves its
// last batch: without one, damage to that looks like an unfinished write.
const markAfter = 50 * time.Millisecond

// openAgain is how often a log is tried to open for which there was no space.
const openAgain = time.Second

// writeBytes bounds the hints of one write to the log.
const writeBytes = 4 << 20

// term is that of all entries.
const term = 1

// Add makes a hint durable. KindUnavailable means that it was not taken: the
// queue or the disk is full, or the log has failed.
func (q *Queue) Add(h Hint) error {
	if len(h.Data) > MaxData {
		return dsdb.Errorf(dsdb.KindTooLarge, "hinted handoff: %d bytes at once, at most %d", len(h.Data), int64(MaxData))
	}
	t := &task{shard: h.Shard, hint: &h, entry: h.append(nil), done: make(chan error, 1)}
	if !q.ask(t) {
		return dsdb.Errorf(dsdb.KindUnavailable, "hinted handoff: the node is shutting down")
	}
	if err := <-t.done; err != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "hinted handoff: %w", err)
	}
	return nil
}

// Done forgets the hints of a batch that Next returned. They are gone for Next at
// once, and soon from the disk: after a crash they may be there again.
func (q *Queue) Done(b Batch) {
	q.mu.Lock()
	ln := q.shards[b.Shard]
	if ln == nil || ln != b.lane || b.through+ln.moved-b.moved < ln.next {
		q.mu.Unlock()
		return
	}
	ln.next = b.through + ln.moved - b.moved + 1
	ln.count(b.Hints, -1)
	q.mu.Unlock()
	q.ask(&task{shard: b.Shard})
}

// ask gives the writer a task; false if the queue is closed.
func (q *Queue) ask(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.work = append(q.work, t)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// run is the only one to write to the log: whatever came while the last write was
// being synced goes into the next. It ends when the queue is closed, with all done.
func (q *Queue) run() {
	defer close(q.done)
	rest := time.NewTimer(0)
	defer rest.Stop()
	for open := true; open; {
		select {
		case _, open = <-q.wake:
			for tasks := q.take(); len(tasks) > 0; tasks = q.take() {
				q.write(tasks)
			}
			rest.Reset(markAfter)
		case <-rest.C:
			if q.log != nil {
				_ = q.log.Write(nil, true) // one that fails for good, every later write tells
			} else if q.openLate() {
				rest.Reset(openAgain)
			}
		}
	}
}

// openLate opens a log for which there was no space, and reports whether there
// still is none.
func (q *Queue) openLate() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.late {
		_ = q.openLog() // was said when it failed first
	}
	return q.late
}

// take takes the tasks of one write.
func (q *Queue) take() []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.work) && (n == 0 || size+len(q.work[n].entry) <= writeBytes) {
		size += len(q.work[n].entry)
		n++
	}
	tasks := slices.Clone(q.work[:n])
	q.work = slices.Delete(q.work, 0, n)
	return tasks
}

func (q *Queue) write(tasks []*task) {
	var adds []*task
	var done []dsdb.ShardID
	for _, t := range tasks {
		if t.hint != nil {
			adds = append(adds, t)
		} else if !slices.Contains(done, t.shard) {
			done = append(done, t.shard)
		}
	}
	if len(done) > 0 {
		if err := q.forget(done); err != nil {
			q.o.Logger.Error("hinted handoff: what was delivered cannot be forgotten, and is delivered again after a restart", "err", err)
		}
	}
	if len(adds) == 0 {
		return
	}
	if q.crowded() {
		if err := q.makeRoom(); err != nil {
			q.o.Logger.Error("hinted handoff: what waits for long cannot be moved out of the way of the rest", "err", err)
		}
	}
	adds, err := q.add(adds)
	if err != nil && dsdb.KindOf(err) != dsdb.KindUnavailable {
		q.o.Logger.Error("hinted handoff: the log has failed; no hint is taken until it is opened again", "err", err)
	}
	for _, t := range adds {
		t.done <- err
	}
}

// add writes hints and enters them into their lanes. It returns those that the
// error is about, or that were written; others were answered.
func (q *Queue) add(adds []*task) ([]*task, error) {
	updates, adds, err := q.plan(adds)
	if err == nil {
		err = q.log.Write(updates, true)
	}
	if err != nil {
		return adds, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, t := range adds {
		ln := q.shards[t.shard]
		if ln == nil {
			ln = &lane{next: updates[i].Entries[0].Index}
			q.shards[t.shard] = ln
		}
		ln.last = updates[i].Entries[0].Index
		ln.count([]Hint{*t.hint}, 1)
	}
	return adds, nil
}

// plan makes the updates of the log for hints, one each. Those of a shard that
// takes none are answered and left out.
func (q *Queue) plan(adds []*task) (updates []wal.Update, planned []*task, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.log == nil {
		if err := q.openLog(); err != nil {
			return nil, adds, err
		}
	}
	size := int64(0)
	for _, t := range adds {
		size += int64(len(t.entry))
	}
	if disk := q.log.Stats().DiskBytes; disk+max(size, q.segmentSize()) > q.o.MaxSize {
		return nil, adds, dsdb.Errorf(dsdb.KindUnavailable, "queue is full: its files take %d bytes, max-size is %d", disk, q.o.MaxSize)
	}
	last := map[dsdb.ShardID]uint64{}
	for _, t := range adds {
		if ln := q.shards[t.shard]; ln != nil && ln.suspect {
			t.done <- dsdb.Errorf(dsdb.KindUnavailable, "the hints of shard %d were damaged; more are taken when those that are left are delivered", t.shard)
			continue
		}
		u := wal.Update{Group: t.shard.Group()}
		at, known := last[t.shard]
		if !known {
			if ln := q.shards[t.shard]; ln != nil {
				at = ln.last // what is behind it is left of a move that failed
			} else if _, known = q.log.State(u.Group); known {
				_, at = q.log.Bounds(u.Group)
			} else {
				u.Create = &wal.GroupState{Replica: q.log.Removed(u.Group) + 1}
			}
		}
		last[t.shard] = at + 1
		u.Entries = []wal.Entry{{Index: at + 1, Term: term, Data: t.entry}}
		updates, planned = append(updates, u), append(planned, t)
	}
	return updates, planned, nil
}

// forget truncates the log and gives the space back. On a full disk the log only
// notes it, until the next hint or the next time.
func (q *Queue) forget(shards []dsdb.ShardID) error {
	var updates []wal.Update
	q.mu.Lock()
	for _, id := range shards {
		ln := q.shards[id]
		if ln == nil {
			continue // an earlier task found all of it done
		}
		if !ln.suspect {
			updates = append(updates, wal.Update{Group: id.Group(), Truncate: &wal.Position{Index: ln.next - 1, Term: term}})
		} else if ln.next > ln.last {
			updates = append(updates, wal.Update{Group: id.Group(), Remove: true})
		}
		if ln.next > ln.last {
			delete(q.shards, id)
		}
	}
	q.mu.Unlock()
	if len(updates) == 0 {
		return nil
	}
	err := q.log.Write(updates, true)
	if dsdb.KindOf(err) == dsdb.KindUnavailable {
		err = q.log.Write(updates, false)
	}
	if err == nil {
		err = q.log.Recycle()
	}
	return err
}
