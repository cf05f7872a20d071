package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/influxdata/influxql"
	"golang.org/x/crypto/bcrypt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/shard"
)

// command changes the catalogue through its raft group. When it returns nil
// this node's View includes the change.
func (n *Node) command(ctx context.Context, c meta.Command) error {
	v, err := n.host.Propose(ctx, dsdb.MetaGroup, meta.Encode(c))
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || dsdb.KindOf(err) == dsdb.KindTimeout {
			return dsdb.Errorf(dsdb.KindTimeout, "timeout: the change may have been made")
		}
		return err
	}
	return v.Err()
}

// execute carries out a statement that changes something.
func (n *Node) execute(ctx context.Context, c *planner.Command) error {
	switch c.Kind {
	case planner.DropMeasurement, planner.DropSeries, planner.DeleteRows:
		return n.delete(ctx, c)
	case planner.CreateUser, planner.SetPassword, planner.DropUser, planner.Grant, planner.Revoke:
		return n.executeUser(ctx, c)
	}
	m, err := n.databaseCommand(c)
	if err != nil {
		return err
	}
	return n.command(ctx, m)
}

// databaseCommand translates statements about databases, policies and shards.
func (n *Node) databaseCommand(c *planner.Command) (meta.Command, error) {
	switch c.Kind {
	case planner.CreateDatabase:
		m := &meta.CreateDatabase{Name: c.Database, NoPolicy: !n.cfg.Meta.RetentionAutocreate}
		if c.Policy != nil {
			p := policySpec(c.Policy)
			m.Policy = &p
		}
		return m, nil
	case planner.DropDatabase:
		return &meta.DropDatabase{Name: c.Database}, nil
	case planner.CreatePolicy:
		return &meta.CreateRetentionPolicy{Database: c.Database, Policy: policySpec(c.Policy), Default: c.Policy.Default}, nil
	case planner.AlterPolicy:
		return &meta.UpdateRetentionPolicy{Database: c.Database, Name: c.Name, Duration: c.Policy.Duration,
			ReplicaN: c.Policy.Replication, ShardGroupDuration: c.Policy.ShardDuration, Default: c.Policy.Default}, nil
	case planner.DropPolicy:
		return &meta.DropRetentionPolicy{Database: c.Database, Name: c.Name}, nil
	case planner.DropShard:
		return &meta.DropShard{ID: c.Shard, Now: time.Now().UnixNano()}, nil
	}
	return nil, fmt.Errorf("statement %v has no execution", c.Kind)
}

func policySpec(p *planner.PolicySpec) meta.PolicySpec {
	s := meta.PolicySpec{Name: p.Name, Duration: p.Duration, ReplicaN: p.Replication}
	if p.ShardDuration != nil {
		s.ShardGroupDuration = *p.ShardDuration
	}
	return s
}

// executeUser carries out a statement about users. Hashing happens here, once,
// so that every replica of the catalogue holds the same hash.
func (n *Node) executeUser(ctx context.Context, c *planner.Command) error {
	switch c.Kind {
	case planner.DropUser:
		return n.command(ctx, &meta.DropUser{Name: c.Name})
	case planner.CreateUser, planner.SetPassword:
		if u := n.meta.View().User(c.Name); u != nil && c.Kind == planner.CreateUser {
			return sameUser(u, c)
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(c.Password), bcrypt.DefaultCost)
		if err != nil { // longer than 72 bytes
			return dsdb.Errorf(dsdb.KindInvalid, "password: %w", err)
		}
		if c.Kind == planner.CreateUser {
			return n.command(ctx, &meta.CreateUser{Name: c.Name, Hash: string(hash), Admin: c.Admin})
		}
		return n.command(ctx, &meta.SetPassword{Name: c.Name, Hash: string(hash)})
	}
	if c.Admin {
		return n.command(ctx, &meta.SetAdmin{Name: c.Name, Admin: c.Kind == planner.Grant})
	}
	right := privilege(c.Right)
	if c.Kind == planner.Revoke {
		held := meta.NoPrivileges
		if u := n.meta.View().User(c.Name); u != nil {
			held = u.Privilege(c.Database)
		}
		right = held &^ right // read and write are bits of all
	}
	return n.command(ctx, &meta.SetPrivilege{User: c.Name, Database: c.Database, Privilege: right})
}

// sameUser makes it no error to create a user once more in the same way.
func sameUser(u *meta.User, c *planner.Command) error {
	if u.Admin != c.Admin || bcrypt.CompareHashAndPassword([]byte(u.Hash), []byte(c.Password)) != nil {
		return meta.ErrUserExists
	}
	return nil
}

func privilege(p influxql.Privilege) meta.Privilege {
	switch p {
	case influxql.ReadPrivilege:
		return meta.ReadPrivilege
	case influxql.WritePrivilege:
		return meta.WritePrivilege
	case influxql.AllPrivileges:
		return meta.AllPrivileges
	}
	return meta.NoPrivileges
}

// delete proposes the deletion to every shard that may hold such rows, and
// forgets the field types of measurements that are gone.
func (n *Node) delete(ctx context.Context, c *planner.Command) error {
	d := c.Delete
	if d.Nothing {
		return nil
	}
	for _, t := range d.Targets {
		for _, ps := range t.Shards {
			if err := n.deleteFrom(ctx, ps.ID, &t, c); err != nil {
				return err
			}
		}
	}
	if c.Kind == planner.DropMeasurement {
		return n.command(ctx, &meta.DropMeasurement{Database: c.Database, Measurement: c.Name})
	}
	return n.forgetMeasurements(ctx, c.Database)
}

func (n *Node) deleteFrom(ctx context.Context, id dsdb.ShardID, t *planner.Target, c *planner.Command) error {
	del := shard.Delete{Where: c.Delete.Where, Range: c.Delete.Range,
		DropSeries: c.Kind != planner.DeleteRows || c.Delete.Range == dsdb.AllTime}
	if t.Name != "" || t.Regex != nil {
		names, err := n.measurementsOf(id)
		if err != nil {
			return err
		}
		del.Measurements = []string{}
		for _, m := range names {
			if t.Matches(m) {
				del.Measurements = append(del.Measurements, m)
			}
		}
		if len(del.Measurements) == 0 {
			return nil
		}
	}
	v, err := n.host.Propose(ctx, id.Group(), shard.AppendDelete(nil, dsdb.ProposalID{}, del))
	if err != nil {
		return err
	}
	return v.Err()
}

func (n *Node) measurementsOf(id dsdb.ShardID) ([]string, error) {
	sh, err := n.shards.get(id)
	if err != nil {
		return nil, err
	}
	src, err := sh.Source()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return src.Measurements(context.Background())
}

// forgetMeasurements frees the field types of measurements without any series.
func (n *Node) forgetMeasurements(ctx context.Context, database string) error {
	view := n.meta.View()
	db := view.Database(database)
	if db == nil {
		return nil
	}
	left, err := (&catalog{view, n.shards}).Measurements(database, "")
	if err != nil {
		return err
	}
	stored := make(map[string]bool, len(left))
	for _, m := range left {
		stored[m] = true
	}
	var groups []*meta.ShardGroup
	for _, rp := range db.Policies {
		groups = append(groups, rp.ShardGroups...)
	}
	for _, m := range meta.Measurements(groups) {
		if !stored[m] {
			if err := n.command(ctx, &meta.DropMeasurement{Database: database, Measurement: m}); err != nil {
				return err
			}
		}
	}
	return nil
}
