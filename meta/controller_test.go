package meta

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

// world is a cluster that does what a Controller asks, more or less: processes
// die and return, reports and actions get lost or come late. There is no raft
// in it, but groups obey raft's rules: only a majority elects, commits and
// changes the members.
type world struct {
	t      *testing.T
	r      *rand.Rand
	now    int64
	d      *Data
	c      *Controller
	procs  []*fakeProcess
	groups map[dsdb.GroupID]*fakeGroup
	watch  map[dsdb.ReplicaID]bool // the witnesses that there were ever
	late   []Action                // actions under way
	asked  map[*SucceedShard]int64 // shards without a leader that were to go on from one replica, and when
	force  bool                    // nodes are dropped by force now and then
	log    []string
}

type fakeProcess struct {
	name string
	up   bool
	told bool // it has announced its start
	full bool // of its disk
}

type fakeGroup struct {
	id       dsdb.GroupID
	term     uint64
	commit   uint64
	founder  dsdb.ReplicaID // the first
	leader   dsdb.ReplicaID // 0: none
	led      int64          // when it had one last
	voters   []Member
	outgoing []Member // of a joint change that a script has interrupted
	learners []Member
	former   []Member               // the voters as those know them who left by a joint change, and have not heard of it
	split    bool                   // its members are up, but do not reach each other
	size     int                    // seconds that a snapshot takes; 0: learners need none
	queue    int                    // seconds that it still waits for its turn to be sent
	sent     map[dsdb.ReplicaID]int // seconds of its snapshot that a learner has had
	match    map[dsdb.ReplicaID]uint64
	broken   map[dsdb.ReplicaID]bool // damaged for good
	rotten   map[dsdb.ReplicaID]bool // their files are, their logs are not: they vote
}

func testOptions() ControllerOptions {
	o := DefaultControllerOptions()
	o.SuspectAfter, o.DeadAfter, o.LeaderAfter = 4*time.Second, 20*time.Second, 3*time.Second
	o.TryAgain, o.SteadyAfter = time.Second, 5*time.Second
	o.AskAgain, o.OperatorTimeout, o.BalancePause, o.Lag = 4*time.Second, time.Minute, 8*time.Second, 5
	return o
}

func newWorld(t *testing.T, seed uint64, processes int) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 77)), groups: make(map[dsdb.GroupID]*fakeGroup), watch: make(map[dsdb.ReplicaID]bool), asked: make(map[*SucceedShard]int64), c: NewController(testOptions())}
	w.d = mustApply(t, NewData(), &CreateCluster{ID: 7})
	for range processes {
		w.join(true, true)
	}
	return w
}

// try applies a command and reports whether it was accepted.
func (w *world) try(c Command) bool {
	now := *w.d
	if g := w.groups[dsdb.MetaGroup]; g != nil {
		now.Term = g.term
	}
	next, verdict := now.Apply(Encode(dsdb.ProposalID{}, c))
	args, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.logf("%s %s %s", c.op(), args, verdict.Reason)
	d := *next
	d.Index++
	w.d = &d
	w.follow()
	return verdict.Err() == nil
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%d ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) join(isMeta, isData bool) {
	name := fmt.Sprintf("p%02d", len(w.procs))
	c := join(name)
	c.Meta, c.Data = isMeta, isData
	if w.try(c) {
		w.procs = append(w.procs, &fakeProcess{name: name, up: true, told: true})
	}
}

