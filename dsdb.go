// Package dsdb is the vocabulary that every other package shares: identifiers,
// time ranges, field types, series keys, scans, log entries and error kinds.
// It does no I/O and imports the standard library only, so that storage,
// replication and query packages can meet here without importing each other.
package dsdb

import (
	"math"
	"time"
)

// GroupID names a raft group. The meta group is MetaGroup; the group of a
// shard has the number of its shard.
type GroupID uint64

// MetaGroup is the raft group that holds the cluster catalogue.
const MetaGroup GroupID = 0

// ShardID names a shard: one partition of one time group of one retention
// policy. Ids start at 1, come from one counter of the catalogue and are never reused.
type ShardID uint64

// Group returns the raft group that replicates the shard.
func (s ShardID) Group() GroupID { return GroupID(s) }

// ReplicaID names one replica of one raft group for all time; it is never reused.
type ReplicaID uint64

// NodeID names a role (meta or data) of a process; both kinds share one counter.
type NodeID uint64

// SeriesID names a series within one shard. It is assigned when the write that
// creates the series is applied and is never reused within that shard.
type SeriesID uint32

// The least and the greatest time a point may have, in nanoseconds since the
// Unix epoch. The three values outside are kept for sentinels (InfluxDB 1.x, models/time.go).
const (
	MinTime int64 = math.MinInt64 + 2
	MaxTime int64 = math.MaxInt64 - 1
)

// TimeRange is the half-open span [Start, End) in nanoseconds since the Unix epoch.
type TimeRange struct{ Start, End int64 }

// AllTime holds every time that a point may have.
var AllTime = TimeRange{MinTime, MaxTime + 1}

// Empty reports whether the range holds no time at all.
func (r TimeRange) Empty() bool { return r.Start >= r.End }

// Contains reports whether t lies in the range.
func (r TimeRange) Contains(t int64) bool { return r.Start <= t && t < r.End }

// Overlaps reports whether the ranges share a time.
func (r TimeRange) Overlaps(o TimeRange) bool {
	return r.Start < o.End && o.Start < r.End && !r.Empty() && !o.Empty()
}

// Intersect returns the times that both ranges hold; it may be empty.
func (r TimeRange) Intersect(o TimeRange) TimeRange {
	return TimeRange{max(r.Start, o.Start), min(r.End, o.End)}
}

// String prints the range in RFC 3339 for logs and EXPLAIN.
func (r TimeRange) String() string {
	return "[" + time.Unix(0, r.Start).UTC().Format(time.RFC3339Nano) + ", " +
		time.Unix(0, r.End).UTC().Format(time.RFC3339Nano) + ")"
}
