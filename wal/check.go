package wal

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// staged is a group as it will be once the batch that is being built is
// written: what further updates are checked against.
type staged struct {
	exists    bool
	suspect   bool
	replica   dsdb.ReplicaID
	removed   dsdb.ReplicaID
	hard      HardState
	truncated uint64
	last      uint64
}

func (w *writer) stage(l *Log, id dsdb.GroupID) staged {
	if s, ok := w.staged[id]; ok {
		return s
	}
	s := staged{removed: l.table.left(id)}
	if g := l.table.groups[id]; g != nil {
		s.exists, s.suspect, s.replica = true, g.suspect, g.state.Replica
		s.hard, s.truncated, s.last = g.state.HardState, g.state.Truncated.Index, g.last()
	}
	return s
}

// check refuses an update that contradicts the state of its group, and
// otherwise advances the staged state.
func (w *writer) check(l *Log, u *Update) error {
	s := w.stage(l, u.Group)
	var err error
	if u.Create != nil {
		err = s.create(u.Group, u.Create)
	}
	if err == nil && !s.exists {
		err = dsdb.Errorf(dsdb.KindNotFound, "wal: group %d has no replica here", u.Group)
	}
	if err == nil && u.Reset != nil {
		err = s.reset(u.Group, u.Reset)
	}
	if err == nil && u.Installing != nil {
		err = s.install(u.Group, u.Installing)
	}
	if err == nil && s.suspect && !u.Remove {
		err = dsdb.Errorf(dsdb.KindCorrupt, "wal: group %d is suspect after damage: it can only be reset or removed", u.Group)
	}
	if err == nil {
		err = s.append(u.Group, u.Entries)
	}
	if err == nil && u.HardState != nil {
		err = s.setHard(u.Group, *u.HardState)
	}
	if err == nil && u.Truncate != nil {
		err = s.truncate(u.Group, u.Truncate.Index)
	}
	if err == nil && len(u.Conf) > 0 && u.Truncate == nil {
		err = dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: membership without the index it is as of", u.Group)
	}
	if err != nil {
		return err
	}
	if u.Remove {
		s = staged{replica: s.replica, removed: max(s.removed, s.replica)}
	}
	w.staged[u.Group] = s
	return nil
}

func (s *staged) create(g dsdb.GroupID, c *GroupState) error {
	switch {
	case s.exists:
		return dsdb.Errorf(dsdb.KindConflict, "wal: group %d: replica %d is here already", g, s.replica)
	case c.Replica <= s.removed && !mutant.ReuseReplicaID:
		return dsdb.Errorf(dsdb.KindConflict, "wal: group %d: replica %d has left this node (up to %d have)", g, c.Replica, s.removed)
	}
	*s = staged{exists: true, removed: s.removed, replica: c.Replica, truncated: c.Truncated.Index, last: c.Truncated.Index}
	return s.setHard(g, c.HardState)
}

func (s *staged) reset(g dsdb.GroupID, c *GroupState) error {
	switch {
	case c.Replica != s.replica:
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: reset to replica %d, which is %d", g, c.Replica, s.replica)
	case c.Truncated.Index < s.truncated:
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: reset to index %d, truncated at %d", g, c.Truncated.Index, s.truncated)
	}
	s.suspect, s.truncated, s.last = false, c.Truncated.Index, c.Truncated.Index
	return s.setHard(g, c.HardState)
}

// install checks a state that a Reset is to bring.
func (s *staged) install(g dsdb.GroupID, c *GroupState) error {
	if c.Truncated.Index == 0 {
		return nil
	}
	after := *s
	return after.reset(g, c)
}

func (s *staged) append(g dsdb.GroupID, es []Entry) error {
	if len(es) == 0 {
		return nil
	}
	first := es[0].Index
	if first <= s.truncated || first > s.last+1 {
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: entry %d does not follow %d..%d", g, first, s.truncated, s.last)
	}
	for i := range es {
		if es[i].Index != first+uint64(i) {
			return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: entry %d where %d is due", g, es[i].Index, first+uint64(i))
		}
		if len(es[i].Data) > MaxEntry {
			return dsdb.Errorf(dsdb.KindTooLarge, "wal: group %d: entry %d of %d bytes, at most %d", g, es[i].Index, len(es[i].Data), MaxEntry)
		}
	}
	s.last = es[len(es)-1].Index
	return nil
}

// setHard guards raft's promises: the term never falls, within a term a vote is
// never changed, and nothing is committed that the log does not hold.
func (s *staged) setHard(g dsdb.GroupID, h HardState) error {
	old := s.hard
	switch {
	case h.Term < old.Term:
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: term falls from %d to %d", g, old.Term, h.Term)
	case h.Term == old.Term && old.Vote != 0 && h.Vote != old.Vote:
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: vote in term %d changes from %d to %d", g, h.Term, old.Vote, h.Vote)
	case h.Commit > s.last:
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: commit index %d, last entry %d", g, h.Commit, s.last)
	}
	s.hard = h
	return nil
}

func (s *staged) truncate(g dsdb.GroupID, index uint64) error {
	if index > s.last {
		return dsdb.Errorf(dsdb.KindInvalid, "wal: group %d: truncate at %d, last entry %d", g, index, s.last)
	}
	s.truncated = max(s.truncated, index)
	return nil
}
