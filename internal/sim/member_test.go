package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/coord"
	"github.com/dasudian/dsdb/shard"
)

// member is the process of a database on a node, with everything that it does
// in production but HTTP: a copy of the catalogue, the replicas of shards that
// the catalogue places there, the coordination of writes and reads, and, where
// the meta group is led, the placement controller.
type member struct {
	store     *store
	node      *Node
	proc      *process
	id        meta.Identity
	catalogue *meta.Store
	shards    map[dsdb.ShardID]*replica
	damaged   map[dsdb.ShardID]dsdb.ReplicaID // replicas that cannot be opened
	routes
	refusal error // of its last attempt to join
	serving bool  // the catalogue was up to date since the start, and knows of it
	control control
}

// routes are how a process finds leaders, and what it knows from them.
type routes struct {
	leaders   coord.Leaders
	sequencer *coord.Sequencer
	freshness coord.Freshness
}

// replica is a shard, or a witness, that is open on a node.
type replica struct {
	*shard.Shard // nil: a witness
	id           dsdb.ReplicaID
	busy         bool         // on its way out
	compared     uint64       // index of the last digest that it took
	digest       coord.Digest // what it says of that
}

const catalogueDir = "meta"

// replicaDir is the folder of a node's replica of a group.
func replicaDir(g dsdb.GroupID, r dsdb.ReplicaID) string {
	if g == dsdb.MetaGroup {
		return catalogueDir
	}
	return path.Join("shard", fmt.Sprintf("%d.%d", g, r))
}

// boot is what the process of a node does when it starts: it reads who it is,
// opens the catalogue, and the shards that this, which may be an old one, places
// on the node. A node that is not a member of the cluster has nothing to run yet.
func (s *store) boot(n *Node) ([]raftnode.GroupSpec, error) {
	m := &member{store: s, node: n, proc: n.run, shards: map[dsdb.ShardID]*replica{}, damaged: map[dsdb.ShardID]dsdb.ReplicaID{}}
	s.members[n.Index] = m
	if err := n.disk.MkdirAll(catalogueDir); err != nil {
		return nil, err
	}
	id, err := meta.ReadIdentity(n.disk, catalogueDir)
	if errors.Is(err, fs.ErrNotExist) {
		s.joins++
		id, err = meta.Identity{UUID: fmt.Sprintf("process-%d", s.joins)}, nil
		if n.Index == 0 && !s.founded {
			id.UUID = founder.UUID
		}
	}
	if err != nil {
		return nil, err
	}
	id.Epoch++
	if err := meta.WriteIdentity(n.disk, catalogueDir, id); err != nil {
		return nil, err
	}
	if id.ClusterID == 0 {
		m.id = id
		s.After(0, m.join)
		return nil, nil
	}
	return m.begin(id)
}