// follow makes and drops groups as the catalogue says.
func (w *world) follow() {
	if w.groups[dsdb.MetaGroup] == nil && len(w.d.MetaReplicas) > 0 {
		w.found(dsdb.MetaGroup, w.d.MetaReplicas[:1])
	}
	for _, ref := range w.d.Groups() {
		for _, s := range ref.Group.Shards {
			for _, r := range s.Replicas {
				if r.Witness && !w.watch[r.ID] {
					w.watch[r.ID] = true
				}
			}
			if g := w.groups[s.ID.Group()]; g == nil {
				w.found(s.ID.Group(), s.Birth())
			} else if founder := s.Birth()[0].ID; s.Origin != nil && g.founder < founder {
				w.found(s.ID.Group(), s.Birth())
				w.groups[s.ID.Group()].match[founder] = g.match[s.Origin.Replica]
				w.groups[s.ID.Group()].commit = g.match[s.Origin.Replica]
			}
		}
	}
	for id, g := range w.groups {
		all, found := w.d.Replicas(id)
		if !found {
			delete(w.groups, id)
			continue
		}
		for _, m := range g.voters {
			if !slices.ContainsFunc(all, func(r Replica) bool { return r.ID == m.Replica }) {
				w.t.Fatalf("group %d: the catalogue has forgotten voter %d\n%s", id, m.Replica, w.tail())
			}
		}
	}
}

func (w *world) found(id dsdb.GroupID, founders []Replica) {
	g := &fakeGroup{id: id, founder: founders[0].ID, term: 1, commit: 10, match: make(map[dsdb.ReplicaID]uint64), broken: make(map[dsdb.ReplicaID]bool), rotten: make(map[dsdb.ReplicaID]bool)}
	for _, r := range founders {
		g.voters = append(g.voters, memberOf(r))
		g.match[r.ID] = 10
	}
	w.groups[id] = g
}

func (w *world) tail() string { return strings.Join(w.log[max(0, len(w.log)-60):], "\n") }

func (w *world) up(m Member) bool {
	p, _ := w.d.ProcessOf(m.Node)
	i := slices.IndexFunc(w.procs, func(f *fakeProcess) bool { return f.name == p.UUID })
	return i >= 0 && w.procs[i].up && !p.Gone()
}

// witness reports whether a replica of a shard is a witness.
func (w *world) witness(id dsdb.ReplicaID) bool { return w.watch[id] }

func (w *world) works(g *fakeGroup, m Member) bool { return w.up(m) && !g.broken[m.Replica] }

// quorum reports whether a majority of some voters works.
func (w *world) quorum(g *fakeGroup, voters []Member) bool {
	n := 0
	for _, m := range voters {
		if w.works(g, m) {
			n++
		}
	}
	return n > len(voters)/2
}

func (w *world) sorted() []*fakeGroup {
	return slices.SortedFunc(maps.Values(w.groups), func(a, b *fakeGroup) int { return cmp.Compare(a.id, b.id) })
}

// run lets a group live for a second: elect, write, replicate.
func (w *world) run(g *fakeGroup) {
	if g.split || !w.quorum(g, g.voters) || len(g.outgoing) > 0 && !w.quorum(g, g.outgoing) {
		g.leader = 0
		return
	}
	i := slices.IndexFunc(g.voters, func(m Member) bool { return m.Replica == g.leader })
	if i < 0 || !w.works(g, g.voters[i]) {
		g.elect(w)
	}
	if w.witness(g.leader) {
		g.yield(w)
	}
	if !w.witness(g.leader) {
		g.match[g.leader] += uint64(w.r.IntN(4))
	}
	for _, m := range slices.Concat(g.voters, g.learners) {
		if w.works(g, m) && m.Replica != g.leader && !g.ships(m) {
			behind := g.match[g.leader] - g.match[m.Replica]
			g.match[m.Replica] += min(behind, uint64(w.r.IntN(40))+behind/8)
		}
	}
	var all []uint64
	for _, m := range g.voters {
		all = append(all, g.match[m.Replica])
	}
	slices.Sort(all)
	g.commit = max(g.commit, all[(len(all)-1)/2])
}

// ships reports whether a member still gets its snapshot, and sends some more of it.
func (g *fakeGroup) ships(m Member) bool {
	if slices.Contains(g.voters, m) || g.sent[m.Replica] >= g.size {
		return false
	}
	if g.queue > 0 {
		g.queue--
	} else {
		g.sent[m.Replica]++
	}
	return true
}

