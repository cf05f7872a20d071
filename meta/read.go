package meta

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/dasudian/dsdb"
)

// Database returns the database of that name, nil if there is none.
func (d *Data) Database(name string) *Database {
	if i, found := d.findDatabase(name); found {
		return d.Databases[i]
	}
	return nil
}

func (d *Data) findDatabase(name string) (int, bool) {
	return slices.BinarySearchFunc(d.Databases, name, func(db *Database, name string) int {
		return strings.Compare(db.Name, name)
	})
}

// DatabasesByAge returns the databases in the order in which they were created,
// which is the order of SHOW DATABASES.
func (d *Data) DatabasesByAge() []*Database {
	dbs := slices.Clone(d.Databases)
	slices.SortFunc(dbs, func(a, b *Database) int { return cmp.Compare(a.Created, b.Created) })
	return dbs
}

// policy returns the policy of exactly that name, nil if there is none.
func (db *Database) policy(name string) *RetentionPolicy {
	for _, rp := range db.Policies {
		if rp.Name == name {
			return rp
		}
	}
	return nil
}

// Policy returns a policy of the database; "" is the default policy and
// "default" is AutoPolicy unless a policy has that name. It reports
// KindNotFound, naming what is missing.
func (d *Data) Policy(database, name string) (*RetentionPolicy, error) {
	db := d.Database(database)
	if db == nil {
		return nil, errDatabaseNotFound(database)
	}
	if name == "" {
		if name = db.DefaultPolicy; name == "" {
			return nil, dsdb.Errorf(dsdb.KindNotFound, "default retention policy not set for: %s", database)
		}
	}
	rp := db.policy(name)
	if rp == nil && name == "default" {
		rp = db.policy(AutoPolicy)
	}
	if rp == nil {
		return nil, errPolicyNotFound(name)
	}
	return rp, nil
}

// GroupFor returns the time group that holds t, nil if there is none (yet).
func (d *Data) GroupFor(database, policy string, t int64) *ShardGroup {
	rp, err := d.Policy(database, policy)
	if err != nil {
		return nil
	}
	return rp.GroupFor(t)
}

// GroupFor returns the time group that holds t, nil if there is none (yet).
func (rp *RetentionPolicy) GroupFor(t int64) *ShardGroup {
	if i := rp.after(t); i < len(rp.ShardGroups) && rp.ShardGroups[i].Range.Start <= t {
		return rp.ShardGroups[i]
	}
	return nil
}

// after returns the index of the first time group that ends after t.
func (rp *RetentionPolicy) after(t int64) int {
	return sort.Search(len(rp.ShardGroups), func(i int) bool { return rp.ShardGroups[i].Range.End > t })
}

// GroupsIn returns the live time groups that meet r, by time. The slice is the catalogue's own.
func (d *Data) GroupsIn(database, policy string, r dsdb.TimeRange) ([]*ShardGroup, error) {
	rp, err := d.Policy(database, policy)
	if err != nil {
		return nil, err
	}
	return rp.GroupsIn(r), nil
}

// GroupsIn returns the live time groups that meet r, by time. The slice is the policy's own.
func (rp *RetentionPolicy) GroupsIn(r dsdb.TimeRange) []*ShardGroup {
	if r.Empty() {
		return nil
	}
	from := rp.after(r.Start)
	rest := rp.ShardGroups[from:]
	n := sort.Search(len(rest), func(i int) bool { return rest[i].Range.Start >= r.End })
	return rest[:n:n]
}

// Expiry returns the time at which the group may be deleted: the end of its
// range plus the duration of the policy, or just the end if that is for ever.
func (rp *RetentionPolicy) Expiry(g *ShardGroup) int64 {
	if g.Range.End > math.MaxInt64-int64(rp.Duration) {
		return math.MaxInt64
	}
	return g.Range.End + int64(rp.Duration)
}

// Partition returns the ordinal of the shard that holds a series: FNV-1a 64 of
// its canonical key modulo the number of shards.
func (g *ShardGroup) Partition(key []byte) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, b := range key {
		h = (h ^ uint64(b)) * prime
	}
	return int(h % uint64(len(g.Shards)))
}

// GroupRef is a time group and where it belongs.
type GroupRef struct {
	Database *Database
	Policy   *RetentionPolicy
	Group    *ShardGroup
}

// Groups returns all live time groups: databases by age, their policies, then by time.
func (d *Data) Groups() []GroupRef {
	var refs []GroupRef
	for _, db := range d.DatabasesByAge() {
		for _, rp := range db.Policies {
			for _, g := range rp.ShardGroups {
				refs = append(refs, GroupRef{db, rp, g})
			}
		}
	}
	return refs
}

// ExpiredGroups returns the live time groups that no retention policy keeps any longer.
func (d *Data) ExpiredGroups(now int64) []GroupRef {
	var refs []GroupRef
	for _, db := range d.DatabasesByAge() {
		for _, rp := range db.Policies {
			if rp.Duration == 0 {
				continue
			}
			for _, g := range rp.ShardGroups {
				if rp.Expiry(g) >= now {
					break // groups that follow end later
				}
				refs = append(refs, GroupRef{db, rp, g})
			}
		}
	}
	return refs
}