// begin makes the process a member with an identity, which its disk has.
func (m *member) begin(id meta.Identity) (specs []raftnode.GroupSpec, err error) {
	m.id, m.node.MetaID, m.node.DataID = id, id.Peer(), id.DataID
	m.sequencer = coord.NewSequencer(id.Peer(), id.Epoch)
	if m.catalogue, err = meta.Open(m.node.disk, catalogueDir); err != nil {
		return nil, err
	}
	spec := raftnode.GroupSpec{ID: dsdb.MetaGroup, Replica: id.Replica, StateMachine: m.catalogue}
	if id.Replica == founder.Replica {
		spec.Founders = []raftnode.Peer{{Replica: founder.Replica, Node: founder.Peer()}}
	}
	specs = append(specs, spec)
	for _, ref := range m.wanted() {
		r, _ := ref.Shard.On(id.DataID)
		spec, err := m.openShard(ref, r)
		if dsdb.KindOf(err) == dsdb.KindCorrupt {
			m.damaged[ref.Shard.ID] = r.ID
			continue
		}
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	m.store.After(0, m.announce)
	m.tend()
	m.report()
	return specs, nil
}

// wanted lists the shards of which the catalogue places a replica on this node.
// What has left the node does not come back: the catalogue may be an old one. A
// replica waits for an earlier one that a crash has left in the log: see forget.
// (Production takes that away first, when it opens the new one.)
func (m *member) wanted() []meta.ShardRef {
	var out []meta.ShardRef
	for _, g := range m.catalogue.View().Groups() {
		for _, sh := range g.Group.Shards {
			r, found := sh.On(m.id.DataID)
			state, known := m.proc.log.State(sh.ID.Group())
			if found && r.ID > m.proc.log.Removed(sh.ID.Group()) && (!known || state.Replica == r.ID) {
				out = append(out, meta.ShardRef{GroupRef: g, Shard: sh})
			}
		}
	}
	return out
}

// openShard opens the files of a shard.
func (m *member) openShard(ref meta.ShardRef, r meta.Replica) (raftnode.GroupSpec, error) {
	g := ref.Shard.ID.Group()
	spec := raftnode.GroupSpec{ID: g, Replica: r.ID}
	if r.Witness {
		m.shards[ref.Shard.ID] = &replica{id: r.ID}
		spec.StateMachine = raftnode.NewWitness(m.proc.log.State(g))
		spec.Founders = founders(ref.Shard, r.ID)
		return spec, nil
	}
	sh, err := shard.Open(shard.Options{FS: m.node.disk, Dir: replicaDir(g, r.ID), ID: ref.Shard.ID, Range: ref.Group.Range})
	if err != nil {
		return raftnode.GroupSpec{}, fmt.Errorf("open shard %d: %w", ref.Shard.ID, err)
	}
	m.shards[ref.Shard.ID] = &replica{Shard: sh, id: r.ID}
	spec.StateMachine = sh
	spec.Founders = founders(ref.Shard, r.ID)
	return spec, nil
}

// founders are those that the group of a shard began with, nil if a replica is
// none of them.
func founders(sh meta.Shard, id dsdb.ReplicaID) (peers []raftnode.Peer) {
	found := false
	for _, f := range sh.Birth() {
		peers = append(peers, raftnode.Peer{Replica: f.ID, Node: f.Node, Witness: f.Witness})
		found = found || f.ID == id
	}
	if !found {
		return nil
	}
	return peers
}

// moved is told that a state machine of a node has moved. When it is the
// catalogue, the node's shards follow it.
func (s *store) moved(n *Node, g dsdb.GroupID) {
	m := s.members[n.Index]
	switch r := m.shards[dsdb.ShardID(g)]; {
	case g == dsdb.MetaGroup && m.alive():
		m.follow()
	case r != nil && r.Shard != nil:
		m.checked(dsdb.ShardID(g), r)
	}
}

// alive reports whether the process runs, as a member.
func (m *member) alive() bool { return m.node.run == m.proc && m.catalogue != nil && !m.node.disk.dead }

// after runs f in d if the process runs then.
func (m *member) after(d time.Duration, f func()) { m.proc.after(d, f) }

// follow closes the shards that the catalogue does not place on this node any
// more, and opens those that it does.
func (m *member) follow() {
	view := m.catalogue.View()
	for _, id := range slices.Sorted(keysOf(m.shards)) {
		ref, found := view.Shard(id)
		r, mine := ref.Shard.On(m.id.DataID)
		if open := m.shards[id]; !open.busy && (!found && view.ShardDropped(id) || found && (!mine || r.ID != open.id)) {
			m.close(id, open)
		}
	}
	m.forget(view)
	for _, ref := range m.wanted() {
		g := ref.Shard.ID.Group()
		r, _ := ref.Shard.On(m.id.DataID)
		if m.shards[ref.Shard.ID] != nil || m.node.Holds(g) || m.damaged[ref.Shard.ID] == r.ID {
			continue
		}
		spec, err := m.openShard(ref, r)
		if err == nil {
			err = m.node.Open(spec)
		}
		if err != nil {
			m.end(err)
			return
		}
	}
}

// forget erases from the log what a crash has left there of replicas that the
// catalogue had once.
func (m *member) forget(view *meta.Data) {
	for _, g := range m.proc.log.Groups() {
		if g == dsdb.MetaGroup || m.shards[dsdb.ShardID(g)] != nil {
			continue
		}
		state, _ := m.proc.log.State(g)
		replicas, _ := view.Replicas(g)
		if state.Replica <= view.Counters.Replica && !slices.ContainsFunc(replicas, func(r meta.Replica) bool { return r.ID == state.Replica }) {
			m.node.erase(g, m.follow)
		}
	}
}

// close ends a replica and removes its files.
func (m *member) close(id dsdb.ShardID, r *replica) {
	r.busy = true
	m.store.count("replicas closed")
	m.node.Remove(id.Group(), func() {
		m.freshness.Forget(id.Group())
		if r.Shard != nil {
			_ = r.Close() // what it says does not matter: its files are gone
		}
		delete(m.shards, id)
		m.follow()
	})
}

// end ends the process: its disk does not let it go on.
func (m *member) end(err error) {
	if m.node.run == m.proc && !m.node.disk.dead {
		m.node.Kill()
		m.store.died(m.node, err)
	}
}

// tend flushes and merges the files of the replicas, one at a time.
func (m *member) tend() {
	m.after(m.store.Between(20*time.Millisecond, 400*time.Millisecond), func() {
		m.tend()
		ids := slices.Sorted(keysOf(m.shards))
		if len(ids) == 0 || m.store.Chance(0.15) {
			if err := m.catalogue.Flush(); err == nil {
				m.store.count("flushes of catalogues")
				m.node.Flushed(dsdb.MetaGroup)
			}
			return
		}
		id := ids[m.store.Rand.IntN(len(ids))]
		r := m.shards[id]
		if r.busy || r.Shard == nil {
			return
		}
		if rose, err := r.Flush(); err == nil && rose {
			m.store.count("flushes of shards")
			m.node.Flushed(id.Group())
		}
		if m.store.Chance(0.3) {
			if merged, err := r.Compact(m.store.Chance(0.3)); err == nil && merged {
				m.store.count("compactions")
			}
		}
	})
}

// announce has the catalogue note that the process has started; until that has
// worked it serves nobody.
func (m *member) announce() {
	if !m.alive() || m.store.found(m) {
		return
	}
	c := &meta.BootNode{UUID: m.id.UUID, Epoch: m.id.Epoch, Nonce: m.id.Epoch, Addresses: m.node.addresses()}
	m.command(c, func(_ dsdb.Verdict, err error) {
		switch {
		case err == nil:
			m.serving = true
		case dsdb.KindOf(err) == dsdb.KindConflict:
			m.store.violation("node %d: its start was refused: %v", m.node.Index, err)
		default:
			m.after(m.store.Between(50*time.Millisecond, 500*time.Millisecond), m.announce)
		}
	})
}

// addresses are those of a machine, which no other has.
func (n *Node) addresses() meta.Addresses {
	host := fmt.Sprintf("n%d", n.Index)
	return meta.Addresses{HTTPAddr: host + ":8086", MetaHTTPAddr: host + ":8091", TCPAddr: host + ":8088"}
}

// founder is the identity of the first process. The ids are those that the
// catalogue of a new cluster gives out first.
var founder = meta.Identity{ClusterID: 1, UUID: "founder", MetaID: 1, DataID: 2, Replica: 1}

// found makes the cluster, if the process is to be its first and it is not made
// yet, and reports whether there is something to do.
func (s *store) found(m *member) bool {
	if m.id.UUID != founder.UUID || s.founded {
		return false
	}
	again := func() { m.after(50*time.Millisecond, m.announce) }
	m.command(&meta.CreateCluster{ID: founder.ClusterID}, func(_ dsdb.Verdict, err error) {
		if err != nil {
			again()
			return
		}
		m.command(m.joining(founder.UUID, m.id.Epoch), func(v dsdb.Verdict, err error) {
			j, _ := meta.DecodeJoined(v.Value)
			if s.founded = err == nil && j.Replica == founder.Replica && j.DataID == founder.DataID; !s.founded {
				s.Note("found again")
			}
			again()
		})
	})
	return true
}

// joining is the command by which a process becomes a member.
func (m *member) joining(uuid string, epoch uint64) *meta.JoinCluster {
	return &meta.JoinCluster{UUID: uuid, Meta: m.node.Index < m.store.metas, Data: true, Addresses: m.node.addresses(), Epoch: epoch, Nonce: epoch, Replace: m.store.replaced[m.node.Index]}
}

// join makes the process of an empty machine a member of the cluster, through
// any other member.
func (m *member) join() {
	s := m.store
	if m.node.run != m.proc {
		return
	}
	again := func() { m.after(s.Between(50*time.Millisecond, 500*time.Millisecond), m.join) }
	if m.id.UUID == founder.UUID {
		m.become(founder)
		return
	}
	via := s.members[s.Rand.IntN(len(s.members))]
	if via == nil || !via.alive() || !via.serving {
		again()
		return
	}
	c := m.joining(m.id.UUID, m.id.Epoch)
	var joined meta.Joined
	m.call(via.node, func(via *member, reply func(error)) {
		via.command(c, func(v dsdb.Verdict, err error) {
			if err == nil {
				joined, err = meta.DecodeJoined(v.Value)
			}
			reply(err)
		})
	}, 5*time.Second, func(err error) {
		if m.refusal = err; err != nil {
			again()
			return
		}
		m.become(meta.Identity{ClusterID: joined.Cluster, UUID: c.UUID, MetaID: joined.MetaID, DataID: joined.DataID, Replica: joined.Replica})
	})
}

// become writes down who the process is and begins to be that.
func (m *member) become(id meta.Identity) {
	id.Epoch = m.id.Epoch
	err := meta.WriteIdentity(m.node.disk, catalogueDir, id)
	var specs []raftnode.GroupSpec
	if err == nil {
		specs, err = m.begin(id)
	}
	for _, s := range specs {
		if err == nil {
			err = m.node.Open(s)
		}
	}
	if err != nil {
		m.end(err)
		return
	}
	m.store.count("joins")
}

// now is the time on the scale of attempts and controllers.
func (s *store) now() int64 { return int64(s.Now() / time.Millisecond) }

// hour is the n-th time group, which all databases have in common.
func hour(n int) int64 { return int64(n) * int64(time.Hour) }

func keysOf[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