// elect makes the working voter with the longest log the leader.
func (g *fakeGroup) elect(w *world) {
	best := dsdb.ReplicaID(0)
	for _, m := range g.voters {
		if w.works(g, m) && (best == 0 || g.match[m.Replica] > g.match[best]) {
			best = m.Replica
		}
	}
	if g.match[best] < g.commit {
		w.t.Fatalf("group %d: acknowledged entries are lost\n%s", g.id, w.tail())
	}
	g.lead(best)
}

// yield lets a full replica lead that has what the witness has.
func (g *fakeGroup) yield(w *world) {
	for _, m := range g.voters {
		if w.works(g, m) && !w.witness(m.Replica) && g.match[m.Replica] == g.match[g.leader] {
			g.lead(m.Replica)
			return
		}
	}
}

// lead makes a replica the leader; what the others have beyond its log is void.
func (g *fakeGroup) lead(id dsdb.ReplicaID) {
	g.leader = id
	g.term++
	for _, m := range slices.Concat(g.voters, g.learners) {
		g.match[m.Replica] = min(g.match[m.Replica], g.match[g.leader])
	}
}

func (w *world) report(p *fakeProcess) NodeReport {
	rep := NodeReport{UUID: p.name, DiskFull: p.full}
	proc, _ := w.d.Process(p.name)
	for _, g := range w.sorted() {
		all := slices.Concat(g.voters, g.learners)
		for _, m := range all {
			if !proc.has(m.Node) {
				continue
			}
			if !g.whole(m.Replica) {
				rep.Failed = append(rep.Failed, FailedGroup{g.id, m.Replica, "bit rot"})
			}
			if m.Replica == g.leader {
				rep.Groups = append(rep.Groups, g.report(w, all))
			}
			if w.givenUp(g) && !g.broken[m.Replica] {
				rep.Left = append(rep.Left, LeftReplica{Group: g.id, Replica: m.Replica, Term: g.term, Index: g.match[m.Replica],
					Members: Members{Voters: g.voters, Outgoing: g.outgoing, Learners: g.learners}})
			}
		}
		for _, m := range g.former {
			if proc.has(m.Node) && w.givenUp(g) && !slices.Contains(all, m) {
				rep.Left = append(rep.Left, LeftReplica{Group: g.id, Replica: m.Replica, Term: g.term, Index: g.match[m.Replica], Members: Members{Voters: g.former}})
			}
		}
	}
	return rep
}

func (g *fakeGroup) report(w *world, all []Member) GroupReport {
	out := GroupReport{Group: g.id, Replica: g.leader, Term: g.term, Commit: g.commit,
		Members: Members{Voters: slices.Clone(g.voters), Outgoing: g.outgoing, Learners: slices.Clone(g.learners)}}
	for _, m := range all {
		if m.Replica != g.leader {
			out.Progress = append(out.Progress, Progress{m.Replica, g.match[m.Replica], uint64(g.sent[m.Replica]), g.queue > 0 && !slices.Contains(g.voters, m), w.works(g, m)})
		}
	}
	return out
}

// live lets a second pass in which nothing is decided.
func (w *world) live(lossy bool) {
	w.now += 1000
	for _, p := range w.procs {
		if w.force {
			w.announce(p)
		}
	}
	for _, g := range w.sorted() {
		w.run(g)
		if g.leader != 0 {
			g.led = w.now
		}
	}
	for _, p := range w.procs {
		if p.up && !(lossy && w.r.IntN(8) == 0) {
			w.c.Observe(w.now, w.report(p))
		}
	}
}

