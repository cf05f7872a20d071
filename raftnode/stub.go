package raftnode

import "github.com/dasudian/dsdb"

type SendTask struct {
	Node     dsdb.NodeID
	Snapshot Snapshot
}
type incoming struct {
	snapshot Snapshot
	dir      string
}

func (c *Core) Matched(id dsdb.GroupID, index uint64, w Waiter)            {}
func (c *Core) Change(id dsdb.GroupID, changes []Change, w Waiter)         {}
func (c *Core) Transfer(id dsdb.GroupID, to dsdb.ReplicaID, w Waiter)      {}
func (c *Core) PeerDown(node dsdb.NodeID)                                  {}
func (c *Core) Unreachable(node dsdb.NodeID)                               {}
func (c *Core) Install(from dsdb.NodeID, s Snapshot, dir string, w Waiter) {}
func (c *Core) SnapshotSent(s SendTask, err error)                         {}
