package meta

import (
	"fmt"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Controller decides what is to be done so that the cluster holds what the
// catalogue says: who votes in the meta group, which replicas are made, replaced
// and removed, and which replica leads. It is run where the meta group is led,
// and is made anew when that moves: what must not be forgotten is in the
// catalogue (the roles of replicas and nodes), the rest is learned from reports.
// It is a function of what it is told: it has no clock, no goroutine and no
// randomness. It is not safe for concurrent use.
type Controller struct {
	o       ControllerOptions
	started int64 // when it was first told the time; all times are in milliseconds
	seen    map[string]*observation
	met     map[string]int64 // processes, and since when they, or their last start, are known: nobody is dead who had no time to report
	leaders map[dsdb.GroupID]*leadership
	said    map[string]int64           // actions, and when they were last returned
	filling map[dsdb.ReplicaID]filling // learners of shards
	gaveUp  map[dsdb.NodeID]int64      // nodes on which a learner was given up, and when
	moved   map[dsdb.GroupID]int64     // groups that were balanced, and when
	steady  map[string]start           // processes, and how long they have run
	orphans map[dsdb.ShardID]uint64    // shards of lost nodes that were to go on from one replica, and the index of the catalogue by which this was decided
	evened  int64                      // when leaders were last balanced
	delays  []Delay                    // of the last Step
}

// start is a start of a process, and since when it is known.
type start struct {
	epoch uint64
	since int64
}

// filling is a learner, how much of a snapshot it had at the most, and since when,
// or when it was last heard that its snapshot is yet to be sent.
type filling struct {
	sent  uint64
	since int64
}

// observation is the last report of a process and when it came.
type observation struct {
	at     int64
	report NodeReport
}

// leadership is what the leader of a group said last.
type leadership struct {
	uuid   string // of the leader's process
	since  int64  // it has led in this term at least since then
	at     int64  // when the report came
	report GroupReport
}

// NewController returns a controller that has been told nothing.
func NewController(o ControllerOptions) *Controller {
	return &Controller{o: o, started: -1, seen: make(map[string]*observation), met: make(map[string]int64), leaders: make(map[dsdb.GroupID]*leadership),
		said: make(map[string]int64), filling: make(map[dsdb.ReplicaID]filling),
		gaveUp: make(map[dsdb.NodeID]int64), moved: make(map[dsdb.GroupID]int64), steady: make(map[string]start), orphans: make(map[dsdb.ShardID]uint64)}
}

// Observe takes in a report that came at now, in milliseconds of a clock that
// never goes back.
func (c *Controller) Observe(now int64, r NodeReport) {
	c.begin(now)
	led := make(map[dsdb.GroupID]bool, len(r.Groups))
	for _, g := range r.Groups {
		led[g.Group] = true
		for _, p := range g.Progress {
			if f, known := c.filling[p.Replica]; known && (p.Sent > f.sent || p.Queued) {
				c.filling[p.Replica] = filling{max(p.Sent, f.sent), now}
			}
		}
		l := c.leaders[g.Group]
		if l == nil || g.Term > l.report.Term || g.Term == l.report.Term && l.uuid != r.UUID {
			l = &leadership{uuid: r.UUID, since: now}
			c.leaders[g.Group] = l
		}
		if g.Term == l.report.Term || l.at == 0 {
			l.at, l.report = now, g
		}
	}
	for id, l := range c.leaders {
		if l.uuid == r.UUID && !led[id] {
			delete(c.leaders, id)
		}
	}
	c.seen[r.UUID] = &observation{at: now, report: r}
}

func (c *Controller) begin(now int64) {
	if c.started < 0 {
		c.started = now
	}
}

// Liveness tells whether a process can be reckoned with, and when its last report
// came, or, if that is later, when it was known to have started or the controller began.
func (c *Controller) Liveness(now int64, uuid string) (l Liveness, last int64) {
	last = max(c.started, c.met[uuid])
	if o := c.seen[uuid]; o != nil {
		last = max(last, o.at)
	}
	switch silence := time.Duration(now-last) * time.Millisecond; {
	case silence >= c.o.DeadAfter:
		return Dead, last
	case silence >= c.o.SuspectAfter:
		return Suspect, last
	}
	return Up, last
}

// over reports whether at least a period has passed since then.
func over(now, then int64, period time.Duration) bool {
	return now-then >= period.Milliseconds()
}

// Step returns what is to be done at now, going by the catalogue d and the
// reports so far. The catalogue must include all that was acknowledged: whoever
// leads the meta group asks for a read index first when it begins to lead.
func (c *Controller) Step(now int64, d *Data) []Action {
	c.begin(now)
	c.forget(now, d)
	s := &step{Controller: c, now: now, d: d, nodes: make(map[dsdb.NodeID]*dataNode), begun: make(map[dsdb.ShardID]bool)}
	c.delays = nil
	s.survey()
	s.metaGroup()
	s.failures()
	s.disks()
	s.shards()
	s.retireNodes()
	s.balanceLeaders()
	return s.out
}

// forget drops what was kept of things that are no more.
func (c *Controller) forget(now int64, d *Data) {
	for what, at := range c.said {
		if over(now, at, c.o.AskAgain) {
			delete(c.said, what)
		}
	}
	for uuid := range c.seen {
		if p, found := d.Process(uuid); !found || p.Gone() {
			delete(c.seen, uuid)
		}
	}
	for i := range d.Processes {
		p := &d.Processes[i]
		at, ran := c.steady[p.UUID]
		if _, known := c.met[p.UUID]; !p.Gone() && (!known || ran && at.epoch != p.Epoch) {
			c.met[p.UUID] = now
		} else if p.Gone() {
			delete(c.met, p.UUID)
		}
	}
	for id := range c.orphans {
		if ref, found := d.Shard(id); !found || !d.GivenUp(&ref.Shard) {
			delete(c.orphans, id)
		}
	}
	for uuid := range c.steady {
		if p, found := d.Process(uuid); !found || p.Gone() {
			delete(c.steady, uuid)
		}
	}
	for id, l := range c.leaders {
		if _, found := d.Replicas(id); !found || d.superseded(id, l.report.Replica) {
			delete(c.leaders, id)
		}
	}
	for id, at := range c.moved {
		if over(now, at, c.o.BalancePause) {
			delete(c.moved, id)
		}
	}
	for id, at := range c.gaveUp {
		if over(now, at, c.o.OperatorTimeout) {
			delete(c.gaveUp, id)
		}
	}
}

// Undone tells that an action was not carried out: it may be decided again soon.
func (c *Controller) Undone(a Action) {
	if at, found := c.said[a.key]; found {
		c.said[a.key] = at - (c.o.AskAgain - c.o.TryAgain).Milliseconds()
	}
}

// step is one call of Step.
type step struct {
	*Controller
	now       int64
	d         *Data
	nodes     map[dsdb.NodeID]*dataNode // the data nodes, also those that leave
	order     []*dataNode               // the same by id
	operators int                       // shards that get or lose a replica
	learners  map[dsdb.ReplicaID]bool   // of shards
	begun     map[dsdb.ShardID]bool     // something begins there in this step
	out       []Action
}

// dataNode is a data node as a place for replicas.
type dataNode struct {
	id        dsdb.NodeID
	uuid      string
	active    bool
	live      Liveness
	steady    bool // it has run for a while
	full      bool // of its disk
	replicas  int
	witnesses int
	incoming  int // replicas that are filled there
	leads     int // shards
}

// survey counts what there is.
func (s *step) survey() {
	for _, n := range s.d.NodesOf(DataNode) {
		live, _ := s.Liveness(s.now, n.UUID)
		node := &dataNode{id: n.ID, uuid: n.UUID, active: n.State == Active, live: live, steady: s.steadily(n.UUID, live)}
		if o := s.seen[n.UUID]; o != nil {
			node.full = o.report.DiskFull
		}
		s.nodes[n.ID] = node
		s.order = append(s.order, node)
	}
	s.learners = make(map[dsdb.ReplicaID]bool)
	for _, ref := range s.d.Groups() {
		for _, sh := range ref.Group.Shards {
			s.count(sh)
		}
	}
	for id := range s.filling {
		if !s.learners[id] {
			delete(s.filling, id)
		}
	}
}

// disks notes in the catalogue whose disks are full, for those who place new shards.
func (s *step) disks() {
	for _, n := range s.order {
		if p, _ := s.d.Process(n.uuid); n.live == Up && s.seen[n.uuid] != nil && n.full != p.DataFull {
			s.propose(&NoteDisk{Node: n.id, Full: n.full}, "the disk of %s is full: %v", s.name(n.id), n.full)
		}
	}
}

// steadily reports whether a process has run for a while, as far as is known.
func (s *step) steadily(uuid string, live Liveness) bool {
	p, _ := s.d.Process(uuid)
	at, known := s.steady[uuid]
	if !known || at.epoch != p.Epoch || live != Up {
		at = start{p.Epoch, s.now}
		s.steady[uuid] = at
	}
	const lately = 2 * time.Second
	_, heard := s.Liveness(s.now, uuid)
	return over(s.now, at.since, s.o.SteadyAfter) && !over(s.now, heard, lately)
}

func (s *step) count(sh Shard) {
	busy := false
	for _, r := range sh.Replicas {
		n := s.nodes[r.Node]
		if n != nil && r.Witness {
			n.witnesses++
		} else if n != nil {
			n.replicas++
		}
		if r.Role == Learner {
			s.learners[r.ID] = true
			if _, known := s.filling[r.ID]; !known {
				s.filling[r.ID] = filling{since: s.now}
			}
			if n != nil && !r.Witness { // which takes no files to fill
				n.incoming++
			}
		}
		busy = busy || r.Role == Learner || r.Role == LeavingVoter
	}
	if busy {
		s.operators++
	}
	if l := s.leader(sh.ID.Group()); l != nil {
		for _, r := range sh.Replicas {
			if n := s.nodes[r.Node]; n != nil && r.ID == l.report.Replica {
				n.leads++
			}
		}
	}
}

// leader returns what the leader of a group said, nil if that is not known or old.
func (s *step) leader(id dsdb.GroupID) *leadership {
	l := s.leaders[id]
	if l == nil || over(s.now, l.at, s.o.LeaderAfter) {
		return nil
	}
	return l
}

// settled reports whether one leader has been there so long that no other can
// still take itself for it: what it says of the members is not outdated.
func (s *step) settled(l *leadership) bool { return over(l.at, l.since, s.o.LeaderAfter) }

// say returns an action unless it was returned a short while ago.
func (s *step) say(key string, a Action) {
	if _, lately := s.said[key]; lately {
		return
	}
	s.said[key] = s.now
	a.key = key
	s.out = append(s.out, a)
}

// propose returns a command as an action.
func (s *step) propose(c Command, format string, args ...any) {
	s.say(fmt.Sprintf("%s %+v", c.op(), c), Action{Command: c, Reason: fmt.Sprintf(format, args...)})
}

// change asks the leader of a group to change its members.
func (s *step) change(l *leadership, reason string, steps ...MemberChange) {
	what := fmt.Sprintf("%s: %v", nameGroup(l.report.Group), steps)
	s.say(what, Action{Change: &Change{Group: l.report.Group, Leader: s.leads(l), Steps: steps}, Reason: what + ": " + reason})
}

// transfer asks the leader of a group to let another lead.
func (s *step) transfer(l *leadership, to dsdb.ReplicaID, reason string) {
	what := fmt.Sprintf("%s: [lead %d]", nameGroup(l.report.Group), to)
	s.say(what, Action{Transfer: &Transfer{Group: l.report.Group, Leader: s.leads(l), To: to}, Reason: what + ": " + reason})
}

// nameGroup names a group for the log.
func nameGroup(id dsdb.GroupID) string {
	if id == dsdb.MetaGroup {
		return "catalogue"
	}
	return fmt.Sprintf("shard %d", id)
}

// leads returns the node on which a group is led.
func (s *step) leads(l *leadership) dsdb.NodeID {
	p, _ := s.d.Process(l.uuid)
	if l.report.Group == dsdb.MetaGroup {
		return p.ID()
	}
	return p.DataID
}

// voter reports whether the replica votes in its group.
func (l *leadership) voter(id dsdb.ReplicaID) bool {
	return slices.ContainsFunc(l.report.Members.Voters, func(m Member) bool { return m.Replica == id })
}

// member reports whether the replica belongs to its group.
func (l *leadership) member(id dsdb.ReplicaID) bool {
	is := func(m Member) bool { return m.Replica == id }
	return l.voter(id) || slices.ContainsFunc(l.report.Members.Learners, is) || slices.ContainsFunc(l.report.Members.Outgoing, is)
}

// holds reports whether a replica of the group is on a node.
func (l *leadership) holds(node dsdb.NodeID) bool {
	is := func(m Member) bool { return m.Node == node }
	return slices.ContainsFunc(l.report.Members.Voters, is) || slices.ContainsFunc(l.report.Members.Learners, is)
}

func (l *leadership) joint() bool { return len(l.report.Members.Outgoing) > 0 }

// follows reports whether a member is heard from and at most lag entries behind.
func (l *leadership) follows(id dsdb.ReplicaID, lag uint64) bool {
	return id == l.report.Replica || slices.ContainsFunc(l.report.Progress, func(p Progress) bool {
		return p.Replica == id && p.Active && (p.Match+lag >= l.report.Commit || mutant.LagIgnored)
	})
}

// safe reports whether, after the steps, a majority of the voters follows: the
// group can go on, and what it has acknowledged is there more than once if it
// has more than one voter.
func (l *leadership) safe(lag uint64, steps []MemberChange) bool {
	var voters []dsdb.ReplicaID
	for _, m := range l.report.Members.Voters {
		if !slices.ContainsFunc(steps, func(c MemberChange) bool { return c.Member.Replica == m.Replica }) {
			voters = append(voters, m.Replica)
		}
	}
	for _, c := range steps {
		if c.Op == AddVoter {
			voters = append(voters, c.Member.Replica)
		}
	}
	following := 0
	for _, id := range voters {
		if l.follows(id, lag) {
			following++
		}
	}
	return following > len(voters)/2
}

// failures reports the replicas that their nodes have taken out of service.
func (s *step) failures() {
	for i := range s.d.Processes {
		o := s.seen[s.d.Processes[i].UUID]
		if o == nil {
			continue
		}
		for _, f := range o.report.Failed {
			all, _ := s.d.Replicas(f.Group)
			others := slices.ContainsFunc(all, func(r Replica) bool { return r.ID != f.Replica && r.Role == Voter && r.Whole() })
			mine := slices.ContainsFunc(all, func(r Replica) bool { return r.ID == f.Replica && r.Role != Failed })
			if mine && others {
				s.propose(&ReplicaFailed{Group: f.Group, Replica: f.Replica, Reason: f.Reason}, "replica %d of group %d: %s", f.Replica, f.Group, f.Reason)
			}
		}
	}
}

// retireNodes ends the roles of which nothing is left.
func (s *step) retireNodes() {
	for i := range s.d.Processes {
		for _, kind := range kinds {
			p := &s.d.Processes[i]
			if id, state := p.role(kind); id != 0 && state == Leaving && s.d.idle(p, kind) {
				s.propose(&RemoveNode{ID: id}, "%s node %d holds nothing any more", kind, id)
			}
		}
	}
}