// second lets a second pass.
func (w *world) second(lossy bool) {
	w.live(lossy)
	under := w.late
	w.late = nil
	if g := w.groups[dsdb.MetaGroup]; g.leader != 0 {
		wanted := w.c.Step(w.now, w.d)
		for _, a := range wanted {
			if c, is := a.Command.(*SucceedShard); is && w.groups[c.ID.Group()].leader == 0 { // else its leader was not heard
				w.asked[c] = w.now
			}
		}
		under = append(under, wanted...)
	}
	for _, a := range under {
		switch {
		case lossy && w.r.IntN(10) == 0:
			w.logf("lost: %s", a.Reason)
			if w.r.IntN(2) == 0 {
				w.c.Undone(a)
			}
		case lossy && w.r.IntN(4) == 0:
			w.late = append(w.late, a)
		default:
			w.do(a)
		}
	}
}

func (w *world) do(a Action) {
	switch {
	case a.Command != nil:
		c, succeeds := a.Command.(*SucceedShard)
		var before *fakeGroup
		if succeeds {
			before = w.groups[c.ID.Group()]
		}
		if g := w.groups[dsdb.MetaGroup]; w.quorum(g, g.voters) && w.try(a.Command) && succeeds {
			w.mayDie(before, c)
		}
	case a.Transfer != nil:
		g := w.groups[a.Transfer.Group]
		w.logf("%s", a.Reason)
		if g != nil && g.ledOn(a.Transfer.Leader) && g.match[a.Transfer.To] >= g.commit &&
			slices.ContainsFunc(g.voters, func(m Member) bool { return m.Replica == a.Transfer.To && w.works(g, m) }) {
			g.lead(a.Transfer.To)
		}
	default:
		w.logf("%s", a.Reason)
		if g := w.groups[a.Change.Group]; g != nil && g.ledOn(a.Change.Leader) {
			g.change(w, a.Change)
		}
	}
}

func (g *fakeGroup) ledOn(n dsdb.NodeID) bool {
	return slices.ContainsFunc(g.voters, func(m Member) bool { return m.Replica == g.leader && m.Node == n })
}

func (g *fakeGroup) has(n dsdb.NodeID) bool {
	return slices.ContainsFunc(slices.Concat(g.voters, g.learners), func(m Member) bool { return m.Node == n })
}

// whole reports whether a replica is not damaged.
func (g *fakeGroup) whole(id dsdb.ReplicaID) bool { return !g.broken[id] && !g.rotten[id] }

// change carries a change of members out if majorities before and after it work.
func (g *fakeGroup) change(w *world, c *Change) {
	voters, learners := slices.Clone(g.voters), slices.Clone(g.learners)
	for _, s := range c.Steps {
		is := func(m Member) bool { return m.Replica == s.Member.Replica }
		if s.Op == AddVoter && !slices.ContainsFunc(g.learners, is) || s.Op == DemoteVoter && !slices.ContainsFunc(g.voters, is) ||
			s.Op == AddLearner && (slices.ContainsFunc(g.voters, is) || g.has(s.Member.Node)) {
			return // other things have happened meanwhile, or it is wrong
		}
		voters, learners = slices.DeleteFunc(voters, is), slices.DeleteFunc(learners, is)
		switch s.Op {
		case AddVoter:
			voters = append(voters, s.Member)
		case AddLearner, DemoteVoter:
			learners = append(learners, s.Member)
		}
	}
	if len(voters) == 0 || !w.quorum(g, g.voters) || !w.quorum(g, voters) {
		return
	}
	holds := func(m Member) bool { return g.whole(m.Replica) && g.match[m.Replica] >= g.commit }
	full := func(m Member) bool { return g.whole(m.Replica) && !w.witness(m.Replica) }
	if !slices.ContainsFunc(voters, holds) || !slices.ContainsFunc(voters, full) {
		w.t.Fatalf("group %d: %v removes the last replica with all entries\n%s", g.id, c.Steps, w.tail())
	}
	g.voters, g.learners = voters, learners
	g.settle(w)
}

