package shard

import (
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb/segment"
)

// rest is what tells whether a shard may let go of what it has read from its files.
type rest struct {
	used  atomic.Bool  // by Apply or a Source, since Rest was called last
	index sync.RWMutex // read-held from load until the index is not needed; before mu
}

// Rest is called now and then. A shard that nothing was applied to and nothing
// has read since the call before lets go of what its files hold too: the index,
// which takes more memory than all else, the newest rows, and the mappings of
// segments. Who needs them next brings them back (load, file.open). It reports
// whether there was anything to let go of.
func (s *Shard) Rest() bool {
	if s.rest.used.Swap(false) || !s.rest.index.TryLock() {
		return false
	}
	defer s.rest.index.Unlock()
	s.mu.Lock()
	if s.closed || s.frozen != nil || s.applied.index != s.disk.flushed.index ||
		s.index != nil && !s.index.State().Same(s.saved) {
		s.mu.Unlock()
		return false
	}
	readers := s.unusedReadersLocked()
	rested := s.index != nil || len(readers) > 0
	s.index, s.saved = nil, nil
	s.mu.Unlock()
	s.last.clear()
	for _, r := range readers {
		if err := r.Close(); err != nil {
			s.o.Logger.Warn("closing a file of a resting shard", "shard", uint64(s.o.ID), "err", err)
		}
	}
	return rested
}

// unusedReadersLocked takes the readers of the files that nobody but the shard
// uses. s.mu is held, so that nobody begins to.
func (s *Shard) unusedReadersLocked() (readers []*segment.Reader) {
	for _, f := range s.files {
		if f.refs.Load() > 1 {
			continue
		}
		f.mu.Lock()
		if f.reader != nil {
			readers = append(readers, f.reader)
			f.reader = nil
		}
		f.mu.Unlock()
	}
	return readers
}

// clear forgets all rows.
func (l *lastRows) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables, l.cells = nil, 0
}