// ShardRef is a shard and where it belongs.
type ShardRef struct {
	GroupRef
	Shard Shard
}

// shardIndex finds where a shard is. It holds names and times rather than
// pointers, so that versions of the catalogue that differ in anything but
// their shards share it.
type shardIndex struct {
	once sync.Once
	at   map[dsdb.ShardID]shardPlace
}

type shardPlace struct {
	database, policy string
	start            int64
	partition        int
}

func (x *shardIndex) build(d *Data) {
	x.at = make(map[dsdb.ShardID]shardPlace)
	for _, db := range d.Databases {
		for _, rp := range db.Policies {
			for _, g := range rp.ShardGroups {
				for i, s := range g.Shards {
					x.at[s.ID] = shardPlace{db.Name, rp.Name, g.Range.Start, i}
				}
			}
		}
	}
}

// Shard returns a shard of a live time group and where it belongs.
func (d *Data) Shard(id dsdb.ShardID) (ShardRef, bool) {
	d.shards.once.Do(func() { d.shards.build(d) })
	p, found := d.shards.at[id]
	if !found {
		return ShardRef{}, false
	}
	db := d.Database(p.database)
	rp := db.policy(p.policy)
	g := rp.GroupFor(p.start)
	return ShardRef{GroupRef{db, rp, g}, g.Shards[p.partition]}, true
}

// ShardDropped reports whether the shard was created and is no more. It is
// false for a shard that this version of the catalogue does not know yet.
func (d *Data) ShardDropped(id dsdb.ShardID) bool {
	_, found := d.Shard(id)
	return !found && id <= d.Counters.Shard
}

// User returns the account of that name, nil if there is none.
func (d *Data) User(name string) *User {
	if i, found := d.findUser(name); found {
		return d.Users[i]
	}
	return nil
}

func (d *Data) findUser(name string) (int, bool) {
	return slices.BinarySearchFunc(d.Users, name, func(u *User, name string) int {
		return strings.Compare(u.Name, name)
	})
}

// AdminExists reports whether some user is an administrator.
func (d *Data) AdminExists() bool {
	return slices.ContainsFunc(d.Users, func(u *User) bool { return u.Admin })
}

// Process returns the process with that UUID, also if it is gone.
func (d *Data) Process(uuid string) (Process, bool) {
	if i, found := d.findProcess(uuid); found {
		return d.Processes[i], true
	}
	return Process{}, false
}

func (d *Data) findProcess(uuid string) (int, bool) {
	i := slices.IndexFunc(d.Processes, func(p Process) bool { return p.UUID == uuid })
	return i, i >= 0
}

// ProcessOf returns the process that has or had that id.
func (d *Data) ProcessOf(id dsdb.NodeID) (Process, bool) {
	for i := range d.Processes {
		if d.Processes[i].has(id) {
			return d.Processes[i], true
		}
	}
	return Process{}, false
}

// Node returns the node with that id, unless it was removed.
func (d *Data) Node(id dsdb.NodeID) (Node, bool) {
	p, _ := d.ProcessOf(id)
	for _, kind := range kinds {
		if n := p.node(kind); n.ID == id && p.Has(kind) {
			return n, true
		}
	}
	return Node{}, false
}

// NodeOf returns the node that stands for a role of the process with that UUID.
func (d *Data) NodeOf(uuid string, kind NodeKind) (Node, bool) {
	p, found := d.Process(uuid)
	if !found || !p.Has(kind) {
		return Node{}, false
	}
	return p.node(kind), true
}

// NodesOf returns the nodes of a kind by id, also those that are leaving.
func (d *Data) NodesOf(kind NodeKind) []Node {
	var nodes []Node
	for i := range d.Processes {
		if d.Processes[i].Has(kind) {
			nodes = append(nodes, d.Processes[i].node(kind))
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

// active returns the ids of the nodes of a kind that are to stay, ascending.
func (d *Data) active(kind NodeKind) []dsdb.NodeID {
	var ids []dsdb.NodeID
	for _, n := range d.NodesOf(kind) {
		if n.State == Active {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// Replicas returns the replicas of a shard or of the meta group, by id. The
// slice is the catalogue's own. It reports false for a group that is not there.
func (d *Data) Replicas(group dsdb.GroupID) ([]Replica, bool) {
	if group == dsdb.MetaGroup {
		return d.MetaReplicas, true
	}
	ref, found := d.Shard(dsdb.ShardID(group))
	return ref.Shard.Replicas, found
}

// MetaReplica returns the replica of the meta group that the process is to hold.
func (d *Data) MetaReplica(p Process) (Replica, bool) {
	return newestOn(d.MetaReplicas, p.MetaID, p.DataID)
}

// ReplicaRef is a replica and the shard that it is a copy of.
type ReplicaRef struct {
	ShardRef
	Replica Replica
}

// ReplicasOn returns the replicas of live shards on a data node, in the order of Groups.
func (d *Data) ReplicasOn(node dsdb.NodeID) []ReplicaRef {
	var refs []ReplicaRef
	for _, g := range d.Groups() {
		for _, s := range g.Group.Shards {
			for _, r := range s.Replicas {
				if r.Node == node {
					refs = append(refs, ReplicaRef{ShardRef{g, s}, r})
				}
			}
		}
	}
	return refs
}