// disturb does something to the cluster.
func (w *world) disturb() {
	p := w.procs[w.r.IntN(len(w.procs))]
	proc, _ := w.d.Process(p.name)
	switch w.r.IntN(16) {
	case 0, 1, 2, 3:
		p.up = !p.up
		w.logf("%s up=%v", p.name, p.up)
	case 4:
		if len(w.procs) < 9 {
			w.join(w.r.IntN(3) > 0, true)
		}
	case 5:
		kind := []NodeKind{MetaNode, DataNode}[w.r.IntN(2)]
		id, _ := proc.role(kind)
		w.try(&DropNode{ID: id, Kind: kind})
	case 6, 7:
		w.try(&EnsureShardGroups{Database: "db", Policy: fmt.Sprint("r", 1+w.r.IntN(4)), Times: []int64{w.r.Int64N(20) * week}, Now: 18 * week, Witness: w.r.IntN(2) == 0})
	case 8:
		n := 1 + w.r.IntN(4)
		w.try(&UpdateRetentionPolicy{Database: "db", Name: "r3", ReplicaN: &n})
	case 9:
		w.harm()
	case 11:
		if w.force {
			w.try(&DropNode{ID: proc.DataID, Kind: DataNode, Force: true, Lost: true})
		}
	case 10:
		w.c = NewController(testOptions())
		w.logf("the meta group is led elsewhere")
	}
}

// harm damages a replica for good, if its group can stand that: half the time its
// files alone.
func (w *world) harm() {
	groups := w.sorted()
	g := groups[w.r.IntN(len(groups))]
	m := g.voters[w.r.IntN(len(g.voters))]
	whole := 0
	for _, v := range g.voters {
		if g.whole(v.Replica) && v.Replica != m.Replica {
			whole++
		}
	}
	if whole > len(g.voters)/2 && g.match[m.Replica] < g.commit || whole > (len(g.voters)+1)/2 {
		kind := []map[dsdb.ReplicaID]bool{g.broken, g.rotten}[w.r.IntN(2)]
		kind[m.Replica] = true
		w.logf("replica %d of group %d is damaged, its log: %v", m.Replica, g.id, g.broken[m.Replica])
	}
}

// heal lets the processes return, but for some that are dead for good and
// without which every group has a majority.
func (w *world) heal() {
	for _, p := range w.procs {
		p.up = true
	}
	for _, p := range w.procs {
		if w.r.IntN(3) > 0 {
			continue
		}
		p.up = false
		for _, g := range w.sorted() {
			p.up = p.up || !w.quorum(g, g.voters)
		}
		w.logf("%s is up=%v for good", p.name, p.up)
	}
}

// settle waits until nothing is done any more, and reports whether that happened.
func (w *world) settle() bool {
	quiet := 0
	for range 3000 {
		before := len(w.log)
		w.second(false)
		if quiet++; len(w.log) > before {
			quiet = 0
		}
		if quiet > 80 {
			return true
		}
	}
	return false
}

// check compares what there is with what there should be.
func (w *world) check() {
	w.t.Helper()
	usable := 0
	for _, n := range w.d.NodesOf(DataNode) {
		if n.State == Active && w.up(Member{Node: n.ID}) {
			usable++
		}
	}
	for _, ref := range w.d.Groups() {
		for _, s := range ref.Group.Shards {
			g, good := w.groups[s.ID.Group()], 0
			for _, r := range s.Replicas {
				p, _ := w.d.ProcessOf(r.Node)
				if r.Role != Voter || !slices.Contains(g.voters, memberOf(r)) {
					w.t.Errorf("shard %d: replica %d is %s in the catalogue; members %v", s.ID, r.ID, r.Role, g.voters)
				}
				if p.Is(DataNode) && w.works(g, memberOf(r)) && !r.Witness {
					good++
				}
			}
			w.checkWitness(ref, s)
			if len(g.voters) != len(s.Replicas) || len(g.learners) > 0 {
				w.t.Errorf("shard %d: %v in the catalogue, members %v and %v", s.ID, s.Replicas, g.voters, g.learners)
			}
			if want := min(ref.Policy.ReplicaN, usable); good < want {
				w.t.Errorf("shard %d: %d good replicas, not %d", s.ID, good, want)
			}
		}
	}
	w.checkMeta()
	for _, p := range w.d.Processes {
		heir := slices.ContainsFunc(w.d.Processes, func(q Process) bool { return q.Is(MetaNode) && w.up(Member{Node: q.MetaID}) })
		if p.MetaState == Leaving && heir || p.DataState == Leaving && len(w.d.lastCopies(p.DataID)) == 0 {
			w.t.Errorf("process %s still leaves", p.UUID)
		}
	}
	if w.t.Failed() {
		w.t.Fatal(w.tail())
	}
}

