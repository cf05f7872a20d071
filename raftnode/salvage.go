package raftnode

import (
	"context"
	"fmt"
	"runtime/debug"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// What is salvaged is applied in steps of salvageStep bytes and flushed in larger ones.
const (
	salvageStep  = 1 << 20
	salvageFlush = 64 << 20
)

// beyond is where the successor of a group begins: at an index, and in a term, that
// the group cannot have reached elsewhere. So whatever anybody remembers of the
// group lies before all that comes.
func beyond(last uint64, hard wal.HardState) wal.Position {
	return wal.Position{Index: (last>>32 + 1) << 32, Term: hard.Term + 1}
}

// Lacked returns how many entries a replica that has those up to match lacks of
// those up to commit. Of what was in the log before the group was founded anew it
// counts none: the indexes tell nothing of how much that was.
func Lacked(commit, match uint64) uint64 {
	founded := commit >> 32 << 32
	return commit - min(max(match, founded), commit)
}

// Salvage makes a state machine, which holds what it has flushed, ready to be the
// first replica of the successor of a group that has lost its majority. It applies
// all that this node's log has of the group, known to be committed or not: a
// replica does not know the last of what was acknowledged to be so. Then it applies
// one entry of its own, with data, at the position where the successor begins, and
// returns the verdict on that. flush is called now and then and at the end.
//
// No core may run the group. After an error, or a crash, it may be called again;
// it does nothing if it has succeeded before.
func Salvage(log LogReader, g dsdb.GroupID, m StateMachine, data []byte, flush func() error) (v dsdb.Verdict, err error) {
	defer guardSalvage(g, &err)
	state, known := log.State(g)
	if !known {
		return v, dsdb.Errorf(dsdb.KindNotFound, "raft group %d is not in the log", g)
	}
	s := storage{group: g}
	_, s.last = log.Bounds(g)
	flushed := m.FlushedIndex()
	if in := state.Installing; in != nil && in.Truncated.Index <= flushed { // it was installed
		state, s.last = *in, in.Truncated.Index
	}
	end := beyond(s.last, state.HardState)
	if flushed == end.Index {
		return v, nil
	}
	if err := s.load(state, flushed); err != nil {
		return v, err
	}
	if err := applyAll(log, g, m, s.applied, s.last, flush); err != nil {
		return v, err
	}
	return applyLast(g, m, end, data, flush)
}

// guardSalvage makes an error of a panic, as of a state machine that is given what
// it cannot take.
func guardSalvage(g dsdb.GroupID, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("raft group %d: salvage: %v\n%s", g, p, debug.Stack())
	}
}

// applyAll has a state machine apply the entries behind one index up to another.
func applyAll(log LogReader, g dsdb.GroupID, m StateMachine, behind, last uint64, flush func() error) error {
	unflushed := 0
	for next := max(behind, birth.Index) + 1; next <= last; {
		es, size, err := salvageable(log, g, next, last)
		if err != nil {
			return err
		}
		if _, err := m.Apply(es); err != nil {
			return fmt.Errorf("raft group %d: salvage entry %d and on: %w", g, next, err)
		}
		next += uint64(len(es))
		if unflushed += size; unflushed > salvageFlush {
			if unflushed, err = 0, flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyLast has a state machine apply the entry with which a successor begins.
func applyLast(g dsdb.GroupID, m StateMachine, at wal.Position, data []byte, flush func() error) (v dsdb.Verdict, err error) {
	vs, err := m.Apply([]dsdb.Entry{{Index: at.Index, Term: at.Term, Data: data}})
	if err != nil {
		return v, fmt.Errorf("raft group %d: salvage: %w", g, err)
	}
	return vs[0], flush()
}

// salvageable reads entries from next on, some of those up to last, as a state
// machine gets them, and their size.
func salvageable(log LogReader, g dsdb.GroupID, next, last uint64) (es []dsdb.Entry, size int, err error) {
	read, err := log.Entries(g, next, last+1, salvageStep, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("entry %d of raft group %d: %w", next, g, err)
	}
	for _, w := range read {
		e := dsdb.Entry{Index: w.Index, Term: w.Term}
		if raftpb.EntryType(w.Kind) == raftpb.EntryNormal && len(w.Data) > 0 {
			if _, _, e.Data, err = openProposal(w.Data); err != nil {
				return nil, 0, fmt.Errorf("entry %d of raft group %d: %w", w.Index, g, err)
			}
		}
		es, size = append(es, e), size+len(w.Data)
	}
	if len(es) == 0 {
		return nil, 0, fmt.Errorf("group %d: the log returned no entry at %d", g, next)
	}
	return es, size, nil
}

// Refound is the update by which a node that has salvaged a group begins its
// successor alone, as another replica: to be written together with, and behind, the
// removal of the old one.
func Refound(g dsdb.GroupID, founder Peer, m dsdb.Manifest) []wal.Update {
	at := wal.Position{Index: m.Index, Term: m.Term}
	state := wal.GroupState{Replica: founder.Replica, HardState: wal.HardState{Term: at.Term, Commit: at.Index}, Truncated: at,
		Conf: appendMembership(nil, foundation([]Peer{founder}))}
	return []wal.Update{{Group: g, Remove: true}, {Group: g, Create: &state}}
}

// Detach ends a replica like Remove, but leaves all of its log, for Salvage.
func (h *Host) Detach(ctx context.Context, g dsdb.GroupID) error {
	if _, err := h.call(ctx, event{kind: evRemove, group: g}); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.groups, g)
	h.mu.Unlock()
	w := newCall() // behind what the group wanted written
	h.writer.push([]Queued{{Append: Append{Empty: true}, Waiter: w}})
	_, err := w.wait(ctx)
	return err
}

// LogMembers returns the members of a group as of the end of what this node's log
// has of it, changes that may not be committed included.
func LogMembers(log LogReader, g dsdb.GroupID) (Members, error) {
	state, known := log.State(g)
	if !known {
		return Members{}, dsdb.Errorf(dsdb.KindNotFound, "raft group %d is not in the log", g)
	}
	m, err := decodeMembership(state.Conf)
	if err != nil {
		return Members{}, err
	}
	for _, index := range log.Marked(g) {
		es, err := log.Entries(g, index, index+1, 0, nil)
		if err != nil {
			return Members{}, fmt.Errorf("entry %d of raft group %d: %w", index, g, err)
		}
		cc, _, added, err := openChange(raftpb.EntryType(es[0].Kind), es[0].Data)
		if err != nil {
			return Members{}, fmt.Errorf("entry %d of raft group %d: %w", index, g, err)
		}
		if next, err := m.change(index, cc, added); err == nil && index > m.index {
			m = next
		}
	}
	return m.members(), nil
}
