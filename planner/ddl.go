package planner

import (
	"time"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// Command is a statement that changes something: the server carries it out.
// The members that Kind does not name are zero.
type Command struct {
	Kind     CommandKind
	Database string
	Name     string // of the policy, measurement or user

	Policy   *PolicySpec // of CreateDatabase (nil: no WITH), CreatePolicy, AlterPolicy
	Delete   *Deletion   // of DropMeasurement, DropSeries, DeleteRows
	Shard    dsdb.ShardID
	Node     dsdb.NodeID // of DropMetaServer, DropDataServer
	Force    bool        // of DropDataServer: though a last copy of points goes
	Password string
	Admin    bool // of CreateUser: WITH ALL PRIVILEGES; of Grant, Revoke: of everything, Database is ""
	Right    influxql.Privilege
}

// CommandKind says what a Command does.
type CommandKind uint8

// The kinds of commands.
const (
	CreateDatabase CommandKind = iota
	DropDatabase
	CreatePolicy
	AlterPolicy
	DropPolicy
	DropMeasurement
	DropSeries
	DeleteRows
	DropShard
	CreateUser
	DropUser
	SetPassword
	Grant
	Revoke
	DropMetaServer
	DropDataServer
)

var commandNames = [...]string{
	"create database", "drop database", "create retention policy", "alter retention policy",
	"drop retention policy", "drop measurement", "drop series", "delete", "drop shard",
	"create user", "drop user", "set password", "grant", "revoke",
	"drop meta server", "drop data server",
}

// String returns the statement's first words.
func (k CommandKind) String() string { return commandNames[k] }

// PolicySpec is what a statement says about a retention policy. A nil member is not said.
type PolicySpec struct {
	Name          string         // "": the default name
	Duration      *time.Duration // 0: for ever
	Replication   *int
	ShardDuration *time.Duration // 0: chosen from Duration
	Default       bool
}

// Deletion is which rows go: those of the series of Targets' measurements that
// match Where, within Range (AllTime: the series goes too).
type Deletion struct {
	Targets []Target
	Where   *dsdb.TagExpr // nil: all series
	Nothing bool          // WHERE is false whatever is stored
	Range   dsdb.TimeRange
}

// compileCommand compiles every statement that is neither SELECT nor SHOW.
func compileCommand(stmt influxql.Statement, c Catalog, o Options) (Plan, error) {
	cmd, err := databaseCommand(stmt, o)
	if cmd == nil && err == nil {
		cmd, err = userCommand(stmt)
	}
	if cmd == nil && err == nil {
		cmd, err = deleteCommand(stmt, c, o)
	}
	if err != nil {
		return nil, err
	}
	if cmd == nil {
		return nil, unsupported(statementName(stmt))
	}
	return cmd, nil
}
