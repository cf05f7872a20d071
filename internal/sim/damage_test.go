package sim

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// damages are the bits of files of shards that were flipped.
type damages struct{ flips []flip }

// flip is a bit that is not what was written, of a replica.
type flip struct {
	node    *Node
	shard   dsdb.ShardID
	replica dsdb.ReplicaID
	file    string
}

// rots now and then flips a bit in a file of a replica, of a shard that can do
// without the replica: of two copies one may just lack what the other has.
func (s *store) rots() {
	s.After(s.Between(2*time.Second, 10*time.Second), func() {
		s.rots()
		m := s.member()
		if s.quiet || m == nil {
			return
		}
		ids := slices.Sorted(maps.Keys(m.shards))
		if len(ids) == 0 {
			return
		}
		id := ids[s.Rand.IntN(len(ids))]
		if r := m.shards[id]; !r.busy && s.whole(id.Group()) && !s.rotten(id) && s.differing() != id && !s.third(id.Group()) {
			s.rot(m, id, r)
		}
	})
}

// rot flips a bit of one of the files of a replica that hold its points.
func (s *store) rot(m *member, id dsdb.ShardID, r *replica) {
	dir := replicaDir(id.Group(), r.id)
	names, _ := m.node.disk.List(dir) // an error is an empty folder, as far as a flip goes
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".seg") })
	if len(names) == 0 {
		return
	}
	f := flip{m.node, id, r.id, path.Join(dir, names[s.Rand.IntN(len(names))])}
	file, err := m.node.disk.Mem.OpenReadWrite(f.file)
	if err != nil {
		return
	}
	defer file.Close()
	size, _ := file.Size()
	if size == 0 {
		return
	}
	var b [1]byte
	at := s.Rand.Int64N(size)
	_, err = file.ReadAt(b[:], at)
	b[0] ^= 1 << s.Rand.IntN(8)
	if err == nil {
		_, err = file.WriteAt(b[:], at)
	}
	if err == nil {
		err = file.SyncData()
	}
	if err != nil {
		s.fail("flip a bit of %s on node %d: %v", f.file, m.node.Index, err)
	}
	s.count("bits flipped")
	s.Note("flip", uint64(m.node.Index), uint64(id), uint64(at))
	s.flips = append(s.flips, f)
}

// unnoticed are the flips in files of replicas that are still there.
func (s *store) unnoticed() (fs []flip) {
	for _, f := range s.flips {
		m := s.members[f.node.Index]
		if r := m.shards[f.shard]; f.node.scrapped || r != nil && r.id != f.replica || r == nil && m.damaged[f.shard] != f.replica && m.alive() {
			continue
		}
		if _, err := f.node.disk.Stat(f.file); err == nil {
			fs = append(fs, f)
		}
	}
	return fs
}

// rotten reports whether a replica of a shard has a flipped bit.
func (s *store) rotten(id dsdb.ShardID) bool {
	return slices.ContainsFunc(s.unnoticed(), func(f flip) bool { return f.shard == id })
}

// harmed lists the replicas of a member whose files are not what was written, as
// far as it knows.
func (m *member) harmed() (fs []meta.FailedGroup) {
	for _, id := range slices.Sorted(maps.Keys(m.shards)) {
		if r := m.shards[id]; r.Shard == nil {
			continue
		} else if err := r.Damage(); err != nil {
			fs = append(fs, meta.FailedGroup{Group: id.Group(), Replica: m.shards[id].id, Reason: err.Error()})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.damaged)) {
		fs = append(fs, meta.FailedGroup{Group: id.Group(), Replica: m.damaged[id], Reason: "it cannot be opened"})
	}
	return fs
}

// A bit of a file of a replica flips where nobody looks. The next comparison finds
// it; the replica is replaced, and nothing wrong was read anywhere meanwhile.
func TestS19AFlippedBitIsFound(t *testing.T) {
	storeScenario(t, 3, 3, 3, 5, func(s *storeScript) {
		s.excuse()
		m := s.members[s.Rand.IntN(3)]
		want := s.puts(m, theCell)
		g := s.group(m, theCell)
		s.until("the victim has flushed", func() bool { r := m.shards[dsdb.ShardID(g)]; return r != nil && r.FlushedIndex() > 0 && s.whole(g) })
		for n := 0; len(s.flips) == 0; n++ {
			if n > 6000 {
				s.t.Fatal("no bit flips in a minute")
			}
			s.Run(10 * time.Millisecond)
			s.rot(m, dsdb.ShardID(g), m.shards[dsdb.ShardID(g)])
		}
		old := s.flips[0].replica
		s.checksums()
		s.until("another replica is in its place", func() bool { r := m.shards[dsdb.ShardID(g)]; return r != nil && r.id != old && s.whole(g) })
		for _, o := range s.members {
			if got := s.sees(o, theCell); got != want {
				t.Errorf("node %d reads %d, not %d", o.node.Index, got, want)
			}
		}
		s.quiet = true
		s.settle()
	})
}