// checkWitness: a shard has a witness if it is to have one and there is a place.
func (w *world) checkWitness(ref GroupRef, s Shard) {
	w.t.Helper()
	works, free := 0, false
	for _, n := range w.d.active(DataNode) {
		r, holds := s.On(n)
		if holds && r.Witness && w.works(w.groups[s.ID.Group()], memberOf(r)) {
			works++
		}
		free = free || !holds && w.up(Member{Node: n})
	}
	third := witnessed(ref.Policy.ReplicaN, len(w.d.active(DataNode)))
	if watch := slices.ContainsFunc(s.Replicas, func(r Replica) bool { return r.Witness }); watch && !third || third && free && works != 1 {
		w.t.Errorf("shard %d of %d copies: %d witnesses work, a node is free: %v: %v", s.ID, ref.Policy.ReplicaN, works, free, s.Replicas)
	}
}

func (w *world) checkMeta() {
	g := w.groups[dsdb.MetaGroup]
	candidates, voting := 0, 0
	for _, p := range w.d.Processes {
		r, found := w.d.MetaReplica(p)
		if p.Gone() {
			if found {
				w.t.Errorf("process %s is gone, but has replica %d of the catalogue", p.UUID, r.ID)
			}
			continue
		}
		if !found || r.Role == Failed || !slices.Contains(slices.Concat(g.voters, g.learners), memberOf(r)) {
			w.t.Errorf("process %s has replica %d (%s) of the catalogue; members %v %v", p.UUID, r.ID, r.Role, g.voters, g.learners)
		}
		if (r.Role == Voter) != slices.Contains(g.voters, memberOf(r)) {
			w.t.Errorf("replica %d of the catalogue is %s there, voters are %v", r.ID, r.Role, g.voters)
		}
		if p.Is(MetaNode) && w.up(memberOf(r)) {
			candidates++
			if r.Role == Voter {
				voting++
			}
		}
	}
	if len(g.voters)%2 == 0 || voting < (min(candidates, 5)-1)|1 {
		w.t.Errorf("%d voters of the catalogue, %d of them up, of %d meta nodes that are up", len(g.voters), voting, candidates)
	}
}

// life runs a cluster through disturbances, heals it and checks the outcome.
func life(t *testing.T, seed uint64) []string {
	w := trouble(t, seed, false)
	w.heal()
	if !w.settle() {
		for _, g := range w.sorted() {
			all, _ := w.d.Replicas(g.id)
			w.logf("%d: %v: %+v", g.id, all, *g)
		}
		t.Fatalf("seed %d: no end of it\n%s", seed, w.tail())
	}
	w.check()
	return w.log
}

// trouble makes a cluster and disturbs it; with force nodes are dropped by force, too.
func trouble(t *testing.T, seed uint64, force bool) *world {
	w := newWorld(t, seed, 3+int(seed%3))
	w.force = force
	w.try(&CreateDatabase{Name: "db"})
	for n := 1; n <= 4; n++ {
		w.try(&CreateRetentionPolicy{Database: "db", Policy: PolicySpec{Name: fmt.Sprint("r", n), ReplicaN: &n}})
		w.try(&EnsureShardGroups{Database: "db", Policy: fmt.Sprint("r", n), Times: []int64{0, 19 * week}, Now: 18 * week})
	}
	for range 300 {
		if w.r.IntN(6) == 0 {
			w.disturb()
		}
		w.second(true)
	}
	return w
}

