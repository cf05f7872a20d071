package sim

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// The length of a run of the whole store: of faults, and then of peace, by
// whose end all must have converged.
const (
	storeTrouble = 20 * time.Second
	storePeace   = 40 * time.Second // at most; as soon as all is settled it is over
)

// store is a cluster of whole databases, its clients, and what must not happen.
type store struct {
	*Cluster
	t        *testing.T
	members  []*member // of each node, the process that runs or ran last
	metas    int       // the first so many nodes are meta nodes
	founded  bool
	joins    int                  // processes that asked to join
	replaced map[int]dsdb.NodeID  // by node: the process in whose place the next one comes
	scrapped *Node                // is not coming back; nil: none
	lost     map[dsdb.NodeID]bool // whose disks are gone
	policies map[string]int       // databases and their replication factors
	asked    time.Duration        // when they were asked for last
	calls    map[cell][]*call     // what clients did
	write    uint64               // the newest value
	stamp    int64                // orders the starts and ends of calls
	quiet    bool                 // clients have stopped
	damages
	differences
	staleReads
}

// newStore makes a cluster, of which the first node makes the cluster and the
// others join. shape says how many nodes there are, how many of them have a part
// in the catalogue, and which databases there shall be.
func newStore(t *testing.T, seed uint64, shape func(w *World) (nodes, metas int, policies map[string]int)) *store {
	cryptotest.SetGlobalRandom(t, seed)
	w := NewWorld(seed)
	n, metas, policies := shape(w)
	s := &store{t: t, members: make([]*member, n), metas: metas, replaced: map[int]dsdb.NodeID{}, lost: map[dsdb.NodeID]bool{}, calls: map[cell][]*call{},
		policies: policies, stamp: 1, differences: differences{map[dsdb.ShardID]bool{}, map[entryOf][]taken{}}, staleReads: staleReads{last: map[view]uint64{}}}
	o := Options{Nodes: n, Replicas: s.boot, Dir: replicaDir, Applied: s.moved}
	if *events {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug - 1}))
		w.trace = func(what string, nums []uint64) { fmt.Fprintln(os.Stderr, w.Now(), what, nums) }
	}
	s.Cluster = NewCluster(w, o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// tell prints an action of the controller.
func (s *store) tell(m *member, a meta.Action) {
	if *events {
		fmt.Fprintf(os.Stderr, "%v controller on node %d: %s: %+v %+v %+v\n", s.Now(), m.node.Index, a.Reason, a.Command, a.Change, a.Transfer)
	}
}

// outcome prints what came of one.
func (s *store) outcome(a meta.Action, err error) {
	if *events {
		fmt.Fprintf(os.Stderr, "%v controller: %s: %v\n", s.Now(), a.Reason, err)
	}
}

// playStore runs one seed to its end.
func playStore(t *testing.T, seed uint64) (s *store) {
	s = newStore(t, seed, func(w *World) (int, int, map[string]int) {
		n := 3 + w.Rand.IntN(3)
		return n, max(3, n-w.Rand.IntN(2)), map[string]int{"a": 1 + w.Rand.IntN(n), "b": min(3, n)}
	})
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(*Error)
			if !ok {
				panic(p)
			}
			s.Errs = append(s.Errs, e.Error())
		}
	}()
	s.died = func(n *Node, err error) { s.fail("node %d ended itself: %v", n.Index, err) }
	if !s.RunUntil(20*time.Second, s.ready) {
		s.violation("the cluster is not complete")
		return s
	}
	for range 10 {
		s.client()
	}
	for range 3 {
		s.onlooker()
	}
	s.measure()
	s.checksums()
	s.rots()
	s.tampers()
	nemesis := StartNemesis(s.Cluster)
	s.excuse()
	if s.policies["a"] >= 2 { // a replica of a smaller group may not be missed, nor may a new one be placed where nobody is
		s.losses()
	}
	s.Run(storeTrouble)
	s.quiet = true
	if err := nemesis.Stop(); err != nil {
		s.violation("restart: %v", err)
		return s
	}
	s.Run(5 * time.Second) // the last calls end
	if !s.RunUntil(storePeace, s.calm()) {
		s.violation("after %v of peace: %s", storePeace, s.unrest())
	}
	s.conclude()
	return s
}

