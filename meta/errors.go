package meta

import "github.com/dasudian/dsdb"

// The refusals of commands, in InfluxDB's words.
var (
	ErrInvalidName           = dsdb.Errorf(dsdb.KindInvalid, "invalid name")
	ErrDatabaseNameRequired  = dsdb.Errorf(dsdb.KindInvalid, "database name required")
	ErrPolicyNameRequired    = dsdb.Errorf(dsdb.KindInvalid, "retention policy name required")
	ErrPolicyExists          = dsdb.Errorf(dsdb.KindConflict, "retention policy already exists")
	ErrPolicyConflict        = dsdb.Errorf(dsdb.KindConflict, "retention policy conflicts with an existing policy")
	ErrPolicyDurationTooLow  = dsdb.Errorf(dsdb.KindInvalid, "retention policy duration must be at least %s", MinPolicyDuration)
	ErrIncompatibleDurations = dsdb.Errorf(dsdb.KindInvalid, "retention policy duration must be greater than the shard duration")
	ErrReplicationTooLow     = dsdb.Errorf(dsdb.KindInvalid, "replication factor must be greater than 0")
	ErrShardGroupNotFound    = dsdb.Errorf(dsdb.KindNotFound, "shard group not found")
	ErrNoDataNode            = dsdb.Errorf(dsdb.KindUnavailable, "at least one node required")
	ErrNodeNotFound          = dsdb.Errorf(dsdb.KindNotFound, "node not found")
	ErrNodeIDRequired        = dsdb.Errorf(dsdb.KindInvalid, "node id must be greater than 0")
	ErrFinalNode             = dsdb.Errorf(dsdb.KindConflict, "unable to drop the final node in a cluster")
	ErrShardNotReplicated    = dsdb.Errorf(dsdb.KindConflict, "shard not replicated")
	ErrShardNotFound         = dsdb.Errorf(dsdb.KindNotFound, "shard not found")
	ErrUsernameRequired      = dsdb.Errorf(dsdb.KindInvalid, "username required")
	ErrUserExists            = dsdb.Errorf(dsdb.KindConflict, "user already exists")
	ErrUserNotFound          = dsdb.Errorf(dsdb.KindNotFound, "user not found")
)

func errDatabaseNotFound(name string) error {
	return dsdb.Errorf(dsdb.KindNotFound, "database not found: %s", name)
}

func errPolicyNotFound(name string) error {
	return dsdb.Errorf(dsdb.KindNotFound, "retention policy not found: %s", name)
}

func errReplicaNotFound(group dsdb.GroupID, id dsdb.ReplicaID) error {
	return dsdb.Errorf(dsdb.KindNotFound, "group %d has no replica %d", group, id)
}
