package raftnode

import (
	"fmt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// DamagedLog is a log of which some may be lost.
type DamagedLog interface {
	LogReader
	// Rest returns what of the group's entries is left.
	Rest(g dsdb.GroupID) wal.Rest
}

// Prefix is how far a damaged group can be followed, and what is lost behind that.
type Prefix struct {
	Flushed uint64 // what the state machine has without the log
	Last    uint64 // the entries behind Flushed up to it are whole
	Known   uint64 // the highest entry that is known to have been
	Given   uint64 // entries behind Last that are whole, but follow on lost ones: they are given up
	Ends    bool   // there was none behind Known
	Short   bool   // the log ends before what is flushed or committed, whether it knows of damage or not
	Done    bool   // Resume has brought the state machine to where it goes on
}

// Lost reports whether entries are known to be lost; others may be if Ends is false.
func (p Prefix) Lost() bool { return p.Known > p.Last }

// PrefixOf looks for what a damaged log has of a group whose state machine has
// flushed so much. It reports KindCorrupt if the log was truncated behind that:
// then not the log, but files are missing.
func PrefixOf(log DamagedLog, g dsdb.GroupID, flushed uint64) (Prefix, error) {
	state, known := log.State(g)
	_, last := log.Bounds(g)
	if err := FilesMissing(g, state, flushed); known && err != nil {
		return Prefix{}, err
	}
	rest := log.Rest(g)
	p := Prefix{Flushed: flushed, Last: max(flushed, birth.Index), Ends: known && rest.Ends}
	for _, s := range rest.Spans {
		switch {
		case s.Last <= p.Last:
		case s.First <= p.Last+1:
			p.Last = s.Last
		default:
			p.Given += s.Last + 1 - s.First
		}
	}
	p.Known = max(p.Last, last, state.HardState.Commit)
	p.Short = known && state.Installing == nil && max(flushed, state.HardState.Commit) > last
	_, p.Done, _ = resumption(log, g, p) // an error comes back when it is tried
	return p, nil
}

// FilesMissing reports KindCorrupt if the log of a group begins behind what its state
// machine has flushed, nil if it does not.
func FilesMissing(g dsdb.GroupID, state wal.GroupState, flushed uint64) error {
	if cut := state.Truncated; cut != birth && flushed < cut.Index {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log of raft group %d begins after %d, but only %d was flushed: files of the replica are missing", g, cut.Index, flushed)
	}
	return nil
}

// Resume makes a state machine, which holds what it has flushed, ready to go on as
// the only voter of its group although the log is damaged: it applies what follows
// without a gap, and then one entry of its own, with data, at an index and in a term
// that the group cannot have reached: whatever anybody remembers of what is lost lies
// before that. It returns that position and the verdict. flush is as for Salvage.
//
// No core may run the group. After an error, or a crash, it may be called again,
// until the log has the update of Resumed.
func Resume(log DamagedLog, g dsdb.GroupID, m StateMachine, data []byte, flush func() error) (end wal.Position, v dsdb.Verdict, err error) {
	defer guardSalvage(g, &err)
	p, err := PrefixOf(log, g, m.FlushedIndex())
	if err != nil {
		return end, v, err
	}
	end, done, err := resumption(log, g, p)
	if err != nil || done {
		return end, v, err
	}
	if err := applyAll(log, g, m, p.Flushed, p.Last, flush); err != nil {
		return end, v, err
	}
	v, err = applyLast(g, m, end, data, flush)
	return end, v, err
}

// resumption returns where a damaged group goes on, and whether its state machine
// has got there before.
func resumption(log DamagedLog, g dsdb.GroupID, p Prefix) (end wal.Position, done bool, err error) {
	state, known := log.State(g)
	last, hard := p.Flushed, state.HardState
	if known {
		_, last = log.Bounds(g)
		last = max(last, hard.Commit)
	}
	if spans := log.Rest(g).Spans; len(spans) > 0 { // the state may be older than the entries
		term, err := log.Term(g, spans[len(spans)-1].Last)
		if err != nil {
			return end, false, fmt.Errorf("raft group %d: %w", g, err)
		}
		hard.Term = max(hard.Term, term)
	}
	end = beyond(last, hard)
	if known && p.Flushed == end.Index {
		return end, true, nil
	}
	if p.Flushed > last {
		end.Index = beyond(p.Flushed, hard).Index
	}
	return end, false, nil
}

// Replay applies what a log has of a group behind what its state machine has
// flushed, as far as that follows without a gap. Nothing is flushed.
func Replay(log DamagedLog, g dsdb.GroupID, m StateMachine, upTo uint64) (err error) {
	defer guardSalvage(g, &err)
	p, err := PrefixOf(log, g, m.FlushedIndex())
	if err != nil {
		return err
	}
	return applyAll(log, g, m, p.Flushed, min(p.Last, upTo), func() error { return nil })
}

// Resumed is the update by which the only voter of a group goes on at a position
// where Resume has brought its state machine.
func Resumed(log LogReader, g dsdb.GroupID, self Peer, at wal.Position) wal.Update {
	state := wal.GroupState{Replica: self.Replica, HardState: wal.HardState{Term: at.Term, Commit: at.Index}, Truncated: at,
		Conf: appendMembership(nil, foundation([]Peer{self}))}
	if _, known := log.State(g); !known {
		return wal.Update{Group: g, Create: &state}
	}
	return wal.Update{Group: g, Reset: &state}
}

// OnlyVoter reports why a replica is not known to be all of its group; nil if it is.
// Of a group whose members the log has lost nothing is said.
func OnlyVoter(log LogReader, g dsdb.GroupID, self dsdb.ReplicaID) error {
	state, known := log.State(g)
	if !known || len(state.Conf) == 0 {
		return nil
	}
	if state.Replica != self {
		return dsdb.Errorf(dsdb.KindConflict, "the log holds replica %d, not %d", state.Replica, self)
	}
	m, err := LogMembers(log, g)
	if err != nil {
		return err
	}
	for _, list := range [][]Peer{m.Voters, m.Outgoing, m.Learners} {
		for _, p := range list {
			if p.Replica != self {
				return dsdb.Errorf(dsdb.KindConflict, "replica %d on node %d belongs to it too", p.Replica, p.Node)
			}
		}
	}
	return nil
}