// excuse has what a replica with a flipped bit does not be a violation: it takes
// itself out of service, and its snapshots are refused.
func (s *store) excuse() {
	failed := s.failed
	s.failed = func(n *Node, g dsdb.GroupID, err error) {
		if dsdb.KindOf(err) != dsdb.KindCorrupt || !slices.ContainsFunc(s.flips, func(f flip) bool { return f.node == n && f.shard.Group() == g }) {
			failed(n, g, err)
		}
	}
	s.torn = func(n *Node, file string) error {
		if !slices.ContainsFunc(s.flips, func(f flip) bool { return f.node == n }) {
			s.fail("file %s of a snapshot of node %d is not what its manifest says", file, n.Index)
		}
		return errShip
	}
}

// conclude reads everything and checks it. The clients have stopped.
func (s *store) conclude() {
	s.finalReads()
	s.compare()
	s.judge()
	s.judgeStale()
	if s.most.max(bounds) != bounds {
		s.violation("queues grow beyond %+v: %+v", bounds, s.most)
	}
}

// ready reports whether all nodes are members and have the databases, which it
// has created.
func (s *store) ready() bool {
	for _, m := range s.members {
		if m == nil || !m.alive() || !m.serving {
			return false
		}
	}
	m := s.members[0]
	if st := m.node.Status(dsdb.MetaGroup); len(st.Members.Voters) < s.metas-1+s.metas%2 {
		return false
	}
	missing, again := false, s.Now() >= s.asked+200*time.Millisecond
	for _, db := range slices.Sorted(maps.Keys(s.policies)) {
		if m.catalogue.View().Database(db) != nil {
			continue
		}
		if missing = true; again {
			s.asked = s.Now()
			rf := s.policies[db]
			m.command(&meta.CreateDatabase{Name: db, Policy: &meta.PolicySpec{ReplicaN: &rf, ShardGroupDuration: time.Hour}}, func(dsdb.Verdict, error) {})
		}
	}
	return !missing
}

// hours is the number of time groups that there are data for by now.
func (s *store) hours() int { return 1 + int(s.Now()/(3*time.Second)) }

// begin notes the start of a call on a cell and returns a function for its end.
func (s *store) begin(c cell, op *call) (end func()) {
	s.stamp++
	op.start = s.stamp
	s.calls[c] = append(s.calls[c], op)
	return func() {
		s.stamp++
		op.end, op.ended = s.stamp, s.Now()
	}
}

// member returns a random one that takes requests, nil if there is none.
func (s *store) member() *member {
	m := s.members[s.Rand.IntN(len(s.members))]
	if m == nil || !m.alive() || !m.serving {
		return nil
	}
	return m
}

// client does one thing after the other for as long as there is trouble.
func (s *store) client() {
	s.After(s.Between(time.Millisecond, 200*time.Millisecond), func() {
		if s.quiet {
			return
		}
		next := once(s.client)
		m := s.member()
		if m == nil {
			next()
			return
		}
		s.After(opTimeout+time.Second, next) // it gives up
		db := s.anyDatabase()
		switch lot := s.Rand.Float64(); {
		case lot < 0.35:
			s.get(m, s.anyCell(db), func(error) { next() })
		case lot < 0.42:
			s.delete(m, db, next)
		default:
			s.set(m, db, next)
		}
	})
}

// onlooker does one stale read after the other for as long as there is trouble.
func (s *store) onlooker() {
	s.After(s.Between(time.Millisecond, 100*time.Millisecond), func() {
		if s.quiet {
			return
		}
		next := once(s.onlooker)
		m := s.member()
		if m == nil {
			next()
			return
		}
		s.After(opTimeout+time.Second, next) // its process ends
		s.glance(m, s.anyCell(s.anyDatabase()), next)
	})
}

