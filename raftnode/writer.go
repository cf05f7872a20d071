package raftnode

import (
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// maxWriteBytes bounds the data of one write to the log; a single update may be larger.
const maxWriteBytes = 8 << 20

// markAfter is how long the log rests before a mark is written that proves its
// last batch: without one, damage to that batch looks like an unfinished write.
const markAfter = 50 * time.Millisecond

// retryEvery is how often a write is tried again that found no space.
const retryEvery = 100 * time.Millisecond

// queued is an append on its way to the log, and who is to be told.
type queued struct {
	append Append
	worker *worker // its core is given StorageDone; nil: only waiter is told
	waiter Waiter
}

// writer is the only one to write to the node's log: whatever arrived while
// the last write was being synced goes into the next.
type writer struct {
	host    *Host
	in      inbox[queued]
	stop    chan struct{} // closed by close: a write without space is given up
	done    sync.WaitGroup
	updates []wal.Update
	full    bool // the workers were told to refuse proposals
	proven  bool // nothing was written since the last mark
}

func newWriter(h *Host) *writer {
	return &writer{host: h, in: newInbox[queued](), stop: make(chan struct{}), proven: true}
}

func (w *writer) start() {
	w.done.Add(1)
	go w.run()
}

// close writes what is queued and stops the writer.
func (w *writer) close() {
	close(w.stop)
	w.in.close()
	w.done.Wait()
}

func (w *writer) push(qs []queued) {
	if w.in.push(qs...) {
		return
	}
	for _, q := range qs {
		if q.waiter != nil {
			q.waiter.Done(dsdb.Verdict{}, errClosed())
		}
	}
}

func (w *writer) run() {
	defer w.done.Done()
	var queue []queued
	for open := true; open; {
		queue, open = w.in.swap(queue)
		if len(queue) == 0 && open {
			if err := w.idle(); err != nil {
				w.fail(nil, err)
				return
			}
			continue
		}
		for rest := queue; len(rest) > 0; {
			n := writeLength(rest)
			if err := w.write(rest[:n]); err != nil {
				w.fail(rest, err)
				return
			}
			w.deliver(rest[:n])
			rest = rest[n:]
		}
		clear(queue)
	}
}

// idle waits for work. If none comes for a while it has the log mark its end; a
// full disk puts that off.
func (w *writer) idle() error {
	if w.proven {
		<-w.in.wake
		return nil
	}
	t := time.NewTimer(markAfter)
	defer t.Stop()
	select {
	case <-w.in.wake:
		return nil
	case <-t.C:
	}
	err := w.host.opt.Log.Write(nil, true)
	w.proven = err == nil
	if dsdb.KindOf(err) == dsdb.KindUnavailable {
		return nil
	}
	return err
}

// writeLength returns how many of qs go into one write; at least one.
func writeLength(qs []queued) int {
	size := 0
	for i := range qs {
		for _, e := range qs[i].append.Update.Entries {
			size += len(e.Data)
		}
		if size > maxWriteBytes && i > 0 {
			return i
		}
	}
	return len(qs)
}

// write makes the appends durable. While there is no space it tells the workers
// so and tries again. It returns an error if the log has failed, or if the host
// is closed first.
func (w *writer) write(qs []queued) error {
	w.updates = w.updates[:0]
	freed := false
	for i := range qs {
		if !qs[i].append.Empty {
			w.updates = append(w.updates, qs[i].append.Update)
		}
		u := &qs[i].append.Update
		freed = freed || u.Truncate != nil || u.Reset != nil || u.Remove
	}
	if len(w.updates) == 0 {
		return nil
	}
	defer func() { clear(w.updates) }()
	err := w.host.opt.Log.Write(w.updates, true)
	for err != nil && dsdb.KindOf(err) == dsdb.KindUnavailable {
		w.refuse(err)
		if !w.pause() {
			return err
		}
		if err = w.makeRoom(); err == nil {
			err = w.host.opt.Log.Write(w.updates, true)
		}
	}
	if err != nil {
		return err
	}
	w.proven = false
	if w.full {
		w.refuse(nil)
	}
	w.host.metrics.Batches.Add(1)
	w.host.metrics.Updates.Add(uint64(len(w.updates)))
	if freed {
		return w.host.opt.Log.Recycle()
	}
	return nil
}

// makeRoom writes the truncations that wait in the queue ahead of their turn
// and frees what they allow: a full disk must not keep itself full.
func (w *writer) makeRoom() error {
	var us []wal.Update
	var at []int // the queue only grows while the writer is here
	w.in.mu.Lock()
	for i := range w.in.items {
		if a := &w.in.items[i].append; a.Update.Truncate != nil && !a.Empty {
			us, at = append(us, a.Update), append(at, i)
		}
	}
	w.in.mu.Unlock()
	if len(us) > 0 {
		if err := w.host.opt.Log.Write(us, true); err != nil {
			return err
		}
		w.in.mu.Lock()
		for _, i := range at {
			w.in.items[i].append.Empty = true
		}
		w.in.mu.Unlock()
	}
	return w.host.opt.Log.Recycle()
}

// pause waits for the next attempt; false if the host is being closed.
func (w *writer) pause() bool {
	t := time.NewTimer(retryEvery)
	defer t.Stop()
	select {
	case <-w.stop:
		return false
	case <-t.C:
		return true
	}
}

// refuse makes all workers refuse proposals with err, or accept them again.
func (w *writer) refuse(err error) {
	w.full = err != nil
	for _, k := range w.host.workers {
		k.push(event{kind: evRefuse, err: err})
	}
}

// deliver tells that the appends are durable: each worker at once for all of its own.
func (w *writer) deliver(qs []queued) {
	for _, k := range w.host.workers {
		var as []Append
		for i := range qs {
			if qs[i].worker == k {
				as = append(as, qs[i].append)
			}
		}
		if len(as) > 0 {
			k.push(event{kind: evStored, appends: as})
		}
	}
	for i := range qs {
		if qs[i].waiter != nil {
			qs[i].waiter.Done(dsdb.Verdict{}, nil)
		}
	}
}

// fail ends the writer: nothing is acknowledged from here on.
func (w *writer) fail(qs []queued, err error) {
	w.refuse(&dsdb.Error{Kind: dsdb.KindUnavailable, Text: "the log has failed: " + err.Error(), Err: err})
	w.in.mu.Lock()
	w.in.closed = true
	qs = append(qs, w.in.items...)
	w.in.items = nil
	w.in.mu.Unlock()
	for _, q := range qs {
		if q.waiter != nil {
			q.waiter.Done(dsdb.Verdict{}, err)
		}
	}
	select {
	case <-w.stop: // closed while there was no space; what was not written was not acknowledged
	default:
		w.host.opt.Fatal(err)
	}
}
