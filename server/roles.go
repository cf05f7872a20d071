package server

import (
	"context"
	"errors"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// errNewIDs ends a start in which this node has got ids that it did not have when
// it began: everything that knows it by its ids is to be opened anew.
var errNewIDs = errors.New("this node has new ids")

// settleRoles makes the catalogue have this node in the roles that its
// configuration wants. It waits for a quorum of the meta nodes. What is refused is
// logged, and the node goes on in the roles that it has; see followRoles.
func (n *Node) settleRoles(ctx context.Context) error {
	want := n.wantedRoles()
	if ids := want.Denied(n.meta.View()); len(ids) > 0 {
		n.log.Warn("a role that was dropped stays so: to take it up again, start this node once with enabled = false for it", "nodes", ids)
	}
	self, _ := n.meta.View().Process(n.id.UUID)
	more := &meta.SetRoles{UUID: want.UUID, Meta: want.Meta || self.Is(meta.MetaNode), Data: want.Data || self.Is(meta.DataNode)}
	for _, c := range []*meta.SetRoles{more, want} { // what it gives up it may have to keep
		if err := n.setRoles(ctx, c); err != nil {
			return err
		}
	}
	self, _ = n.meta.View().Process(n.id.UUID)
	if self.MetaID == n.id.MetaID && self.DataID == n.id.DataID {
		return nil
	}
	id := n.id
	id.MetaID, id.DataID = self.MetaID, self.DataID
	if err := n.settle(id); err != nil {
		return err
	}
	n.log.Info("this node begins again under the ids of its roles", "meta_id", id.MetaID, "data_id", id.DataID)
	return errNewIDs
}

// wantedRoles are those of the configuration.
func (n *Node) wantedRoles() *meta.SetRoles {
	return &meta.SetRoles{UUID: n.id.UUID, Meta: n.cfg.Meta.Enabled, Data: n.cfg.Data.Enabled}
}

// setRoles changes the roles of this node, waiting for a quorum, or logs why not.
func (n *Node) setRoles(ctx context.Context, c *meta.SetRoles) error {
	if !c.Changes(n.meta.View()) {
		return nil
	}
	n.log.Info("[meta] enabled or [data] enabled has changed: so do the roles of this node", "meta", c.Meta, "data", c.Data)
	for {
		err := n.command(ctx, c)
		switch dsdb.KindOf(err) {
		case dsdb.KindUnavailable, dsdb.KindTimeout, dsdb.KindNotLeader:
		default:
			if err != nil {
				n.log.Error("this node keeps its roles", "err", err)
				return nil
			}
			return n.flushMeta()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.phase.say(n.log, n.missingQuorum()+", to change the roles of this node")
	}
}

// followRoles gives up, once other nodes have come that can take over, the roles
// that this node has had to keep.
func (n *Node) followRoles(ctx context.Context) {
	want := n.wantedRoles()
	last := n.meta.View().Processes
	for {
		changed := n.meta.Watch()
		if view := n.meta.View(); !sameProcesses(last, view.Processes) {
			last = view.Processes
			if want.Changes(view) {
				if err := n.command(ctx, want); err != nil && ctx.Err() == nil {
					n.log.Warn("this node keeps its roles", "err", err)
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
