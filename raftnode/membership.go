package raftnode

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
)

// membership is who belongs to a group, and where. It is never changed in place.
//
// In the log's Conf, and in the data of a snapshot, it is
//
//	u8 version | u64 index | ConfState | peers
//
// with peers
//
//	u16 n | n × (u64 replica, u64 node)
//
// of version 1, or, if one of them is a witness, of version 2
//
//	u16 n | n × (u64 replica, u64 node, u8 witness: 0 or 1)
//
// and a ConfState, little endian like all else,
//
//	u8 auto leave | 4 × (u16 n | n × u64 replica)
//
// with the voters, the learners, the outgoing voters, and those of them that
// will become learners.
//
// A membership may be newer than the state of the log it is kept with: a change
// counts once, so changes up to index are not made again when their entries are
// applied.
type membership struct {
	index uint64 // of the entry that made it, 0: the first
	conf  *raftpb.ConfState
	peers []Peer // all of its replicas, ascending
}

const (
	membershipVersion = 1
	witnessVersion    = 2
)

// versionOf is the version of what names peers: a program that knows of no
// witnesses must not take one for a copy.
func versionOf(ps []Peer) byte {
	if slices.ContainsFunc(ps, func(p Peer) bool { return p.Witness }) {
		return witnessVersion
	}
	return membershipVersion
}

// foundation is the membership of a new group.
func foundation(founders []Peer) *membership {
	m := &membership{conf: &raftpb.ConfState{}, peers: slices.Clone(founders)}
	for _, p := range founders {
		m.conf.Voters = append(m.conf.Voters, uint64(p.Replica))
	}
	slices.SortFunc(m.peers, byReplica)
	return m
}

func byReplica(a, b Peer) int {
	switch {
	case a.Replica < b.Replica:
		return -1
	case a.Replica > b.Replica:
		return 1
	}
	return 0
}

// peer returns the peer with a replica id.
func (m *membership) peer(r dsdb.ReplicaID) (Peer, bool) {
	for _, p := range m.peers {
		if p.Replica == r {
			return p, true
		}
	}
	return Peer{}, false
}

// alone reports whether the replica is all of the group.
func (m *membership) alone(r dsdb.ReplicaID) bool {
	return len(m.peers) == 1 && m.peers[0].Replica == r && len(m.conf.Voters) == 1
}

func (m *membership) joint() bool { return len(m.conf.VotersOutgoing) > 0 }

// votes reports whether a replica is a voter, of the old or the new ones.
func (m *membership) votes(r dsdb.ReplicaID) bool {
	return slices.Contains(m.conf.Voters, uint64(r)) || slices.Contains(m.conf.VotersOutgoing, uint64(r))
}

// members returns what others may know of it.
func (m *membership) members() Members {
	list := func(ids []uint64) []Peer {
		var ps []Peer
		for _, id := range ids {
			p, _ := m.peer(dsdb.ReplicaID(id))
			ps = append(ps, p)
		}
		return ps
	}
	return Members{Index: m.index, Voters: list(m.conf.Voters), Outgoing: list(m.conf.VotersOutgoing),
		Learners: list(slices.Concat(m.conf.Learners, m.conf.LearnersNext))}
}

// change returns the membership after a change at index, whose context names the
// nodes of the peers that it adds. It reports KindInvalid if the raft library
// would refuse the change, which it does by a panic.
func (m *membership) change(index uint64, cc *raftpb.ConfChangeV2, added []Peer) (*membership, error) {
	next, err := nextConf(m.conf, cc)
	if err != nil {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "change of members: %w", err)
	}
	n := &membership{index: index, conf: next}
	for _, id := range slices.Concat(next.Voters, next.VotersOutgoing, next.Learners, next.LearnersNext) {
		r := dsdb.ReplicaID(id)
		if _, there := n.peer(r); there {
			continue
		}
		p, known := m.peer(r)
		if i := slices.IndexFunc(added, func(a Peer) bool { return a.Replica == r }); !known && i >= 0 {
			p, known = added[i], true
		}
		if !known {
			return nil, dsdb.Errorf(dsdb.KindInvalid, "change of members: the node of replica %d is not named", r)
		}
		n.peers = append(n.peers, p)
	}
	slices.SortFunc(n.peers, byReplica)
	return n, nil
}

