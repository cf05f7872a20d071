package raftnode

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// newerEntry returns dsdb.ErrNewer, and which format it is about, for an entry
// whose envelope this program cannot read as it is too old.
func newerEntry(e *raftpb.Entry) (err error) {
	switch {
	case e.GetType() != raftpb.EntryNormal:
		_, _, _, err = openChange(e.GetType(), e.GetData())
	case len(e.GetData()) > 0:
		_, _, _, err = openProposal(e.GetData())
	}
	if errors.Is(err, dsdb.ErrNewer) {
		return err
	}
	return nil
}

// halt keeps a replica from applying anything, as the next entry is one that only
// a newer program can apply. It goes on in raft: it has the log and votes, so that
// those who can go on do. It answers nothing and does not stay leader. A newer
// program goes on from the log. Until then that grows, as far as there is space:
// what is in it counts for a quorum, and is nowhere else here. A full disk has the
// node take nothing more, like any other.
func (c *Core) halt(g *group, err error) {
	if g.halted != nil {
		return
	}
	c.logger.Error("raft replica applies nothing more until this node is upgraded", "group", uint64(g.id), "error", err)
	g.halted = err
	g.progress.failed.Store(&err)
	g.failAll(c, g.failedError())
	c.guard(g, func() { c.standAside(g) })
	c.touch(g)
}

// standAside has a halted leader hand on its leadership, if there is another voter
// for it. That may be halted too: so it is not done often.
func (c *Core) standAside(g *group) {
	if g.halted == nil || !g.seen.leading {
		return
	}
	if heir := g.successor(0, nil); heir != 0 {
		g.node.TransferLeader(uint64(heir))
		c.touch(g)
	}
}

// installable reports whether the snapshot whose installation has failed, or a
// later one, may be installed yet, and the state machine is as it was.
func installable(err error) bool {
	return vfs.NoSpace(err) || dsdb.KindOf(err) == dsdb.KindUnavailable || errors.Is(err, dsdb.ErrNewer)
}

// reopen gives up an installation that has failed. Raft has taken the snapshot,
// the state machine and the log have not: so raft begins anew from those, as it
// would after a crash, but for what is applied and not flushed.
func (c *Core) reopen(old *group, err error) {
	c.logger.Warn("raft snapshot is not installed", "group", uint64(old.id), "replica", old.seen.replica, "error", err)
	c.result(old.incoming.waiter, err)
	old.incoming = nil
	old.failAll(c, err)
	c.dropReady(old)
	c.setClock(old, false)
	old.failed = fmt.Errorf("begun anew: %w", err) // what is under way for it is dropped
	g := c.newGroup(old.id, old.seen.replica, old.machine, old.progress)
	g.contacts, g.clock.now, g.clock.raft = old.contacts, old.clock.now, old.clock.raft
	state, known := c.log.State(g.id)
	c.guard(g, func() { c.open(g, state, known, old.store.applied) })
}
