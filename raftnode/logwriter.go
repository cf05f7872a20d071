package raftnode

import (
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// maxWriteBytes bounds the data of one write to the log; a single update may be larger.
const maxWriteBytes = 8 << 20

// MarkAfter is how long the log rests before it is to mark its end, RetryEvery
// after what time a write is tried again that found no space.
const (
	MarkAfter  = 50 * time.Millisecond
	RetryEvery = 100 * time.Millisecond
)

// Queued is an append on its way to the log, and who is told once it is durable.
type Queued struct {
	Append Append
	Core   *Core  // that asked for it and is given StorageDone; nil: none
	Waiter Waiter // nil: nobody
}

// Erase takes a group from the log for good. No core may run it any more.
func Erase(g dsdb.GroupID, w Waiter) Queued {
	return Queued{Append: Append{Update: wal.Update{Group: g, Remove: true}}, Waiter: w}
}

// LogWriter decides what becomes of the appends of a node: which go into one
// write, what is done while there is no space, and when who is told what. It has
// no goroutine and no clock: Host drives one in production, internal/sim the same
// in tests. The way of an append is Add, Take, Write, until that has stored it.
// It is not safe for concurrent use.
type LogWriter struct {
	log     Log
	waiting []Queued
	writing []Queued // what was taken last
	taken   bool     // it is not stored yet
	ahead   []Queued // what is written ahead of its turn while there is no space
	full    bool     // there was no space
	proven  bool     // nothing was written since the last mark
	updates []wal.Update
}

// Written is what came of a Write: the appends are stored, or the log is Full but
// for some of them, or it has Failed.
type Written struct {
	stored  []Queued // valid until the next Take
	Updates int      // stored by the write; of 0 the log knows nothing
	Again   bool     // it was full and is not any more: the cores are to take proposals again, Refuse(nil)
	Full    error    // there is no space for the rest: the cores are to RefusePoints with it until Again, and Write is called again in RetryEvery
	Dry     bool     // nor is there any for what is vital: they are to Refuse
	Failed  error    // the log is at its end: Fail
}

// Of returns the appends that are stored and that a core asked for, which is to be
// given StorageDone with them.
func (w *Written) Of(c *Core) (as []Append) {
	for i := range w.stored {
		if w.stored[i].Core == c {
			as = append(as, w.stored[i].Append)
		}
	}
	return as
}

// Tell tells those who wait for what is stored.
func (w *Written) Tell() {
	for _, q := range w.stored {
		if q.Waiter != nil {
			q.Waiter.Done(dsdb.Verdict{}, nil)
		}
	}
}

// NewLogWriter makes the only one to write to log.
func NewLogWriter(log Log) *LogWriter { return &LogWriter{log: log, proven: true} }

// Add queues appends, behind all others.
func (w *LogWriter) Add(qs ...Queued) { w.waiting = append(w.waiting, qs...) }

// Waiting returns the number of appends that were added and not taken.
func (w *LogWriter) Waiting() int { return len(w.waiting) }

// Full reports whether the last Write found no space.
func (w *LogWriter) Full() bool { return w.full }

// Take makes one write of all that waits, up to a size, unless one is under way.
// It reports whether there is something to Write.
func (w *LogWriter) Take() bool {
	if w.taken {
		return true
	}
	n := writeLength(w.waiting)
	clear(w.writing)
	if n == len(w.waiting) {
		w.writing, w.waiting = w.waiting, w.writing[:0]
	} else {
		w.writing = append(w.writing[:0], w.waiting[:n]...)
		rest := copy(w.waiting, w.waiting[n:])
		clear(w.waiting[rest:])
		w.waiting = w.waiting[:rest]
	}
	w.taken = n > 0
	return w.taken
}

// writeLength returns how many of qs go into one write; at least one.
func writeLength(qs []Queued) int {
	size := 0
	for i := range qs {
		for _, e := range qs[i].Append.Update.Entries {
			size += len(e.Data)
		}
		if size > maxWriteBytes && i > 0 {
			return i
		}
	}
	return len(qs)
}

// Write makes durable what was taken. If the last attempt found no space it
// first does what may make some.
func (w *LogWriter) Write() Written {
	r := Written{}
	if w.full {
		if err := w.makeRoom(); err != nil {
			return w.unwritten(&r, err, true)
		}
		n, err := w.goAhead()
		if err != nil {
			return w.unwritten(&r, err, true)
		}
		r.stored, r.Updates = w.ahead, n
	}
	us, err := w.put(w.writing)
	if err != nil {
		return w.unwritten(&r, err, false)
	}
	if len(r.stored) > 0 {
		w.writing = append(slices.Clone(r.stored), w.writing...)
	}
	r.stored, r.Updates, r.Again = w.writing, r.Updates+us, w.full
	w.taken, w.full = false, false
	return r
}

// unwritten is what came of a Write that ended with err, when nothing but what is in
// r was written.
func (w *LogWriter) unwritten(r *Written, err error, dry bool) Written {
	if dsdb.KindOf(err) == dsdb.KindUnavailable {
		w.full = true
		r.Full, r.Dry = err, dry
		return *r
	}
	w.writing = append(slices.Clone(r.stored), w.writing...) // who waits for them is told by Fail
	return Written{Failed: err}
}

// put stores the updates of qs, frees what they allow, and returns how many there were.
func (w *LogWriter) put(qs []Queued) (n int, err error) {
	us, freed := w.updates[:0], false
	for i := range qs {
		if a := &qs[i].Append; !a.Empty {
			a.Update.Vital = vital(&a.Update)
			us = append(us, a.Update)
			freed = freed || a.Update.Truncate != nil || a.Update.Reset != nil || a.Update.Remove
		}
	}
	defer func() { clear(us); w.updates = us }()
	if err = w.store(us); err == nil && freed {
		err = w.log.Recycle()
	}
	return len(us), err
}

// vital reports whether an update may use the space that the log keeps for when the
// disk is full: those of the catalogue, in which is dropped what takes space, and
// entries without data, without which a new leader does not know what is committed.
func vital(u *wal.Update) bool {
	return u.Group == dsdb.MetaGroup || !slices.ContainsFunc(u.Entries, func(e wal.Entry) bool { return len(e.Data) > 0 })
}

// goAhead writes, ahead of their turn, the appends of the catalogue, those without
// entries, and the removal of groups. It returns the number of updates.
func (w *LogWriter) goAhead() (n int, err error) {
	w.ahead = w.ahead[:0]
	var writing, waiting []Queued
	l := newLane(w.writing, w.waiting)
	writing, w.ahead = l.part(w.writing, w.ahead)
	waiting, w.ahead = l.part(w.waiting, w.ahead)
	if n, err = w.put(w.ahead); err != nil {
		w.ahead = w.ahead[:0]
		return 0, err
	}
	w.writing, w.waiting = writing, waiting
	return n, nil
}

// lane parts the appends that go ahead from those that have to wait. Behind one that
// waits those of the same group wait too, unless a removal of the group follows: that
// goes ahead, and nothing becomes of what waited before it.
type lane struct {
	behind   map[dsdb.GroupID]bool // something of the group waits
	removals map[dsdb.GroupID]int  // that are still to come
}

func newLane(queues ...[]Queued) lane {
	l := lane{map[dsdb.GroupID]bool{}, map[dsdb.GroupID]int{}}
	for _, qs := range queues {
		for i := range qs {
			if u := &qs[i].Append.Update; u.Remove {
				l.removals[u.Group]++
			}
		}
	}
	return l
}

// part returns those of qs that wait, and ahead with the others appended.
func (l *lane) part(qs, ahead []Queued) (wait, goes []Queued) {
	for _, q := range qs {
		u := &q.Append.Update
		if q.Core == nil && !u.Remove { // it waits for all before it
			wait = append(wait, q)
			continue
		}
		if u.Remove {
			l.removals[u.Group]--
			l.behind[u.Group] = false
		} else if l.behind[u.Group] || u.Group != dsdb.MetaGroup && len(u.Entries) > 0 {
			l.behind[u.Group] = true
			if l.removals[u.Group] == 0 {
				wait = append(wait, q)
				continue
			}
			q.Append.Update, q.Append.Empty = wal.Update{Group: u.Group}, true
		}
		ahead = append(ahead, q)
	}
	return wait, ahead
}

// makeRoom writes the truncations that wait ahead of their turn, also those of the
// write that found no space, and frees what they allow: a full disk must not keep
// itself full.
func (w *LogWriter) makeRoom() error {
	var us []wal.Update
	w.eachTruncation(func(a *Append) { us = append(us, a.Update) })
	if err := w.store(us); err != nil {
		return err
	}
	w.eachTruncation(func(a *Append) { a.Empty = true })
	return w.log.Recycle()
}

// store writes updates to the log, if there are any.
func (w *LogWriter) store(us []wal.Update) error {
	if len(us) == 0 {
		return nil
	}
	err := w.log.Write(us, true)
	w.proven = w.proven && err != nil
	return err
}

// eachTruncation calls f for each truncation that is not written yet.
func (w *LogWriter) eachTruncation(f func(*Append)) {
	for _, qs := range [...][]Queued{w.writing, w.waiting} {
		for i := range qs {
			if a := &qs[i].Append; a.Update.Truncate != nil && !a.Empty {
				f(a)
			}
		}
	}
}

// Proven reports whether there is nothing to mark.
func (w *LogWriter) Proven() bool { return w.proven }

// Mark has the log prove its last batch, when nothing was written for MarkAfter:
// without a mark, damage to that batch looks like an unfinished write. A full disk
// puts it off. An error is the log's end: Fail.
func (w *LogWriter) Mark() error {
	if w.proven {
		return nil
	}
	err := w.log.Write(nil, true)
	w.proven = err == nil
	if dsdb.KindOf(err) == dsdb.KindUnavailable {
		return nil
	}
	return err
}

// Fail ends the writing: what has not been stored is never acknowledged, and
// those who wait are told err. The cores are to Refuse with what it returns.
func (w *LogWriter) Fail(err error) (refuse error) {
	qs := w.waiting
	if w.taken {
		qs = append(w.writing, qs...)
	}
	w.waiting, w.writing, w.taken = nil, nil, false
	for _, q := range qs {
		if q.Waiter != nil {
			q.Waiter.Done(dsdb.Verdict{}, err)
		}
	}
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "the log has failed: " + err.Error(), Err: err}
}