// nextConf is the configuration after a change, as the raft library makes it.
func nextConf(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, cs)
	if err != nil {
		return nil, err
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	if cc.LeaveJoint() {
		cfg, progress, err = changer.LeaveJoint()
	} else if autoLeave, joint := cc.EnterJoint(); joint {
		cfg, progress, err = changer.EnterJoint(autoLeave, cc.GetChanges()...)
	} else {
		cfg, progress, err = changer.Simple(cc.GetChanges()...)
	}
	if err != nil {
		return nil, err
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	return changer.Tracker.ConfState(), nil
}

// parseChange reads the data of an entry that changes the members.
func parseChange(kind raftpb.EntryType, data []byte) (*raftpb.ConfChangeV2, error) {
	if kind == raftpb.EntryConfChange {
		var v1 raftpb.ConfChange
		if err := proto.Unmarshal(data, &v1); err != nil {
			return nil, err
		}
		return v1.AsV2(), nil
	}
	cc := new(raftpb.ConfChangeV2)
	if err := proto.Unmarshal(data, cc); err != nil {
		return nil, err
	}
	if cc.GetTransition() != raftpb.ConfChangeTransitionAuto { // nobody proposes another
		return nil, fmt.Errorf("change of members with transition %d", cc.GetTransition())
	}
	return cc, nil
}

// appendConfState appends a ConfState, nil as an empty one, and leaves it as it is.
func appendConfState(dst []byte, cs *raftpb.ConfState) []byte {
	leave := byte(0)
	if cs.GetAutoLeave() {
		leave = 1
	}
	dst = append(dst, leave)
	for _, ids := range [...][]uint64{cs.GetVoters(), cs.GetLearners(), cs.GetVotersOutgoing(), cs.GetLearnersNext()} {
		dst = le.AppendUint16(dst, uint16(len(ids)))
		for _, id := range ids {
			dst = le.AppendUint64(dst, id)
		}
	}
	return dst
}

func (r *reader) confState() *raftpb.ConfState {
	cs := &raftpb.ConfState{}
	leave := r.uint8()
	for _, ids := range [...]*[]uint64{&cs.Voters, &cs.Learners, &cs.VotersOutgoing, &cs.LearnersNext} {
		n := int(r.uint16())
		if n > len(r.b)/8 {
			r.fail()
		}
		for range n {
			if r.bad {
				break
			}
			*ids = append(*ids, r.uint64())
		}
	}
	if leave > 1 {
		r.fail()
	}
	if leave == 1 {
		cs.AutoLeave = new(true)
	}
	return cs
}

// appendPeers appends peers as of the version that versionOf tells.
func appendPeers(dst []byte, ps []Peer) []byte {
	version := versionOf(ps)
	dst = le.AppendUint16(dst, uint16(len(ps)))
	for _, p := range ps {
		dst = le.AppendUint64(dst, uint64(p.Replica))
		dst = le.AppendUint64(dst, uint64(p.Node))
		switch {
		case p.Witness:
			dst = append(dst, 1)
		case version == witnessVersion:
			dst = append(dst, 0)
		}
	}
	return dst
}

func (r *reader) peers(version byte) []Peer {
	n, size := int(r.uint16()), 16
	if version == witnessVersion {
		size++
	}
	if n > len(r.b)/size {
		r.fail()
		return nil
	}
	ps := make([]Peer, n)
	for i := range ps {
		ps[i] = Peer{Replica: dsdb.ReplicaID(r.uint64()), Node: dsdb.NodeID(r.uint64())}
		if version == witnessVersion {
			flag := r.uint8()
			if ps[i].Witness = flag == 1; flag > 1 {
				r.fail()
			}
		}
	}
	return ps
}

func appendMembership(dst []byte, m *membership) []byte {
	dst = le.AppendUint64(append(dst, versionOf(m.peers)), m.index)
	return appendPeers(appendConfState(dst, m.conf), m.peers)
}

// decodeMembership reads what appendMembership wrote. It reports dsdb.ErrNewer for
// a newer format, KindCorrupt for anything else, also for members that could not be.
func decodeMembership(b []byte) (*membership, error) {
	r := reader{b: b}
	v := r.uint8()
	switch {
	case v > witnessVersion:
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "members of format %d, this program reads %d: %w", v, witnessVersion, dsdb.ErrNewer)
	case v != membershipVersion && v != witnessVersion:
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "membership of %d bytes: version %d is not known", len(b), v)
	}
	m := &membership{index: r.uint64(), conf: r.confState(), peers: r.peers(v)}
	if r.bad || len(r.b) > 0 {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "membership of %d bytes: its lists have other lengths", len(b))
	}
	if err := m.check(); err != nil {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "membership of %d bytes: %w", len(b), err)
	}
	return m, nil
}

// check reports what is wrong with a membership that was read.
func (m *membership) check() error {
	all := slices.Concat(m.conf.Voters, m.conf.VotersOutgoing, m.conf.Learners, m.conf.LearnersNext)
	for _, id := range all {
		if _, known := m.peer(dsdb.ReplicaID(id)); id == 0 || !known {
			return fmt.Errorf("replica %d has no node", id)
		}
	}
	for i, p := range m.peers {
		if i > 0 && m.peers[i-1].Replica >= p.Replica || !slices.Contains(all, uint64(p.Replica)) {
			return fmt.Errorf("replica %d is not in order or not a member", p.Replica)
		}
	}
	if len(all) == 0 {
		return nil
	}
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, m.conf)
	if err != nil {
		return err
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	return m.conf.Equivalent(changer.Tracker.ConfState())
}
