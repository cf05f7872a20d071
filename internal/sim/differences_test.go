package sim

import (
	"encoding/hex"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/coord"
	"github.com/dasudian/dsdb/shard"
)

// differences makes replicas hold what their log does not, and has replicas
// compared and judged. It knows which are odd, which is more than digests tell.
type differences struct {
	tampered map[dsdb.ShardID]bool // some replica was odd once
	taken    map[entryOf][]taken
}

// entryOf names an entry of the log of a shard.
type entryOf struct {
	shard dsdb.ShardID
	index uint64
}

// taken is a digest that a replica took right after an entry.
type taken struct {
	replica dsdb.ReplicaID
	sum     string
	odd     bool
}

// The pace of comparisons, faster than the server's: a run lasts seconds.
const (
	compareWait  = 10 * time.Second
	comparePoll  = 200 * time.Millisecond
	comparePause = time.Second
	compareCall  = 2 * time.Second
)

// oddSeries is a series of the points that no client writes.
const oddSeries = seriesCount

// checksums has the replicas of a shard compared, now and then, for as long as
// clients work, or one is damaged or odd.
func (s *store) checksums() {
	s.After(s.Between(100*time.Millisecond, 600*time.Millisecond), func() {
		s.checksums()
		m := s.member()
		if m == nil {
			return
		}
		ids := shardsOf(m.catalogue.View())
		if fs := s.unnoticed(); len(fs) > 0 {
			ids = []dsdb.GroupID{fs[len(fs)-1].shard.Group()}
		} else if id := s.differing(); id != 0 && (s.quiet || s.Chance(0.3)) {
			ids = []dsdb.GroupID{id.Group()}
		} else if s.quiet {
			return
		}
		if len(ids) > 0 {
			m.compare(dsdb.ShardID(ids[s.Rand.IntN(len(ids))]), s.Now()+compareWait)
		}
	})
}

// checked waits for the digest that a replica computes in a goroutine of its own,
// and compares it with those of others. Who asks is told it some time later.
func (m *member) checked(id dsdb.ShardID, r *replica) {
	s := m.store
	for r.Checking() != 0 {
		runtime.Gosched()
	}
	index, digest, ok := r.Checksum()
	if !ok || index == r.compared {
		return
	}
	r.compared = index
	at, t := entryOf{id, index}, taken{r.id, hex.EncodeToString(digest[:]), s.odd(id, r)}
	for _, o := range s.taken[at] {
		s.count("checksums compared")
		if (o.sum == t.sum) != (o.odd == t.odd) {
			s.violation("shard %d at %d: replica %d on node %d has the digest %s, odd: %v; another has %s, odd: %v", id, index, r.id, m.node.Index, t.sum, t.odd, o.sum, o.odd)
		}
	}
	s.taken[at] = append(s.taken[at], t)
	r.digest.Checking = index
	m.after(s.Between(0, 300*time.Millisecond), func() {
		if r.digest.Checking == index {
			r.digest = coord.Digest{Index: index, Sum: t.sum}
		}
	})
}

// odd reports whether a replica holds what no client wrote.
func (s *store) odd(id dsdb.ShardID, r *replica) (found bool) {
	if !s.tampered[id] {
		return false
	}
	_ = each(r.Shard, func(series string, _ int64, _ [len(fields)]uint64) { // of a damaged file nobody makes a digest
		found = found || series == host(oddSeries)
	})
	return found
}

// sides counts the replicas of a shard that are open and odd, and those that are not.
func (s *store) sides(id dsdb.ShardID) (odd, even int) {
	for _, m := range s.members {
		if r := m.shards[id]; r != nil && r.Shard != nil && !r.busy && m.node != s.scrapped {
			if s.odd(id, r) {
				odd++
			} else {
				even++
			}
		}
	}
	return odd, even
}

// differing returns a shard of which one replica is odd and another is not, 0 if
// there is none.
func (s *store) differing() dsdb.ShardID {
	for _, id := range slices.Sorted(maps.Keys(s.tampered)) {
		if odd, even := s.sides(id); odd > 0 && even > 0 {
			return id
		}
	}
	return 0
}

// tampers now and then makes one replica of a shard odd, or a few of them: also
// most, and half of them.
func (s *store) tampers() {
	s.After(s.Between(time.Second, 8*time.Second), func() {
		s.tampers()
		m := s.member()
		if s.quiet || m == nil || s.differing() != 0 {
			return
		}
		ids := slices.Sorted(maps.Keys(m.shards))
		if len(ids) == 0 {
			return
		}
		id := ids[s.Rand.IntN(len(ids))]
		if !s.whole(id.Group()) || s.rotten(id) {
			return
		}
		s.tamper(m, id)
		for _, o := range s.members {
			if o != m && o.alive() && s.Chance(0.25) {
				s.tamper(o, id)
			}
		}
	})
}

