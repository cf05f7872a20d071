package server

import (
	"context"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
)

// showEnv answers SHOW statements from the session's catalogue and shards.
type showEnv struct {
	*session
	user *httpd.User
}

// Open implements exec.ShowEnv.
func (e *showEnv) Open(ctx context.Context, id dsdb.ShardID) (exec.Source, error) {
	return e.open(ctx, id)
}

// Fields implements exec.ShowEnv.
func (e *showEnv) Fields(db, rp, measurement string, r dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	return fields(e.view, db, rp, measurement, r)
}

// Catalogue implements exec.ShowEnv.
func (e *showEnv) Catalogue(context.Context) (*exec.ShowCatalogue, error) {
	view := e.view
	c := &exec.ShowCatalogue{Data: serverRows(view, meta.DataNode), Meta: serverRows(view, meta.MetaNode)}
	for _, db := range view.DatabasesByAge() {
		if e.n.visible(e.user, db.Name) {
			c.Databases = append(c.Databases, databaseRow(db))
		}
	}
	for _, u := range view.Users {
		row := exec.UserRow{Name: u.Name, Admin: u.Admin}
		for _, g := range u.Privileges {
			row.Grants = append(row.Grants, exec.GrantRow{Database: g.Database, Right: g.Privilege.String()})
		}
		c.Users = append(c.Users, row)
	}
	return c, nil
}

func databaseRow(db *meta.Database) exec.DatabaseRow {
	row := exec.DatabaseRow{Name: db.Name}
	for _, rp := range db.Policies {
		row.Policies = append(row.Policies, exec.PolicyRow{Name: rp.Name, Duration: rp.Duration,
			ShardDuration: rp.ShardGroupDuration, Replication: rp.ReplicaN, Default: rp.Name == db.DefaultPolicy})
		for _, g := range rp.ShardGroups {
			group := exec.GroupRow{ID: g.ID, Policy: rp.Name, Range: g.Range, Expiry: rp.Expiry(g)}
			for _, s := range g.Shards {
				group.Shards = append(group.Shards, exec.ShardRow{ID: s.ID, Owners: s.Owners()})
			}
			row.Groups = append(row.Groups, group)
		}
	}
	return row
}
