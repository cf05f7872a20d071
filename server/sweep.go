package server

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
)

// incomingFolder, in the folder of the catalogue or of the points, is where
// snapshots from other nodes lie while they arrive.
const incomingFolder = "incoming"

// sweepIncoming removes what arriving snapshots left when the node ended.
func (n *Node) sweepIncoming() error {
	return errors.Join(rpc.Sweep(n.fs, path.Join(n.cfg.Meta.Dir, incomingFolder)), rpc.Sweep(n.fs, path.Join(n.cfg.Data.Dir, incomingFolder)))
}

// sweep removes the folders of replicas that the catalogue had here once: those
// whose removal a crash cut short. Where this node has the only copy of the
// catalogue, a shard that it has not given
// out yet shows that the copy is an old one: its next shards would find the
// points of others.
func (s *shards) sweep(view *meta.Data) error {
	names, err := s.n.fs.List(s.root())
	if err != nil {
		return err
	}
	for _, name := range names {
		id, replica, ok := parseFolder(name)
		if !ok {
			continue
		}
		if id > view.Counters.Shard && len(view.MetaReplicas) <= 1 {
			return dsdb.Errorf(dsdb.KindCorrupt, "%s holds shard %d, but the catalogue has given out %d only: later changes of the catalogue are lost with the log in %s: have dsdbd recover tell what it can go on with, or restore the node's folders from a copy",
				s.root(), id, view.Counters.Shard, s.n.cfg.Data.WALDir)
		}
		if ref, found := view.Shard(id); !s.abandoned(view, id, replica) || found && s.origin(ref.Shard) == name {
			continue
		}
		if err := shard.Remove(s.n.fs, path.Join(s.root(), name)); err != nil {
			return err
		}
		s.n.log.Info("removed the files of a dropped shard", "shard", id)
	}
	return nil
}

// parseFolder is the inverse of how dir names folders: replica is 0 for a founder's.
func parseFolder(name string) (id dsdb.ShardID, replica dsdb.ReplicaID, ok bool) {
	first, second, later := strings.Cut(name, ".")
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if later {
		r, err := strconv.ParseUint(second, 10, 64)
		return dsdb.ShardID(n), dsdb.ReplicaID(r), err == nil && r > 0
	}
	return dsdb.ShardID(n), 0, true
}

// abandoned reports whether the folder of a replica is of no use any more. A
// catalogue that is behind may not know the newest replicas yet.
func (s *shards) abandoned(view *meta.Data, id dsdb.ShardID, replica dsdb.ReplicaID) bool {
	ref, found := view.Shard(id)
	if !found {
		return view.ShardDropped(id)
	}
	placed, here := ref.Shard.On(s.n.dataID)
	if replica == 0 {
		return !here || !ref.Shard.Named(placed.ID)
	}
	return replica <= view.Counters.Replica && (!here || placed.ID != replica)
}

// forget erases from the log the replicas that the catalogue had here once: what
// a crash left of them would keep the log from shrinking.
func (s *shards) forget(ctx context.Context, view *meta.Data) error {
	for _, g := range s.n.wal.Groups() {
		st, known := s.n.wal.State(g)
		if g == dsdb.MetaGroup || !known {
			continue
		}
		placed, here := s.placed(view, dsdb.ShardID(g))
		if ref, found := view.Shard(dsdb.ShardID(g)); found && s.originates(ref.Shard) {
			continue
		}
		if !view.ShardDropped(dsdb.ShardID(g)) && (here && placed.ID == st.Replica || st.Replica > view.Counters.Replica) {
			continue
		}
		if err := s.n.host.Remove(ctx, g); err != nil {
			return fmt.Errorf("forget raft group %d: %w", g, err)
		}
	}
	return nil
}

func (s *shards) close() {
	for _, sh := range s.list() {
		if err := sh.Close(); err != nil {
			s.n.log.Warn("closing a shard", "shard", sh.id, "err", err)
		}
	}
}

// incoming says where snapshots of a group are put while they arrive.
func (n *Node) incoming(g dsdb.GroupID) (vfs.FS, string, error) {
	if g == dsdb.MetaGroup {
		return n.fs, path.Join(n.cfg.Meta.Dir, incomingFolder), nil
	}
	return n.fs, path.Join(n.cfg.Data.Dir, incomingFolder), nil
}

// files says where the files of this node's replica of a group lie.
func (n *Node) files(g dsdb.GroupID) (vfs.FS, string, error) {
	if g == dsdb.MetaGroup {
		return n.fs, n.catalogueDir(), nil
	}
	dir, err := n.shards.folder(dsdb.ShardID(g))
	return n.fs, dir, err
}
