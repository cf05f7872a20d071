package hints

import (
	"fmt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// Files are freed oldest first, so a few hints that wait for long keep all files
// that came after theirs. When the files take more than half of MaxSize, and what
// waits less than a quarter, such hints are written anew at the end.

// crowded reports whether hints are to be moved.
func (q *Queue) crowded() bool {
	s := q.Stats()
	return s.Disk > q.o.MaxSize/2 && s.Bytes < q.o.MaxSize/4
}

// makeRoom moves the hints that keep the oldest files, until enough is free. Each
// shard's are moved once at most. It is called by the writer.
func (q *Queue) makeRoom() error {
	moved := map[dsdb.ShardID]bool{}
	for q.crowded() {
		progress := false
		for _, g := range q.log.Pinners(len(q.log.Groups())) {
			if id := dsdb.ShardID(g); !moved[id] {
				ok, err := q.move(id)
				if err != nil {
					return fmt.Errorf("shard %d: %w", id, err)
				}
				moved[id], progress = true, progress || ok
			}
		}
		if !progress {
			return nil
		}
		if err := q.log.Recycle(); err != nil {
			return err
		}
	}
	return nil
}

// move writes the hints of a shard anew behind the last of them, and then forgets
// the old ones. It reports false if they stay where they are. If it fails, or the
// power does, the old ones are there; so may be new ones, in which nobody is
// interested until a restart, after which they are delivered a second time.
func (q *Queue) move(id dsdb.ShardID) (bool, error) {
	q.mu.Lock()
	ln := q.shards[id]
	if ln == nil || ln.suspect || ln.next > ln.last {
		q.mu.Unlock()
		return false, nil
	}
	first, last := ln.next, ln.last
	q.mu.Unlock()
	g := id.Group()
	for at := first; at <= last; {
		es, err := q.log.Entries(g, at, last+1, writeBytes, nil)
		if dsdb.KindOf(err) == dsdb.KindCorrupt {
			return false, nil // Next tells of it
		}
		if err != nil {
			return false, err
		}
		at += uint64(len(es))
		for i := range es {
			es[i].Index += last + 1 - first
		}
		if err := q.log.Write([]wal.Update{{Group: g, Entries: es}}, true); err != nil {
			return false, err
		}
	}
	if err := q.log.Write([]wal.Update{{Group: g, Truncate: &wal.Position{Index: last, Term: term}}}, true); err != nil {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	by := last + 1 - first
	ln.next, ln.last, ln.moved = ln.next+by, ln.last+by, ln.moved+by
	return true, nil
}