// tamper has a member's replica of a shard hold a point that its log does not have.
func (s *store) tamper(m *member, id dsdb.ShardID) {
	r := m.shards[id]
	ref, found := m.catalogue.View().Shard(id)
	if r == nil || r.Shard == nil || r.busy || r.Damage() != nil || !found {
		return
	}
	st := r.Stats()
	term, err := m.proc.log.Term(id.Group(), st.LastAppliedIndex)
	if err != nil || st.LastAppliedIndex == st.FlushedIndex { // it would have no place in a file
		return
	}
	p := point{hour: int(ref.Group.Range.Start / int64(time.Hour)), series: oddSeries}
	p.values[0] = 1
	entry := shard.AppendWrite(nil, dsdb.ProposalID{}, batch([]point{p}))
	if _, err := r.Apply([]dsdb.Entry{{Index: st.LastAppliedIndex, Term: term, Data: entry}}); err != nil {
		s.fail("tamper with shard %d on node %d: %v", id, m.node.Index, err)
	}
	s.tampered[id] = true
	s.count("replicas made odd")
	s.Note("odd", uint64(m.node.Index), uint64(id))
}

// compare has the replicas of a shard compared, as the server does: again and
// again, until that has told something or the time is up.
func (m *member) compare(id dsdb.ShardID, until time.Duration) {
	m.propose(id.Group(), func(dsdb.ProposalID) []byte { return shard.AppendChecksum(nil) }, func(v dsdb.Verdict, err error) {
		switch {
		case err == nil:
			m.store.count("entries for checksums")
			m.gather(id, v.Index, until)
		case m.store.Now() < until:
			m.after(comparePause, func() { m.compare(id, until) })
		}
	})
}

// gather asks the replicas of a shard for their digests until they can be judged.
func (m *member) gather(id dsdb.ShardID, index uint64, until time.Duration) {
	m.describe(id, func(ds []coord.Digest) {
		index, over := coord.Comparable(index, ds)
		inTime := m.store.Now() < until
		if !over && inTime && len(ds) > 0 {
			m.after(comparePoll, func() { m.gather(id, index, until) })
			return
		}
		j := coord.Judge(index, ds)
		m.store.judged(entryOf{id, index}, ds, j)
		for _, wrong := range j.Wrong {
			m.command(&meta.ReplicaFailed{Group: id.Group(), Replica: wrong, Reason: "it differs"}, func(dsdb.Verdict, error) {})
		}
		if !j.Agree && !j.Differ && inTime && len(ds) > 0 {
			m.after(comparePause, func() { m.compare(id, until) })
		}
	})
}

// describe asks all whole replicas of a shard how they are; there is none of a
// shard that was dropped.
func (m *member) describe(id dsdb.ShardID, done func([]coord.Digest)) {
	ref, _ := m.catalogue.View().Shard(id)
	var ds []coord.Digest
	var at []*Node
	for _, r := range ref.Shard.Replicas {
		if !r.Witness {
			ds, at = append(ds, coord.Digest{Replica: r.ID, Role: r.Role, Failed: true}), append(at, m.store.node(r.Node))
		}
	}
	left := len(ds)
	if left == 0 {
		done(nil)
	}
	for i := range ds {
		var said coord.Digest
		m.call(at[i], func(at *member, reply func(error)) { said = at.digest(id); reply(nil) }, compareCall, func(err error) {
			if err == nil && said.Replica == ds[i].Replica {
				said.Role = ds[i].Role
				ds[i] = said
			}
			if left--; left == 0 {
				done(ds)
			}
		})
	}
}

// digest is what a member says of its replica of a shard.
func (m *member) digest(id dsdb.ShardID) coord.Digest {
	r, g := m.shards[id], id.Group()
	if r == nil || r.Shard == nil || r.busy || !m.node.Holds(g) {
		return coord.Digest{Failed: true}
	}
	d := r.digest
	d.Replica, d.Applied, d.Failed = r.id, r.Stats().LastAppliedIndex, r.Damage() != nil || m.node.Status(g).Failed != nil
	return d
}