func (s *store) anyDatabase() string {
	return slices.Sorted(maps.Keys(s.policies))[s.Rand.IntN(len(s.policies))]
}

// anyCell is a random one, mostly in one of the newest time groups.
func (s *store) anyCell(db string) cell {
	hour := s.Rand.IntN(s.hours())
	if s.Chance(0.6) {
		hour = s.hours() - 1
	}
	return cell{db, hour, s.Rand.IntN(seriesCount), s.Rand.IntN(slotCount), s.Rand.IntN(len(fields))}
}

// set writes one to three points.
func (s *store) set(m *member, db string, then func()) {
	var ps []point
	for range 1 + s.Rand.IntN(3) {
		c := s.anyCell(db)
		p := point{hour: c.hour, series: c.series, slot: c.slot}
		if slices.ContainsFunc(ps, func(o point) bool { return o.hour == p.hour && o.series == p.series && o.slot == p.slot }) {
			continue
		}
		for f := range fields {
			if f == c.field || s.Chance(0.5) {
				s.write++
				p.values[f] = s.write
			}
		}
		ps = append(ps, p)
	}
	s.put(m, db, ps, func(error) { then() })
}

// put writes points through a member; then is told the first error, or that
// there was none.
func (s *store) put(m *member, db string, ps []point, then func(error)) {
	var first error
	ops, ends := map[cell]*call{}, map[cell]func(){}
	for _, p := range ps {
		for _, c := range p.cells(db) {
			ops[c] = &call{write: true, value: p.values[c.field]}
			ends[c] = s.begin(c, ops[c])
		}
	}
	left := len(ps)
	m.write(db, ps, func(pt part, v dsdb.Verdict, err error) {
		if first == nil {
			first = err
		}
		for _, p := range pt.points {
			left--
			for _, c := range p.cells(db) {
				switch {
				case err == nil && v.Rejected == 0:
					s.count("writes acknowledged")
					ends[c]()
					ops[c].index = pt.at
				case err == nil && dsdb.KindOf(v.Err()) == dsdb.KindTimeout:
					s.count("writes below the window of proposals")
				case err == nil:
					s.violation("a write to shard %d was rejected: %+v", pt.shard, v)
				case didNotHappen(err):
					s.count("writes refused")
					ends[c]()
					ops[c].failed = true
				default:
					s.count("writes of unknown outcome")
				}
			}
		}
		if left == 0 {
			then(first)
		}
	}, func(err error) {
		for _, c := range slices.SortedFunc(maps.Keys(ops), cell.compare) {
			s.count("writes refused")
			ends[c]()
			ops[c].failed = true
		}
		then(err)
	})
}

// get reads a cell.
func (s *store) get(m *member, c cell, then func(error)) {
	op := &call{}
	end := s.begin(c, op)
	m.read(c, func(value uint64, err error) {
		if err == nil {
			end()
			op.value = value
			s.count("reads")
			s.Note("read", value)
		}
		then(err)
	})
}

// delete removes the points of a series at one time, or now and then the series.
func (s *store) delete(m *member, db string, then func()) {
	c := s.anyCell(db)
	s.remove(m, c, s.Chance(0.3), func(error) { then() })
}

