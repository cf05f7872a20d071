// Package meta holds the cluster catalogue: nodes, databases, retention
// policies, shard groups with their shards, replicas and field types, and
// users. It owns the rules by which the catalogue changes (validation,
// time-group boundaries, placement of replicas) and knows neither raft nor the
// query language.
//
// The catalogue is a value. A *Data never changes once it is reachable by
// others; a command makes a new one that shares whatever it left alone:
//
//	command struct ─ Encode ─→ log entry ─ Store.Apply ─→ Data.Apply ─→ *Data ─→ Store.View
//
// Data.Apply is a function of the value and the command: the times that rules
// depend on come inside the command. Readers take Store.View once and read it
// without locks. The file that Store.Flush writes is described in FORMAT.md.
package meta

import (
	"strconv"
	"time"

	"github.com/dasudian/dsdb"
)

// Data is one version of the catalogue. It is immutable: neither the value nor
// anything reachable from it may be changed by a reader.
type Data struct {
	Index, Term uint64 // of the last log entry that this version includes
	ClusterID   uint64 // 0 until CreateCluster
	Counters    Counters
	Nodes       []Node      // by id
	Databases   []*Database // by name; see DatabasesByAge
	Users       []*User     // by name

	shards *shardIndex // shared by versions with the same shards
}

// Counters are the last ids that were given out. An id is never given twice,
// also when what it named is gone.
type Counters struct {
	Node       dsdb.NodeID // shared by meta and data roles
	Database   uint64
	ShardGroup uint64
	Shard      dsdb.ShardID
	Replica    dsdb.ReplicaID
}

// NewData returns the empty catalogue, the state before the first log entry.
func NewData() *Data { return &Data{shards: new(shardIndex)} }

// NodeKind is the role that a node id stands for.
type NodeKind string

// The roles of a process. A process with both has two nodes with one UUID.
const (
	MetaNode NodeKind = "meta"
	DataNode NodeKind = "data"
)

// Node is one role of one process.
type Node struct {
	ID       dsdb.NodeID `json:"id"`
	Kind     NodeKind    `json:"kind"`
	UUID     string      `json:"uuid"` // of the process
	HTTPAddr string      `json:"http"`
	TCPAddr  string      `json:"tcp"`
}

// Database is a named set of retention policies.
type Database struct {
	Name          string
	Created       uint64             // ordinal among all databases ever created
	DefaultPolicy string             // "" if the default policy was dropped
	Policies      []*RetentionPolicy // in the order of creation, which SHOW RETENTION POLICIES keeps
}

// RetentionPolicy says how long points are kept, how many copies there are
// and how long a time group is.
type RetentionPolicy struct {
	Name               string
	ReplicaN           int
	Duration           time.Duration // 0: for ever
	ShardGroupDuration time.Duration
	ShardGroups        []*ShardGroup // live ones by time; they do not overlap
	Deleted            []*ShardGroup // by id, until PruneShardGroups forgets them
}

// ShardGroup is one time group: the points of one retention policy whose times
// lie in Range, spread over its shards by the hash of their series key.
type ShardGroup struct {
	ID        uint64
	Range     dsdb.TimeRange
	DeletedAt int64   // Unix nanoseconds; 0 while the group is live
	Shards    []Shard // at least one; the ordinal is the partition
	schema    *schema
}

// Shard is one partition of a time group.
type Shard struct {
	ID       dsdb.ShardID `json:"id"`
	Replicas []Replica    `json:"replicas"` // the first one is to campaign when the shard is new
}

// Replica is one copy of a shard on a data node.
type Replica struct {
	ID   dsdb.ReplicaID `json:"id"`
	Node dsdb.NodeID    `json:"node"`
}

// User is an account of the cluster.
type User struct {
	Name       string  `json:"name"`
	Hash       string  `json:"hash"` // bcrypt
	Admin      bool    `json:"admin,omitempty"`
	Privileges []Grant `json:"grants,omitempty"` // by database
}

// Grant is the privilege of a user on one database.
type Grant struct {
	Database  string    `json:"db"`
	Privilege Privilege `json:"privilege"`
}

// Privilege is what a user may do with a database.
type Privilege uint8

// The privileges. NoPrivileges remains listed for a user after a REVOKE, as in InfluxDB.
const (
	NoPrivileges Privilege = iota
	ReadPrivilege
	WritePrivilege
	AllPrivileges
)

// String returns the privilege as SHOW GRANTS prints it.
func (p Privilege) String() string {
	switch p {
	case NoPrivileges:
		return "NO PRIVILEGES"
	case ReadPrivilege:
		return "READ"
	case WritePrivilege:
		return "WRITE"
	case AllPrivileges:
		return "ALL PRIVILEGES"
	}
	return "Privilege(" + strconv.Itoa(int(p)) + ")"
}

// Apply returns the catalogue after a command that Encode made, and the
// verdict. A command that is refused, also one that cannot be decoded, leaves
// the catalogue as it is: d itself is returned.
func (d *Data) Apply(cmd []byte) (*Data, dsdb.Verdict) {
	c, err := Decode(cmd)
	if err == nil {
		next := *d
		if err = c.apply(&next); err == nil {
			return &next, dsdb.Verdict{}
		}
	}
	return d, dsdb.Verdict{Rejected: 1, Kind: dsdb.KindOf(err), Reason: err.Error()}
}
