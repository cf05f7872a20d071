// Package meta holds the cluster catalogue: processes and their roles,
// databases, retention policies, shard groups with their shards, replicas and
// field types, and users. It owns the rules by which the catalogue changes
// (validation, time-group boundaries, placement of replicas) and, with
// Controller, what is to be done when processes come and go. It knows neither
// raft nor the query language.
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
	"errors"
	"strconv"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/dedupe"
)

// Data is one version of the catalogue. It is immutable: neither the value nor
// anything reachable from it may be changed by a reader.
type Data struct {
	Index, Term  uint64 // of the last log entry that this version includes
	ClusterID    uint64 // 0 until CreateCluster
	Counters     Counters
	Processes    []Process   // by age; those that are gone stay
	MetaReplicas []Replica   // of the meta group, by id
	Databases    []*Database // by name; see DatabasesByAge
	Users        []*User     // by name

	proposals *dedupe.Window // those that this version includes
	shards    *shardIndex    // shared by versions with the same shards
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
func NewData() *Data { return &Data{shards: new(shardIndex), proposals: new(dedupe.Window)} }

// Database is a named set of retention policies.
type Database struct {
	Name          string
	Created       uint64             // ordinal among all databases ever created
	DefaultPolicy string             // "" if the default policy was dropped
	Policies      []*RetentionPolicy // in the order of creation, which SHOW RETENTION POLICIES keeps
	Fence         uint64             // index of the catalogue at which types were revoked last; 0: never
	Revocations   []Revocation       // by measurement
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
	Replicas []Replica    `json:"replicas"`           // by id
	Founders []Replica    `json:"founders,omitempty"` // see Birth; nil while Replicas has not changed
	Origin   *Origin      `json:"origin,omitempty"`   // where the group was founded anew from; nil: it is the first
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
// verdict. A command that is refused, also one that cannot be decoded, changes
// nothing but what is remembered of proposals. One that this version includes
// already changes nothing at all, and gets the verdict that it had.
func (d *Data) Apply(cmd []byte) (*Data, dsdb.Verdict) {
	next, verdict, err := d.applyEntry(cmd)
	if err != nil {
		return d, refusal(err)
	}
	return next, verdict
}

// applyEntry does what Apply does, but for a command that only a newer program
// knows: that is an error.
func (d *Data) applyEntry(cmd []byte) (*Data, dsdb.Verdict, error) {
	id, c, err := Decode(cmd)
	switch {
	case errors.Is(err, dsdb.ErrNewer):
		return d, dsdb.Verdict{}, err
	case err != nil:
		return d, refusal(err), nil
	}
	if v, duplicate := d.proposals.Check(id); duplicate {
		return d, v, nil
	}
	next, verdict := d.apply(c)
	if id == (dsdb.ProposalID{}) {
		return next, verdict, nil
	}
	if next == d {
		same := *d
		next = &same
	}
	next.proposals = d.proposals.Clone()
	next.proposals.Record(id, verdict)
	return next, verdict, nil
}

func (d *Data) apply(c Command) (*Data, dsdb.Verdict) {
	next := *d
	if err := c.apply(&next); err != nil {
		return d, refusal(err)
	}
	if a, ok := c.(interface{ answer(d *Data) []byte }); ok {
		return &next, dsdb.Verdict{Value: a.answer(&next)}
	}
	return &next, dsdb.Verdict{}
}

func refusal(err error) dsdb.Verdict {
	return dsdb.Verdict{Rejected: 1, Kind: dsdb.KindOf(err), Reason: err.Error()}
}