// remove deletes the fields of a point, or with drop its series.
func (s *store) remove(m *member, c cell, drop bool, then func(error)) {
	db := c.db
	r := dsdb.TimeRange{Start: c.time(), End: c.time() + 1}
	var cells []cell
	for f := range fields {
		cells = append(cells, cell{db, c.hour, c.series, c.slot, f})
	}
	if drop {
		cells, r = nil, dsdb.AllTime
		for h := range s.hours() + 4 { // also those that begin while it is on its way
			for slot := range slotCount {
				for f := range fields {
					cells = append(cells, cell{db, h, c.series, slot, f})
				}
			}
		}
	}
	var ops []*call
	var ends []func()
	for _, c := range cells {
		op := &call{write: true}
		ops, ends = append(ops, op), append(ends, s.begin(c, op))
	}
	m.remove(db, c.series, r, drop, func(did, may, not int) {
		s.count("deletes")
		for i, op := range ops {
			switch {
			case may == 0 && not == 0:
				ends[i]()
			case may == 0 && did == 0:
				ends[i]()
				op.failed = true
			}
		}
		if may+not > 0 {
			then(errDelete)
			return
		}
		then(nil)
	})
}

// errDelete is the end of a delete that did not reach all shards.
var errDelete = errors.New("not all shards have deleted")

// calm returns a function that tells whether everything is as it shall be, and
// has been for a second.
func (s *store) calm() func() bool {
	var since, looked time.Duration = s.Now(), 0
	return func() bool {
		if s.Now() >= looked+100*time.Millisecond {
			looked = s.Now()
			if s.unrest() != "" {
				since = s.Now()
			}
		}
		return s.Now() >= since+time.Second
	}
}

// unrest says what is not yet as it shall be, "" if all is.
func (s *store) unrest() string {
	leader := s.Leader(dsdb.MetaGroup)
	if leader == nil {
		return "the catalogue has no leader"
	}
	if fs := s.unnoticed(); len(fs) > 0 {
		return fmt.Sprintf("a damaged replica is there still: %+v", fs[0])
	}
	if id := s.differing(); id != 0 {
		return fmt.Sprintf("replicas of shard %d differ still", id)
	}
	m := s.members[leader.Index]
	view := m.catalogue.View()
	for _, o := range s.members {
		if o.node == s.scrapped {
			continue
		}
		if !o.alive() || !o.serving {
			return fmt.Sprintf("node %d does not serve", o.node.Index)
		}
		if v := o.catalogue.View(); v.Index != view.Index {
			return fmt.Sprintf("node %d has the catalogue of %d, not %d", o.node.Index, v.Index, view.Index)
		}
	}
	for _, g := range append([]dsdb.GroupID{dsdb.MetaGroup}, shardsOf(view)...) {
		replicas, _ := view.Replicas(g)
		l := s.Leader(g)
		if l == nil {
			return fmt.Sprintf("group %d has no leader", g)
		}
		st := l.Status(g)
		voters, witnesses := 0, 0
		for _, r := range replicas {
			n := s.node(r.Node)
			switch {
			case n == nil || !n.Holds(g) || n.Status(g).Replica != r.ID:
				return fmt.Sprintf("group %d: replica %+v is not there", g, r)
			case n.Status(g).Failed != nil:
				return fmt.Sprintf("group %d: replica %+v: %v", g, r, n.Status(g).Failed)
			case n.Status(g).Applied != st.Commit:
				return fmt.Sprintf("group %d: replica %+v has applied %d of %d", g, r, n.Status(g).Applied, st.Commit)
			case r.Role == meta.Voter && r.Witness:
				voters, witnesses = voters+1, witnesses+1
			case r.Role == meta.Voter:
				voters++
			case g != dsdb.MetaGroup || r.Role != meta.Learner:
				return fmt.Sprintf("group %d: replica %+v", g, r)
			}
		}
		if voters != len(st.Members.Voters) || len(replicas) != voters+len(st.Members.Learners) || len(st.Members.Outgoing) > 0 {
			return fmt.Sprintf("group %d: members are %+v, the catalogue has %+v", g, st.Members, replicas)
		}
		if ref, ok := view.Shard(dsdb.ShardID(g)); ok && g != 0 {
			third := 0
			if ref.Policy.ReplicaN == 2 && s.machines() > 2 {
				third = 1
			}
			if voters-witnesses != min(ref.Policy.ReplicaN, s.machines()) || witnesses != third {
				return fmt.Sprintf("group %d has %d replicas and %d witnesses, not %d", g, voters-witnesses, witnesses, ref.Policy.ReplicaN)
			}
		}
	}
	return ""
}