// judged checks a judgement by who is odd. Where there is no majority, and that
// is not because somebody did not answer, an operator decides.
func (s *store) judged(at entryOf, ds []coord.Digest, j coord.Judgement) {
	voters, odd, even := 0, []dsdb.ReplicaID{}, []dsdb.ReplicaID{}
	for _, d := range ds {
		votes := d.Role == meta.Voter || d.Role == meta.LeavingVoter
		if votes {
			voters++
		}
		if !votes || d.Failed || d.Index != at.index {
			continue
		}
		i := slices.IndexFunc(s.taken[at], func(t taken) bool { return t.replica == d.Replica && t.sum == d.Sum })
		switch {
		case i < 0:
			s.fail("replica %d has not taken the digest %+v", d.Replica, d)
		case s.taken[at][i].odd:
			odd = append(odd, d.Replica)
		default:
			even = append(even, d.Replica)
		}
	}
	var wrong []dsdb.ReplicaID
	switch differ := len(odd) > 0 && len(even) > 0; {
	case !differ:
	case 2*len(even) > voters:
		wrong = odd
		s.count("odd ones judged wrong")
	case 2*len(odd) > voters:
		wrong = even
		s.count("odd ones judged right")
	default:
		s.count("judgements without a majority")
		s.After(s.Between(500*time.Millisecond, 3*time.Second), func() { s.decide(at.shard) })
	}
	voted := slices.DeleteFunc(slices.Clone(j.Wrong), func(id dsdb.ReplicaID) bool {
		return slices.ContainsFunc(ds, func(d coord.Digest) bool {
			return d.Replica == id && d.Role != meta.Voter && d.Role != meta.LeavingVoter
		})
	})
	if j.Differ != (len(odd) > 0 && len(even) > 0) || j.Agree && len(odd) > 0 && len(even) > 0 || !slices.Equal(voted, wrong) {
		s.violation("shard %d at %d: of %d voters %v are odd, %v are not; judged: %+v", at.shard, at.index, voters, odd, even, j)
	}
	if j.Agree {
		s.count("judgements that replicas agree")
	}
}

// decide has the odd replicas of a shard replaced where their number does not say
// which are wrong, as somebody does who can tell.
func (s *store) decide(id dsdb.ShardID) {
	odd, even := s.sides(id)
	m := s.member()
	if m == nil || odd != even {
		return
	}
	for _, o := range s.members {
		if r := o.shards[id]; r != nil && r.Shard != nil && s.odd(id, r) && s.whole(id.Group()) {
			m.command(&meta.ReplicaFailed{Group: id.Group(), Replica: r.id, Reason: "an operator has looked"}, func(_ dsdb.Verdict, err error) {
				if err == nil {
					s.count("replicas that an operator failed")
				}
			})
		}
	}
}

// Of two copies one is odd: all are told, none is replaced, until somebody says
// which. Of three copies it is replaced at once.
func TestOddReplicas(t *testing.T) {
	for copies := 2; copies <= 3; copies++ {
		storeScenario(t, 3, 3, copies, 4, func(s *storeScript) {
			m := s.members[s.Rand.IntN(3)]
			want := s.puts(m, theCell)
			id := dsdb.ShardID(s.group(m, theCell))
			s.until("all is in place", func() bool { return s.whole(id.Group()) })
			for n := 0; s.differing() == 0; n++ {
				if n > 1000 {
					s.t.Fatal("no replica differs")
				}
				s.puts(m, theCell)
				s.tamper(s.members[s.Rand.IntN(3)], id)
				want = s.puts(m, theCell)
			}
			before, _ := m.catalogue.View().Shard(id)
			m.compare(id, s.Now()+compareWait)
			if copies == 2 {
				s.until("it is said", func() bool { return s.Counts["judgements without a majority"] > 0 })
				if now, _ := m.catalogue.View().Shard(id); !slices.Equal(now.Shard.Replicas, before.Shard.Replicas) {
					s.t.Errorf("replicas %+v, before %+v", now.Shard.Replicas, before.Shard.Replicas)
				}
			}
			s.until("it is replaced", func() bool { return s.differing() == 0 && s.whole(id.Group()) })
			if s.Counts["odd ones judged wrong"] != copies-2 || s.Counts["replicas that an operator failed"] != 3-copies {
				s.t.Errorf("%+v", s.Counts)
			}
			for _, o := range s.members {
				if got := s.sees(o, theCell); got != want {
					t.Errorf("node %d reads %d, not %d", o.node.Index, got, want)
				}
			}
			s.quiet = true
			s.settle()
		})
	}
}
