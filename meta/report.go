package meta

import (
	"fmt"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
)

// ControllerOptions are the periods and limits of a Controller.
type ControllerOptions struct {
	ControllerPeriods
	ControllerLimits
}

// ControllerPeriods say when a Controller takes what for granted.
type ControllerPeriods struct {
	SuspectAfter    time.Duration // without a report a process is suspected,
	DeadAfter       time.Duration // and its replicas are replaced
	LeaderAfter     time.Duration // what a leader reported is not believed any longer; a replica is forgotten only if one leader has been there so long
	SteadyAfter     time.Duration // since its start a process may be given leaderships, and since its election a leader may be asked to let another lead
	AskAgain        time.Duration // what was asked for and has not come about is asked for again
	TryAgain        time.Duration // what failed is asked for again
	OperatorTimeout time.Duration // a replica that is not filled for so long, gets no more of a snapshot than before, and waits for none that is yet to be sent, is given up
	BalancePause    time.Duration // after a transfer a group stays where it is
}

// ControllerLimits bound what a Controller has done at a time.
type ControllerLimits struct {
	MaxOperators int    // groups that get or lose a replica
	MaxIncoming  int    // replicas that are filled on one node
	MaxTransfers int    // changes of leadership for balance in a second
	MaxVoters    int    // of the meta group; odd
	Spread       int    // replicas by which data nodes may differ before some are moved; 0: none is moved
	Lag          uint64 // log entries by which a replica that counts as caught up may be behind
}

// DefaultControllerOptions are what suits a cluster of up to some ten nodes.
func DefaultControllerOptions() ControllerOptions {
	return ControllerOptions{
		ControllerPeriods{
			SuspectAfter: 10 * time.Second, DeadAfter: 5 * time.Minute, LeaderAfter: 5 * time.Second, SteadyAfter: 10 * time.Second,
			AskAgain: 10 * time.Second, TryAgain: 2 * time.Second, OperatorTimeout: 10 * time.Minute, BalancePause: 30 * time.Second,
		},
		ControllerLimits{MaxOperators: 4, MaxIncoming: 2, MaxTransfers: 3, MaxVoters: 5, Spread: 2, Lag: 100},
	}
}

// NodeReport is what a process tells the leader of the meta group, about once a
// second, the leader's own process too.
type NodeReport struct {
	UUID     string        `json:"uuid"`
	DiskFull bool          `json:"disk_full,omitempty"` // it should get no more replicas
	Groups   []GroupReport `json:"groups,omitempty"`    // that it leads, the meta group too
	Failed   []FailedGroup `json:"failed,omitempty"`    // of which its replica is out of service
	Left     []LeftReplica `json:"left,omitempty"`      // its replicas of shards of which a node was given up
}

// LeftReplica is a replica in service of a shard that may have lost its majority.
// A shard goes on from the one with the highest term and then the highest index,
// as raft would elect it.
type LeftReplica struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
	Term    uint64         `json:"term"` // of the last entry of its log
	Index   uint64         `json:"index"`
	Members Members        `json:"members"` // as far as it knows; none: it has yet to be filled
}

// GroupReport is what the leader of a raft group knows of it.
type GroupReport struct {
	Group    dsdb.GroupID   `json:"group"`
	Replica  dsdb.ReplicaID `json:"replica"` // the leader's
	Term     uint64         `json:"term"`
	Commit   uint64         `json:"commit"`
	Members  Members        `json:"members"`
	Progress []Progress     `json:"progress,omitempty"` // of the others
}

// Equal reports whether two reports say the same.
func (g *GroupReport) Equal(o *GroupReport) bool {
	return g.Group == o.Group && g.Replica == o.Replica && g.Term == o.Term && g.Commit == o.Commit &&
		slices.Equal(g.Members.Voters, o.Members.Voters) && slices.Equal(g.Members.Outgoing, o.Members.Outgoing) &&
		slices.Equal(g.Members.Learners, o.Members.Learners) && slices.Equal(g.Progress, o.Progress)
}

// Members are the members of a raft group as of its last applied change.
type Members struct {
	Voters   []Member `json:"voters"`
	Outgoing []Member `json:"outgoing,omitempty"` // the voters before, while a joint change is on its way
	Learners []Member `json:"learners,omitempty"`
}

// Member is a member of a raft group.
type Member struct {
	Replica dsdb.ReplicaID `json:"replica"`
	Node    dsdb.NodeID    `json:"node"`
	Witness bool           `json:"witness,omitempty"`
}

// Progress is how far a member has followed.
type Progress struct {
	Replica dsdb.ReplicaID `json:"replica"`
	Match   uint64         `json:"match"`            // index up to which its log is the leader's
	Sent    uint64         `json:"sent,omitempty"`   // bytes of a snapshot that is on its way to it
	Queued  bool           `json:"queued,omitempty"` // that waits behind others for its turn to be sent
	Active  bool           `json:"active"`           // the leader hears from it
}

// FailedGroup is a replica that its node has taken out of service.
type FailedGroup struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
	Reason  string         `json:"reason"`
}

// Liveness is whether a process can be reckoned with.
type Liveness uint8

// What may be known of a process.
const (
	Up Liveness = iota
	Suspect
	Dead
)

var livenesses = []string{"up", "suspect", "dead"}

// String returns the liveness as SHOW CLUSTER prints it.
func (l Liveness) String() string { return nameOf(livenesses, l, "Liveness") }

// Action is what a Controller wants done: exactly one of Command, Change and
// Transfer is set. None must be done, and each may be done twice: what comes
// of it is seen in the catalogue and in later reports.
type Action struct {
	Command  Command   // to be proposed to the meta group
	Change   *Change   // to be asked of the leader of a group
	Transfer *Transfer // to be asked of the leader of a group
	Reason   string    // for the log
	key      string    // of Controller.said
}

// Change is a change of the members of a raft group, in one step.
type Change struct {
	Group  dsdb.GroupID
	Leader dsdb.NodeID // the node whose replica leads the group
	Steps  []MemberChange
}

// ChangeOp is what a MemberChange does.
type ChangeOp uint8

// The changes of members.
const (
	AddLearner   ChangeOp = iota + 1 // it becomes a member
	AddVoter                         // a learner becomes a voter
	RemoveMember                     // it is a member no longer
	DemoteVoter                      // a voter becomes a learner
)

var changeOps = []string{"", "add learner", "add voter", "remove", "demote"}

// String names the change for the log.
func (o ChangeOp) String() string { return nameOf(changeOps, o, "ChangeOp") }

// MemberChange is a part of a Change.
type MemberChange struct {
	Op     ChangeOp
	Member Member
}

// String returns what is done to which replica on which node, for the log.
func (c MemberChange) String() string {
	if c.Op == AddLearner && c.Member.Witness {
		return fmt.Sprintf("add witness %d@%d", c.Member.Replica, c.Member.Node)
	}
	return fmt.Sprintf("%s %d@%d", c.Op, c.Member.Replica, c.Member.Node)
}

// Transfer hands the leadership of a raft group to another member.
type Transfer struct {
	Group  dsdb.GroupID
	Leader dsdb.NodeID // the node whose replica leads the group
	To     dsdb.ReplicaID
}
