package planner

import (
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
	"github.com/influxdata/influxql"
)

// databaseCommand compiles statements about databases, policies, shards and nodes;
// nil for others. Whether names exist is for the meta store to say.
func databaseCommand(stmt influxql.Statement, o Options) (*Command, error) {
	switch st := stmt.(type) {
	case *influxql.CreateDatabaseStatement:
		return createDatabase(st)
	case *influxql.DropDatabaseStatement:
		return &Command{Kind: DropDatabase, Database: st.Name}, nil
	case *influxql.CreateRetentionPolicyStatement:
		if err := noWriteLimits(&st.FutureWriteLimit, &st.PastWriteLimit); err != nil {
			return nil, err
		}
		return policyCommand(CreatePolicy, st.Database, PolicySpec{
			Name: st.Name, Duration: &st.Duration, Replication: &st.Replication,
			ShardDuration: &st.ShardGroupDuration, Default: st.Default,
		}, o)
	case *influxql.AlterRetentionPolicyStatement:
		if err := noWriteLimits(st.FutureWriteLimit, st.PastWriteLimit); err != nil {
			return nil, err
		}
		return policyCommand(AlterPolicy, st.Database, PolicySpec{
			Name: st.Name, Duration: st.Duration, Replication: st.Replication,
			ShardDuration: st.ShardGroupDuration, Default: st.Default,
		}, o)
	case *influxql.DropRetentionPolicyStatement:
		return policyCommand(DropPolicy, st.Database, PolicySpec{Name: st.Name}, o)
	case *influxql.DropShardStatement:
		return &Command{Kind: DropShard, Shard: dsdb.ShardID(st.ID)}, nil
	case *ql.DropServer:
		c := &Command{Kind: DropDataServer, Node: dsdb.NodeID(st.ID), Force: st.Force}
		if st.Meta {
			c.Kind = DropMetaServer
		}
		return c, nil
	}
	return nil, nil
}

func createDatabase(st *influxql.CreateDatabaseStatement) (*Command, error) {
	if err := noWriteLimits(st.FutureWriteLimit, st.PastWriteLimit); err != nil {
		return nil, err
	}
	cmd := &Command{Kind: CreateDatabase, Database: st.Name}
	if !st.RetentionPolicyCreate {
		return cmd, nil
	}
	cmd.Policy = &PolicySpec{
		Name: st.RetentionPolicyName, Duration: st.RetentionPolicyDuration,
		Replication: st.RetentionPolicyReplication, Default: true,
	}
	if d := st.RetentionPolicyShardGroupDuration; d != 0 {
		cmd.Policy.ShardDuration = &d
	}
	return cmd, nil
}

func policyCommand(kind CommandKind, db string, spec PolicySpec, o Options) (*Command, error) {
	if db == "" {
		db = o.DefaultDB
	}
	if db == "" {
		return nil, invalid("database name required")
	}
	cmd := &Command{Kind: kind, Database: db, Name: spec.Name}
	if kind != DropPolicy {
		cmd.Policy = &spec
	}
	return cmd, nil
}

func noWriteLimits(limits ...*time.Duration) error {
	for _, l := range limits {
		if l != nil && *l != 0 {
			return unsupported("FUTURE LIMIT or PAST LIMIT")
		}
	}
	return nil
}

// userCommand compiles statements about users and their rights; nil for others.
func userCommand(stmt influxql.Statement) (*Command, error) {
	switch st := stmt.(type) {
	case *influxql.CreateUserStatement:
		return &Command{Kind: CreateUser, Name: st.Name, Password: st.Password, Admin: st.Admin}, nil
	case *influxql.DropUserStatement:
		return &Command{Kind: DropUser, Name: st.Name}, nil
	case *influxql.SetPasswordUserStatement:
		return &Command{Kind: SetPassword, Name: st.Name, Password: st.Password}, nil
	case *influxql.GrantStatement:
		return &Command{Kind: Grant, Database: st.On, Name: st.User, Right: st.Privilege}, nil
	case *influxql.GrantAdminStatement:
		return &Command{Kind: Grant, Name: st.User, Admin: true}, nil
	case *influxql.RevokeStatement:
		return &Command{Kind: Revoke, Database: st.On, Name: st.User, Right: st.Privilege}, nil
	case *influxql.RevokeAdminStatement:
		return &Command{Kind: Revoke, Name: st.User, Admin: true}, nil
	}
	return nil, nil
}

// statementName returns the keywords that a statement begins with.
func statementName(stmt influxql.Statement) string {
	var words []string
	for _, w := range strings.Fields(stmt.String()) {
		if w != strings.ToUpper(w) || strings.ContainsAny(w, `"0123456789`) {
			break
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}