// TestControllerConverges: whatever happened, in the end every shard has its
// replicas on nodes that live, the catalogue agrees with the groups, an odd
// number of meta nodes votes, and at no time was the last replica with all
// entries removed.
func TestControllerConverges(t *testing.T) {
	seeds := []uint64{307, 326, 896} // found what was stuck
	for seed := range uint64(25) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { life(t, seed) })
	}
}

// TestControllerIsAFunction: two runs do the same, action by action.
func TestControllerIsAFunction(t *testing.T) {
	for seed := range uint64(3) {
		if a, b := life(t, seed), life(t, seed); !slices.Equal(a, b) {
			i := slices.IndexFunc(a, func(line string) bool { return !slices.Contains(b, line) })
			t.Fatalf("seed %d: two runs differ: %d and %d lines, one has %q", seed, len(a), len(b), a[max(i, 0)])
		}
	}
}

// BenchmarkStep decides about three thousand shards of three replicas when
// nothing is to be done.
func BenchmarkStep(b *testing.B) {
	d := newTestData(b, 5)
	n := 3
	d = mustApply(b, d, &UpdateRetentionPolicy{Database: "db", Name: AutoPolicy, ReplicaN: &n})
	d = mustApply(b, d, &EnsureShardGroups{Database: "db", Times: manyWeeks(3000), Now: 4000 * week})
	w := &world{d: d, groups: make(map[dsdb.GroupID]*fakeGroup)}
	reports := make([]NodeReport, 5)
	for i := range reports {
		reports[i].UUID = fmt.Sprint("n", i)
		w.procs = append(w.procs, &fakeProcess{name: reports[i].UUID, up: true})
	}
	w.follow()
	for _, g := range w.sorted() {
		g.leader = g.voters[0].Replica
		p, _ := d.ProcessOf(g.voters[0].Node)
		i := slices.IndexFunc(reports, func(r NodeReport) bool { return r.UUID == p.UUID })
		reports[i].Groups = append(reports[i].Groups, g.report(w, g.voters))
	}
	c := NewController(DefaultControllerOptions())
	b.ReportAllocs()
	now := int64(0)
	for b.Loop() {
		now += 1000
		for _, r := range reports {
			c.Observe(now, r)
		}
		if acts := c.Step(now, d); now > 60_000 && len(acts) > 5 {
			b.Fatalf("%+v", acts)
		}
	}
}

// Two witnesses of a shard have got a vote, each to be the only one: one of them goes.
func TestOneOfTwoWitnessesGoes(t *testing.T) {
	w := newWorld(t, 1, 0)
	for range 5 {
		w.join(true, true)
	}
	n := 2
	w.try(&CreateDatabase{Name: "db", Policy: &PolicySpec{ReplicaN: &n}})
	w.try(&EnsureShardGroups{Database: "db", Times: []int64{0}, Now: 0, Witness: true})
	for range 20 {
		w.second(false)
	}
	ref := w.d.Groups()[0]
	id := ref.Group.Shards[0].ID.Group()
	free := slices.DeleteFunc(w.d.active(DataNode), func(n dsdb.NodeID) bool { _, holds := ref.Group.Shards[0].On(n); return holds })
	w.try(&AddReplica{Group: id, Node: free[0], Witness: true})
	second := Member{Replica: w.d.Counters.Replica, Node: free[0], Witness: true}
	w.try(&PromoteReplica{id, second.Replica})
	w.watch[second.Replica] = true
	w.groups[id].voters = append(w.groups[id].voters, second)
	for range 20 {
		w.second(false)
	}
	w.checkWitness(w.d.Groups()[0], w.d.Groups()[0].Group.Shards[0])
	if v := w.groups[id].voters; len(v) != 3 {
		t.Errorf("%d voters: %v\n%s", len(v), v, w.tail())
	}
}
