package exec

import (
	"strconv"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// showCatalogue answers the kinds that list the catalogue (columns as InfluxDB 1.8).
func showCatalogue(p *planner.Show, c *ShowCatalogue) ([]showTable, error) {
	switch p.Kind {
	case planner.ShowDatabases:
		t := showTable{name: "databases"}
		var names []string
		for _, db := range c.Databases {
			names = append(names, db.Name)
		}
		t.addStrings("name", names)
		return []showTable{t}, nil
	case planner.ShowPolicies:
		return showPolicies(p.Database, c)
	case planner.ShowShards:
		return showShards(c), nil
	case planner.ShowShardGroups:
		return showShardGroups(c), nil
	case planner.ShowUsers:
		return showUsers(c), nil
	case planner.ShowGrants:
		return showGrants(p.User, c)
	case planner.ShowServers:
		return []showTable{showServers("data_nodes", c.Data), showServers("meta_nodes", c.Meta)}, nil
	}
	panic("BUG: SHOW of kind " + p.Kind.String() + " is not about the catalogue")
}

func showPolicies(database string, c *ShowCatalogue) ([]showTable, error) {
	for _, db := range c.Databases {
		if db.Name != database {
			continue
		}
		var names, durations, spans []string
		var replicas, defaults []int64
		for _, p := range db.Policies {
			names = append(names, p.Name)
			durations = append(durations, p.Duration.String())
			spans = append(spans, p.ShardDuration.String())
			replicas = append(replicas, int64(p.Replication))
			defaults = append(defaults, boolInt(p.Default))
		}
		var t showTable
		t.addStrings("name", names)
		t.addStrings("duration", durations)
		t.addStrings("shardGroupDuration", spans)
		t.addInts("replicaN", dsdb.Integer, replicas)
		t.addInts("default", dsdb.Boolean, defaults)
		return []showTable{t}, nil
	}
	return nil, dsdb.Errorf(dsdb.KindNotFound, "database not found: %s", database)
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func rfc3339(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }

// groupColumns are the columns that SHOW SHARDS and SHOW SHARD GROUPS share.
type groupColumns struct {
	ids, groups                                 []int64
	databases, policies, starts, ends, expiries []string
}

func (g *groupColumns) add(id uint64, database string, row GroupRow) {
	g.ids = append(g.ids, int64(id))
	g.groups = append(g.groups, int64(row.ID))
	g.databases = append(g.databases, database)
	g.policies = append(g.policies, row.Policy)
	g.starts = append(g.starts, rfc3339(row.Range.Start))
	g.ends = append(g.ends, rfc3339(row.Range.End))
	g.expiries = append(g.expiries, rfc3339(row.Expiry))
}

// table lays the columns out; withGroup adds the id of the group after the policy.
func (g *groupColumns) table(name string, withGroup bool) showTable {
	t := showTable{name: name}
	t.addInts("id", dsdb.Integer, g.ids)
	t.addStrings("database", g.databases)
	t.addStrings("retention_policy", g.policies)
	if withGroup {
		t.addInts("shard_group", dsdb.Integer, g.groups)
	}
	t.addStrings("start_time", g.starts)
	t.addStrings("end_time", g.ends)
	t.addStrings("expiry_time", g.expiries)
	return t
}

func showShards(c *ShowCatalogue) []showTable {
	var out []showTable
	for _, db := range c.Databases {
		var g groupColumns
		var owners []string
		for _, group := range db.Groups {
			for _, s := range group.Shards {
				g.add(uint64(s.ID), db.Name, group)
				owners = append(owners, ownerList(s.Owners))
			}
		}
		t := g.table(db.Name, true)
		t.addStrings("owners", owners)
		out = append(out, t)
	}
	return out
}

func ownerList(owners []dsdb.NodeID) string {
	ids := make([]string, len(owners))
	for i, o := range owners {
		ids[i] = strconv.FormatUint(uint64(o), 10)
	}
	return strings.Join(ids, ",")
}

func showShardGroups(c *ShowCatalogue) []showTable {
	var g groupColumns
	for _, db := range c.Databases {
		for _, group := range db.Groups {
			g.add(group.ID, db.Name, group)
		}
	}
	return []showTable{g.table("shard groups", false)}
}

func showUsers(c *ShowCatalogue) []showTable {
	var names []string
	var admins []int64
	for _, u := range c.Users {
		names = append(names, u.Name)
		admins = append(admins, boolInt(u.Admin))
	}
	var t showTable
	t.addStrings("user", names)
	t.addInts("admin", dsdb.Boolean, admins)
	return []showTable{t}
}

func showGrants(user string, c *ShowCatalogue) ([]showTable, error) {
	for _, u := range c.Users {
		if u.Name != user {
			continue
		}
		var databases, rights []string
		for _, g := range u.Grants {
			databases = append(databases, g.Database)
			rights = append(rights, g.Right)
		}
		var t showTable
		t.addStrings("database", databases)
		t.addStrings("privilege", rights)
		return []showTable{t}, nil
	}
	return nil, dsdb.Errorf(dsdb.KindNotFound, "user not found")
}
