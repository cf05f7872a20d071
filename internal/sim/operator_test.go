package sim

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// operator changes the members of groups, as the placement controller does in
// production: it adds replicas, moves them, takes them away, and replaces those
// whose disk is gone. It knows of all machines what its seats say, and of raft
// what the leaders tell. It works on one change of each group at a time.
type operator struct {
	*run
	wanted map[dsdb.GroupID][]*seat // the voters that a group is on its way to, nil: it stays as it is
	least  map[dsdb.GroupID]int     // how many voters it may have on that way
	doubt  map[dsdb.GroupID]bool    // a demotion was asked for, and may be under way
}

// startOperator starts one on a run.
func startOperator(r *run) *operator {
	o := &operator{run: r, wanted: map[dsdb.GroupID][]*seat{}, least: map[dsdb.GroupID]int{}, doubt: map[dsdb.GroupID]bool{}}
	for _, g := range r.Groups() {
		o.next(g)
	}
	o.wipes()
	r.ship = o.press
	return o
}

// press asks a leader that has just begun to send a snapshot to one of the voters
// to take all others away. The group would come to a standstill until the snapshot
// is there, if it ever is: this has to be refused.
func (o *operator) press(l *Node, t raftnode.SendTask) {
	g, p := t.Snapshot.Envelope.Group, l.run
	o.After(0, func() {
		if l.run != p || l.pausing || !l.Holds(g) || !l.Leads(g) {
			return
		}
		ms := l.Status(g).Members
		var others []raftnode.Change
		for _, v := range ms.Voters {
			if v.Node != t.Node && v.Node != l.DataID {
				others = append(others, raftnode.Change{Op: raftnode.Remove, Peer: v})
			}
		}
		if len(others) != len(ms.Voters)-2 || len(others) == 0 || len(ms.Outgoing) > 0 {
			return // the receiver does not vote, or there are no others
		}
		refused := false
		l.Change(g, others, waiter(func(_ dsdb.Verdict, err error) {
			if refused = err != nil; refused {
				o.count("changes refused while a voter waits")
			}
		}))
		o.After(10*time.Millisecond, func() {
			if !refused && l.run == p && !l.pausing {
				o.violation("group %d: %+v are to go, though node %d waits for a snapshot", g, others, t.Node)
			}
		})
	})
}

// next looks at a group after a while. A change that is under way is seen to
// often, a new one is begun now and then, and none when all is quiet.
func (o *operator) next(g dsdb.GroupID) {
	d := o.Between(100*time.Millisecond, 300*time.Millisecond)
	if o.wanted[g] == nil && !o.anyLost(g) {
		d = o.Between(200*time.Millisecond, 4*time.Second)
	}
	o.After(d, func() {
		again := once(func() { o.next(g) })
		o.After(3*time.Second, again)
		switch {
		case o.wanted[g] == nil && (!o.quiet || o.anyLost(g)):
			o.begin(g)
			again()
		case o.wanted[g] != nil:
			o.pursue(g, again)
		default:
			again()
		}
	})
}

func (o *operator) anyLost(g dsdb.GroupID) bool {
	return slices.ContainsFunc(o.seatsOf(g), func(s *seat) bool { return s.lost })
}

