package raftnode

import (
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// A disk may hang without an error. A leader would go on telling its followers
// that it leads, which takes no disk, and store nothing. So when a write to the log
// is still under way after stallAfter checks, the cores refuse proposals, as with
// a full disk, and hand on what they lead; after stallLimit the process ends. Checks
// are counted, not time: a process that was paused is not to blame its disk.
const (
	stallCheck = time.Second
	stallAfter = 5
	stallLimit = 30
)

// stall is what is known of the write to the log that is under way.
type stall struct {
	mu     sync.Mutex
	under  bool // there is one; guarded by mu
	checks int  // that it has lasted; guarded by mu
}

// timed runs a write to the log.
func (w *writer) timed(write func()) {
	s := &w.stall
	s.mu.Lock()
	s.under, s.checks = true, 0
	s.mu.Unlock()
	write()
	s.mu.Lock()
	defer s.mu.Unlock() // checkStall must not say the contrary behind the cores' back
	s.under = false
	if s.checks >= stallAfter {
		w.refuse(evRefuse, nil)
		w.host.opt.Logger.Warn("the disk of the log answers again")
	}
}

// checkStall acts on a write that takes too long.
func (w *writer) checkStall() {
	s := &w.stall
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.under {
		return
	}
	s.checks++
	if s.checks < stallAfter {
		return
	}
	err := dsdb.Errorf(dsdb.KindUnavailable, "the disk of the log does not answer")
	w.refuse(evRefuse, err)
	switch s.checks {
	case stallAfter:
		w.host.opt.Logger.Error("a write to the log hangs", "seconds", stallAfter)
	case stallLimit:
		w.host.opt.Fatal(err)
	}
}

// watch checks for writes that hang until the host closes.
func (w *writer) watch() {
	t := time.NewTicker(stallCheck)
	defer t.Stop()
	for {
		select {
		case <-w.host.stop:
			return
		case <-t.C:
			w.checkStall()
		}
	}
}
