package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/influxdata/influxql"
	"golang.org/x/crypto/bcrypt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
)

// command changes the catalogue through its raft group. When it returns nil
// this node's View includes the change.
func (n *Node) command(ctx context.Context, c meta.Command) error {
	ctx, cancel := n.bound(ctx)
	defer cancel()
	v, err := n.propose(ctx, dsdb.MetaGroup, func(id dsdb.ProposalID) []byte { return meta.Encode(id, c) })
	switch {
	case dsdb.KindOf(err) == dsdb.KindTimeout || errors.Is(err, context.DeadlineExceeded):
		if lack := n.lackOfQuorum(); lack != "" {
			return dsdb.Errorf(dsdb.KindTimeout, "%s; the change may still be made", lack)
		}
		return dsdb.Errorf(dsdb.KindTimeout, "timeout: the change may have been made")
	case err != nil:
		return n.withoutQuorum(err)
	}
	if err := n.meta.Wait(ctx, v.Index); err != nil {
		return dsdb.Errorf(dsdb.KindTimeout, "timeout: the change was made, but has not reached this node: %w", err)
	}
	return v.Err()
}

// withoutQuorum words why the catalogue was not changed, or not read: if too few
// of those who vote on it can be reached, that is it.
func (n *Node) withoutQuorum(err error) error {
	if dsdb.KindOf(err) != dsdb.KindUnavailable {
		return err
	}
	if lack := n.lackOfQuorum(); lack != "" {
		return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: lack, Err: err}
	}
	return err
}

// lackOfQuorum says how many of the meta nodes that decide are reachable if that
// is too few, or why this node is none of the cluster any more; else "".
func (n *Node) lackOfQuorum() string {
	if why := n.phase.ended(); why != "" {
		return why
	}
	if reached, voters, _ := n.quorum(); reached <= voters/2 && !mutant.QuorumUnsaid {
		return fmt.Sprintf(noQuorum+": %d/%d meta nodes reachable", reached, voters)
	}
	return ""
}

// cutOff says why this node can do little for clients, "" if it can: it reaches a
// majority neither of the meta nodes nor of the data nodes. The latter alone will do
// for points.
func (n *Node) cutOff() string {
	lack, all := n.lackOfQuorum(), len(n.meta.View().NodesOf(meta.DataNode))
	if reached := all - len(n.unreached()); lack != "" && reached <= all/2 {
		return fmt.Sprintf("%s, and %d/%d data nodes", lack, reached, all)
	}
	return ""
}

// noSpace says that points are refused here for want of space, and that no data node
// can be expected to take them instead, with what is to be done; else it is nil.
func (n *Node) noSpace() error {
	why := n.host.Refusing()
	if !vfs.NoSpace(why) {
		return nil
	}
	view := n.meta.View()
	for _, node := range view.NodesOf(meta.DataNode) {
		if p, _ := view.ProcessOf(node.ID); !n.is(node.ID) && !p.DataFull && n.up(node.ID) {
			return nil
		}
	}
	return dsdb.Errorf(dsdb.KindUnavailable, "no points are taken: the disk is full: drop databases or shards, shorten retention policies, or give it more space: %w", why)
}

// up reports whether a node is this one, or one that is connected and heard of.
func (n *Node) up(node dsdb.NodeID) bool { return n.is(node) || n.peers.Up(node) }

// unreached returns the data nodes that this node does not reach.
func (n *Node) unreached() []dsdb.NodeID {
	var ids []dsdb.NodeID
	for _, node := range n.meta.View().NodesOf(meta.DataNode) {
		if !n.up(node.ID) {
			ids = append(ids, node.ID)
		}
	}
	return ids
}

// execute carries out a statement that changes something. One that changes the
// catalogue has write-timeout, counted from when it was asked for.
func (n *Node) execute(ctx context.Context, s *session, c *planner.Command, began time.Time) error {
	switch c.Kind {
	case planner.DropMeasurement, planner.DropSeries, planner.DeleteRows:
		return n.delete(ctx, s, c)
	}
	if limit := time.Duration(n.cfg.Coordinator.WriteTimeout); limit > 0 && !mutant.WaitsForEver {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, began.Add(limit))
		defer cancel()
	}
	switch c.Kind {
	case planner.CreateUser, planner.SetPassword, planner.DropUser, planner.Grant, planner.Revoke:
		return n.executeUser(ctx, c)
	case planner.DropMetaServer, planner.DropDataServer:
		return n.dropServer(ctx, c)
	}
	m, err := n.databaseCommand(c)
	if err != nil {
		return err
	}
	if err := n.command(ctx, m); err != nil {
		return err
	}
	switch c.Kind {
	case planner.DropDatabase, planner.DropPolicy, planner.DropShard:
		n.tellDrop(ctx)
	}
	return nil
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
		return &meta.DropShard{ID: c.Shard, Now: n.opt.Wall().UnixNano()}, nil
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