// begin decides on a change of a group.
func (o *operator) begin(g dsdb.GroupID) {
	seats := o.seatsOf(g)
	keep := slices.DeleteFunc(slices.Clone(seats), func(s *seat) bool { return s.lost })
	if l := o.Leader(g); l != nil && len(keep) == len(seats) && o.Chance(0.3) {
		o.transfer(l, g)
		return
	}
	if l := o.Leader(g); l != nil && len(keep) == len(seats) && len(keep) >= 3 && o.Chance(0.15) {
		o.demote(l, g, keep)
		return
	}
	drop := 0
	if len(keep) == len(seats) && len(keep) > 2 && o.Chance(0.7) {
		drop = 1 + o.Rand.IntN(1+len(keep)/3)
	}
	for range drop {
		at := o.Rand.IntN(len(keep))
		if l := o.Leader(g); l != nil && o.Chance(0.3) { // the leader has to go more often than others
			if i := slices.IndexFunc(keep, func(s *seat) bool { return s.node == l }); i >= 0 {
				at = i
			}
		}
		keep = slices.Delete(keep, at, at+1)
	}
	for _, n := range o.free(g) {
		if len(keep) >= 3 && !o.Chance(0.3) || len(keep) == 5 {
			break
		}
		s := o.seat(g, n)
		keep = append(keep, s)
		o.open(s)
	}
	o.Note("want", uint64(g), uint64(len(keep)))
	o.wanted[g], o.least[g] = keep, len(keep)
}

// demote makes a voter a learner, and then a voter again.
func (o *operator) demote(l *Node, g dsdb.GroupID, seats []*seat) {
	s := seats[o.Rand.IntN(len(seats))]
	o.Note("demote", uint64(g), uint64(s.replica))
	l.Change(g, []raftnode.Change{{Op: raftnode.Demote, Peer: s.peer()}}, waiter(func(_ dsdb.Verdict, err error) {
		if err == nil {
			o.count("demotions")
		}
	}))
	o.wanted[g], o.least[g], o.doubt[g] = seats, len(seats)-1, true
}

// ascertain waits until no change of a group's members is under way that was asked
// for, here or of an earlier leader.
func (o *operator) ascertain(l *Node, g dsdb.GroupID, then func()) {
	l.Change(g, nil, waiter(func(_ dsdb.Verdict, err error) {
		if err == nil {
			delete(o.doubt, g)
		}
		then()
	}))
}

// transfer asks a leader to give up its place to any other voter, or to a certain one.
func (o *operator) transfer(l *Node, g dsdb.GroupID) {
	var to dsdb.ReplicaID
	if o.Chance(0.5) {
		seats := o.seatsOf(g)
		to = seats[o.Rand.IntN(len(seats))].replica
	}
	o.count("transfers asked for")
	l.Transfer(g, to, waiter(func(_ dsdb.Verdict, err error) {
		if err == nil {
			o.count("transfers")
		}
	}))
}

// free returns the nodes that run without a replica of g, in random order.
func (o *operator) free(g dsdb.GroupID) []*Node {
	var ns []*Node
	for _, i := range o.Rand.Perm(len(o.Nodes)) {
		n := o.Nodes[i]
		taken := slices.ContainsFunc(o.seatsOf(g), func(s *seat) bool { return s.node == n && !s.lost })
		if !taken && n.Up() && !n.knows(g) {
			ns = append(ns, n)
		}
	}
	return ns
}

// open starts the replica of a new seat.
func (o *operator) open(s *seat) {
	spec, err := o.spec(s)
	if err == nil {
		err = s.node.Open(spec)
	}
	if err != nil && s.node.Up() && !s.node.disk.dead { // its disk is full or fails: the next start tries again
		o.count("failed opens")
		s.node.Kill()
		o.died(s.node, err)
	}
}

// wipes now and then takes the disk of a machine away, as long as every group
// can do without, also in the middle of a change of its members: what the machine
// holds must be replaced, under new ids, before the next.
func (o *operator) wipes() {
	o.After(o.Between(200*time.Millisecond, 2*time.Second), func() {
		n := o.Nodes[o.Rand.IntN(len(o.Nodes))]
		if !o.quiet && o.spareable(n) {
			o.count("disks wiped")
			if slices.ContainsFunc(o.seats, func(s *seat) bool { return s.node == n && o.wanted[s.group] != nil }) {
				o.count("disks wiped amid changes")
			}
			n.Wipe()
			for _, s := range o.seats {
				s.lost = s.lost || s.node == n
			}
			o.After(o.Between(0, 2*time.Second), func() {
				if !n.Up() {
					o.died(n, errWiped)
				}
			})
		}
		o.wipes()
	})
}

