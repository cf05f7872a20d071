package raftnode

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
)

// writer gives the LogWriter of a host its goroutine and its clock: whatever
// arrived while the last write was being synced goes into the next.
type writer struct {
	host     *Host
	log      *LogWriter // of the goroutine
	in       inbox[Queued]
	stall    stall
	refusing atomic.Pointer[error] // why points are refused; nil, or of nil: they are not
	stop     chan struct{}         // closed by close: a write without space is given up
	done     sync.WaitGroup
}

func newWriter(h *Host) *writer {
	return &writer{host: h, log: NewLogWriter(h.opt.Log), in: newInbox[Queued](), stop: make(chan struct{})}
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

func (w *writer) push(qs []Queued) {
	if w.in.push(qs...) {
		return
	}
	for _, q := range qs {
		if q.Waiter != nil {
			q.Waiter.Done(dsdb.Verdict{}, errClosed())
		}
	}
}

func (w *writer) run() {
	defer w.done.Done()
	var spare []Queued
	for {
		in, open := w.in.swap(spare)
		w.log.Add(in...)
		clear(in)
		spare = in
		var err error
		switch {
		case w.log.Take():
			err = w.write()
		case open:
			err = w.idle()
		default:
			return
		}
		if err != nil {
			w.fail(err)
			return
		}
	}
}

// idle waits for work. If none comes for a while it has the log mark its end.
func (w *writer) idle() error {
	if w.log.Proven() {
		<-w.in.wake
		return nil
	}
	t := time.NewTimer(MarkAfter)
	defer t.Stop()
	select {
	case <-w.in.wake:
		return nil
	case <-t.C:
		var err error
		w.timed(func() { err = w.log.Mark() })
		return err
	}
}

// write writes what was taken, again and again while there is no space. It
// returns an error if the log has failed, or if the host is closed first.
func (w *writer) write() error {
	for {
		var r Written
		w.timed(func() { r = w.log.Write() })
		if r.Failed != nil {
			return r.Failed
		}
		if r.Full != nil {
			w.deliver(&r)
			w.full(&r)
			if !w.pause() {
				return r.Full
			}
			in, _ := w.in.swap(nil) // it may make room
			w.log.Add(in...)
			continue
		}
		if r.Again {
			w.refuse(evRefuse, nil)
		}
		w.deliver(&r)
		return nil
	}
}

// pause waits for the next attempt; false if the host is being closed.
func (w *writer) pause() bool {
	t := time.NewTimer(RetryEvery)
	defer t.Stop()
	select {
	case <-w.stop:
		return false
	case <-t.C:
		return true
	}
}

// full makes all workers refuse what there is no space for.
func (w *writer) full(r *Written) {
	if r.Dry {
		w.refuse(evRefuse, r.Full)
		return
	}
	w.refuse(evRefusePoints, r.Full)
}

// refuse makes all workers refuse proposals with err, or accept them again.
func (w *writer) refuse(kind eventKind, err error) {
	w.refusing.Store(&err)
	for _, k := range w.host.workers {
		k.push(event{kind: kind, err: err})
	}
}

// deliver tells what has become durable: each worker at once of all of its own.
func (w *writer) deliver(r *Written) {
	if r.Updates > 0 {
		w.host.metrics.Batches.Add(1)
		w.host.metrics.Updates.Add(uint64(r.Updates))
	}
	for _, k := range w.host.workers {
		if as := r.Of(k.core); len(as) > 0 {
			k.push(event{kind: evStored, appends: as})
		}
	}
	r.Tell()
}

// fail ends the writer: nothing is acknowledged from here on.
func (w *writer) fail(err error) {
	w.in.close()
	in, _ := w.in.swap(nil)
	w.log.Add(in...)
	w.refuse(evRefuse, w.log.Fail(err))
	select {
	case <-w.stop: // closed while there was no space; what was not written was not acknowledged
	default:
		w.host.opt.Fatal(err)
	}
}
