package raftnode

import (
	"time"

	"github.com/dasudian/dsdb"
)

// Members are the replicas of a group as of the last change that this node has
// applied. The slices must not be changed.
type Members struct {
	Index    uint64 // of the entry that made them, 0: they are the first
	Voters   []Peer
	Outgoing []Peer // while a joint change is under way: the voters from before it
	Learners []Peer // have the log, do not vote
}

// ChangeOp is what a Change does to a group.
type ChangeOp uint8

// The operations. A replica joins as a learner and is made a voter once it has caught up.
const (
	AddLearner ChangeOp = iota + 1
	AddVoter            // promotes a learner
	Remove
	Demote // makes a voter a learner
)

// Change is one change of a group's members. Of Peer, Node counts only for AddLearner.
type Change struct {
	Op   ChangeOp
	Peer Peer
}

// PeerProgress is what a leader knows of another replica of its group.
type PeerProgress struct {
	Peer
	Match    uint64 // its log is the leader's up to here
	Active   bool   // it was heard of within an election timeout
	Snapshot bool   // it waits for a snapshot
	Sent     uint64 // bytes of the snapshot that is on its way to it
	Queued   bool   // that waits behind others for its turn to be sent
	// Lag is how long ago that was committed which it has just got, or waits for;
	// 0 if less than a second. It is counted from the election on.
	Lag  time.Duration
	mark mark
}

// mark is what was committed at a tick, and whether the replica was seen to lack it.
type mark struct {
	commit, at uint64
	lacked     bool
}

// Snapshot is the state of a group on its way to a replica that lacks the log
// for it. The envelope's message tells position and members, the manifest which
// files, that travel beside, hold the state.
type Snapshot struct {
	Envelope Envelope
	Manifest dsdb.Manifest
}

// OutgoingSnapshot is a snapshot to be sent. Its files stay where they are until
// Done, which must be called exactly once: with nil once the receiver has
// installed it. Alive is to be called while it waits or moves, every few seconds:
// without either for three minutes it counts as lost, and another may be sent.
type OutgoingSnapshot struct {
	Snapshot
	Done  func(error)
	Alive func(sent uint64)
}