// spareable reports whether every group with a replica on a node has all its
// disks and a majority without that one.
func (o *operator) spareable(n *Node) bool {
	for _, s := range o.seats {
		if s.node == n && !s.gone && (o.anyLost(s.group) || !o.majority(s.group)) {
			return false
		}
	}
	return true
}

// majority reports whether a group has three voters or more by whatever members
// one of its replicas goes by, now and on its way to what is wanted.
func (o *operator) majority(g dsdb.GroupID) bool {
	if o.Leader(g) == nil || o.wanted[g] != nil && o.least[g] < 3 {
		return false
	}
	for _, s := range o.seatsOf(g) {
		if !s.node.Holds(g) {
			return false // who knows by what members it goes
		}
		ms := s.node.Status(g).Members
		if len(ms.Voters) > 0 && len(ms.Voters) < 3 || len(ms.Outgoing) > 0 && len(ms.Outgoing) < 3 {
			return false
		}
	}
	return true
}

// pursue takes the next step towards what is wanted of a group.
func (o *operator) pursue(g dsdb.GroupID, then func()) {
	l := o.Leader(g)
	if l == nil || l.pausing {
		then()
		return
	}
	st := l.Status(g)
	ms := st.Members
	o.wanted[g] = slices.DeleteFunc(o.wanted[g], func(s *seat) bool { return s.lost && !isMember(ms, s) })
	var add, promote, remove []raftnode.Change
	for _, s := range o.wanted[g] {
		switch {
		case s.lost || slices.Contains(ms.Voters, s.peer()):
		case slices.Contains(ms.Learners, s.peer()):
			promote = append(promote, raftnode.Change{Op: raftnode.AddVoter, Peer: s.peer()})
		default:
			add = append(add, raftnode.Change{Op: raftnode.AddLearner, Peer: s.peer()})
		}
	}
	for _, p := range slices.Concat(ms.Voters, ms.Learners) {
		if !slices.ContainsFunc(o.wanted[g], func(s *seat) bool { return !s.lost && s.peer() == p }) {
			remove = append(remove, raftnode.Change{Op: raftnode.Remove, Peer: p})
		}
	}
	switch {
	case len(ms.Outgoing) > 0:
		then()
	case len(add) > 0:
		o.change(l, g, add[:1], then)
	case len(promote)+len(remove) > 0:
		o.change(l, g, slices.Concat(promote, remove), then)
	case o.doubt[g]:
		o.ascertain(l, g, then)
	case st.Settled:
		o.finish(g)
		then()
	default: // those who left may be needed still
		then()
	}
}

func isMember(ms raftnode.Members, s *seat) bool {
	return slices.Contains(slices.Concat(ms.Voters, ms.Outgoing, ms.Learners), s.peer())
}

func (o *operator) change(l *Node, g dsdb.GroupID, cs []raftnode.Change, then func()) {
	o.Note("change", uint64(l.Index), uint64(g), uint64(len(cs)))
	l.Change(g, cs, waiter(func(_ dsdb.Verdict, err error) {
		switch {
		case err != nil:
			o.count("changes that failed")
			if *events {
				fmt.Fprintln(os.Stderr, o.Now(), "change failed", g, err)
			}
		case len(cs) > 1:
			o.count("joint changes")
		default:
			o.count("simple changes")
		}
		then()
	}))
}

// finish takes what left a group from its node.
func (o *operator) finish(g dsdb.GroupID) {
	o.count("membership changes")
	for _, s := range o.seatsOf(g) {
		if slices.Contains(o.wanted[g], s) {
			continue
		}
		s.gone = true
		if s.node.Holds(g) && s.node.Status(g).Replica == s.replica {
			s.node.Remove(g, func() {})
		}
	}
	delete(o.wanted, g)
}