// machines is the number of those that can hold a replica.
func (s *store) machines() int {
	if s.scrapped != nil {
		return len(s.Nodes) - 1
	}
	return len(s.Nodes)
}

func shardsOf(view *meta.Data) (gs []dsdb.GroupID) {
	for _, g := range view.Groups() {
		for _, sh := range g.Group.Shards {
			gs = append(gs, sh.ID.Group())
		}
	}
	return gs
}

// finalReads reads each cell that somebody touched, through any member.
func (s *store) finalReads() {
	cells := slices.SortedFunc(maps.Keys(s.calls), cell.compare)
	left := len(cells)
	for _, c := range cells {
		var read func()
		read = func() {
			m := s.member()
			if m == nil {
				s.After(20*time.Millisecond, read)
				return
			}
			s.get(m, c, func(err error) {
				if err != nil {
					if *events {
						fmt.Fprintf(os.Stderr, "%v final read of %+v on node %d: %v\n", s.Now(), c, m.node.Index, err)
					}
					s.After(20*time.Millisecond, read)
					return
				}
				left--
			})
		}
		read()
	}
	if !s.RunUntil(10*time.Second, func() bool { return left == 0 }) {
		s.violation("%d of %d cells cannot be read at the end", left, len(cells))
	}
}

// compare checks that the replicas of each group are equal, and nothing else is left:
// a read that went on at another node may still wait at the first for a moment.
func (s *store) compare() {
	s.RunUntil(10*time.Second, func() bool {
		return !slices.ContainsFunc(s.members, func(m *member) bool {
			return m.node != s.scrapped && m.alive() &&
				slices.ContainsFunc(m.proc.groups, func(g dsdb.GroupID) bool { return m.node.Status(g).Waiting > 0 })
		})
	})
	var catalogue []byte
	dumps := map[dsdb.ShardID][]byte{}
	for _, m := range s.members {
		if m.node == s.scrapped || !m.alive() { // of which unrest told
			continue
		}
		b := m.catalogue.View().AppendSnapshot(nil)
		if catalogue != nil && !bytes.Equal(b, catalogue) {
			s.violation("node %d has another catalogue", m.node.Index)
		}
		catalogue = b
		if len(m.shards)+1 != len(m.proc.log.Groups()) {
			s.violation("node %d has %d shards and %d groups in its log", m.node.Index, len(m.shards), len(m.proc.log.Groups()))
		}
		for _, id := range slices.Sorted(maps.Keys(m.shards)) {
			if m.shards[id].Shard == nil {
				s.count("witnesses at the end")
				continue
			}
			b, err := dump(m.shards[id].Shard)
			if err != nil {
				s.violation("shard %d on node %d: %v", id, m.node.Index, err)
			}
			if other, ok := dumps[id]; ok && !bytes.Equal(b, other) {
				s.violation("shard %d is not the same on node %d and elsewhere: %q, %q", id, m.node.Index, b, other)
			}
			dumps[id] = b
			s.count("replicas compared")
		}
		for _, g := range m.proc.groups {
			if st := m.node.Status(g); st.Waiting > 0 {
				s.violation("group %d: %d calls still wait on node %d", g, st.Waiting, m.node.Index)
			}
		}
	}
}

// judge checks that what clients saw of each cell is linearizable.
func (s *store) judge() {
	for _, c := range slices.SortedFunc(maps.Keys(s.calls), cell.compare) {
		s.count("cells checked")
		if is := linearizable(s.calls[c]); is != porcupine.Ok {
			s.violation("%+v is not linearizable: %v", c, is)
			if *events {
				for _, op := range s.calls[c] {
					fmt.Fprintf(os.Stderr, "%+v: %+v\n", c, *op)
				}
			}
		}
	}
}
