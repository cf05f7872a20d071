package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"path"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
	"github.com/dasudian/dsdb/wal"
)

// reportFailedEvery is how often a node looks for replicas of its own that are
// out of service.
const reportFailedEvery = 2 * time.Second

// quarantineFile lies in the folder of a replica of which the log may have lost
// entries. The log itself remembers that of the groups it knows; this file does
// so of one that the damage made it forget, which would be taken for new.
const quarantineFile = "QUARANTINE"

// damage is what the recovery of the log could not prove to be whole.
type damage struct {
	suspect map[dsdb.GroupID]bool
	lost    []wal.Range // if any, a group that the log does not know may have been in it
}

// logReport says what the recovery of the log found; damage is never silent.
func (n *Node) logReport(r wal.Report, d time.Duration) {
	level, text := slog.LevelDebug, "log recovered"
	switch {
	case len(r.Corrupt)+len(r.Suspect) > 0:
		level, text = slog.LevelError, "the log is damaged: replicas that may have lost entries are kept out of service"
	case !r.Clean && r.Segments > 0:
		level, text = slog.LevelInfo, "log recovered after an unclean stop"
	}
	attrs := []any{"segments", r.Segments, "batches", r.Batches, "bytes", r.Bytes, "duration", d.Seconds()}
	if r.Torn != nil {
		attrs = append(attrs, "torn", r.Torn.String(), "copy", r.TornCopy)
	}
	if level == slog.LevelError {
		attrs = append(attrs, "corrupt", r.Corrupt, "suspect", r.Suspect)
	}
	n.log.Log(context.Background(), level, text, attrs...)
	n.damage = damage{suspect: map[dsdb.GroupID]bool{}, lost: r.Corrupt}
	for _, g := range r.Suspect {
		n.damage.suspect[g] = true
	}
}

// quarantined reports whether a replica of g whose files lie in dir may have
// lost entries, and sees to it that this is not forgotten. One that came in the
// place of a replica that did has not.
func (n *Node) quarantined(g dsdb.GroupID, replica dsdb.ReplicaID, dir string) (bool, error) {
	bad, noted, err := n.suspected(g, replica, dir)
	if err != nil || noted || !bad {
		return bad, err
	}
	if err := vfs.WriteFileAtomic(n.fs, path.Join(dir, quarantineFile), fmt.Appendf(nil, "the log was damaged, and this replica is not in it: %v\n", n.damage.lost)); err != nil {
		return true, fmt.Errorf("quarantine raft group %d: %w", g, err)
	}
	return true, nil
}

// suspected reports what quarantined does, and whether that is noted, in the log or
// by a file.
func (n *Node) suspected(g dsdb.GroupID, replica dsdb.ReplicaID, dir string) (bad, noted bool, err error) {
	st, known := n.wal.State(g)
	if known && n.damage.suspect[g] && st.Replica == replica {
		return true, true, nil
	}
	if _, err := n.fs.Stat(path.Join(dir, quarantineFile)); err == nil || !errors.Is(err, iofs.ErrNotExist) {
		return true, true, err
	}
	return !known && len(n.damage.lost) > 0, false, nil
}

// reportFailed has the catalogue note which replicas of this node are out of
// service, so that they are replaced. The only replica of a shard stays: what is
// left of it may be all there is.
func (n *Node) reportFailed(ctx context.Context, _ time.Time) error {
	view := n.meta.View()
	for _, f := range n.shards.failed() {
		ref, found := view.Shard(f.shard)
		if !found {
			continue
		}
		r, here := ref.Shard.On(n.dataID)
		if !here || r.ID != f.replica || r.Role == meta.Failed || others(ref.Shard, r.ID) == 0 {
			continue
		}
		err := n.command(ctx, &meta.ReplicaFailed{Group: f.shard.Group(), Replica: f.replica, Reason: f.err.Error()})
		if err != nil {
			return fmt.Errorf("replica %d of shard %d: %w", f.replica, f.shard, err)
		}
		n.log.Warn("a damaged replica is to be replaced", "shard", f.shard, "replica", f.replica, "err", f.err)
	}
	return nil
}

// others counts the whole replicas of a shard beside one.
func others(sh meta.Shard, id dsdb.ReplicaID) (count int) {
	for _, r := range sh.Replicas {
		if r.ID != id && r.Whole() {
			count++
		}
	}
	return count
}

// readable reports why a query is not to be answered from this node's replica
// of a shard: files of it are damaged, and others hold the same. The only
// replica answers what it can.
func (n *Node) readable(id dsdb.ShardID, sh *shard.Shard) error {
	err := sh.Damage()
	if err == nil {
		return nil
	}
	ref, found := n.meta.View().Shard(id)
	if !found {
		return nil
	}
	if r, here := ref.Shard.On(n.dataID); !here || others(ref.Shard, r.ID) == 0 {
		return nil
	}
	return dsdb.Errorf(dsdb.KindUnavailable, "the replica here is damaged: %w", err)
}

// filesOnly reports whether a shard is out of service because its log is damaged, its
// files are not, and no other node has a copy: then its files are the best there is
// to read, for who does not mind to miss something.
func (n *Node) filesOnly(id dsdb.ShardID) bool {
	if dsdb.KindOf(n.host.Status(id.Group()).Failed) != dsdb.KindCorrupt {
		return false
	}
	sh, err := n.shards.get(id)
	ref, found := n.meta.View().Shard(id)
	return err == nil && found && sh.Damage() == nil && len(ref.Shard.Replicas) == 1 && !n.filesMissing(id)
}

// filesMissing reports whether the log of a shard, which is whole, begins behind what
// the shard has in its files.
func (n *Node) filesMissing(id dsdb.ShardID) bool {
	sh, err := n.shards.get(id)
	st, known := n.wal.State(id.Group())
	return err == nil && known && raftnode.FilesMissing(id.Group(), st, sh.FlushedIndex()) != nil
}

// openFiles opens what a shard has in its files.
func (n *Node) openFiles(id dsdb.ShardID) (exec.Source, error) {
	sh, err := n.shards.get(id)
	if err != nil {
		return nil, err
	}
	return sh.Source()
}

// meansDamage reports whether an error of a statement says that files are not
// what was written, or gone.
func meansDamage(err error) bool {
	return err != nil && (dsdb.KindOf(err) == dsdb.KindCorrupt || errors.Is(err, iofs.ErrNotExist))
}

// transport brings messages and snapshots to other nodes. A snapshot that
// arrives damaged makes this node look at the files that it was made of.
type transport struct {
	*rpc.Peers
	n *Node
}

// SendSnapshot implements raftnode.Transport.
func (t transport) SendSnapshot(to dsdb.NodeID, s *raftnode.OutgoingSnapshot) {
	done, g := s.Done, s.Envelope.Group
	s.Done = func(err error) {
		if g != dsdb.MetaGroup && dsdb.KindOf(err) == dsdb.KindCorrupt {
			if sh, err := t.n.shards.get(dsdb.ShardID(g)); err == nil {
				_ = sh.CheckFiles(t.n.running) // the shard remembers
			}
		}
		done(err)
	}
	t.Peers.SendSnapshot(to, s)
}

// broken returns why a replica of this node is out of service for good, nil if it is
// not: one that raft does not run here, not yet or no longer, is not so by that, nor is
// one that waits for a newer program.
func broken(st raftnode.GroupStatus) error {
	if st.Replica == 0 || dsdb.KindOf(st.Failed) == dsdb.KindNotLeader || errors.Is(st.Failed, dsdb.ErrNewer) {
		return nil
	}
	return st.Failed
}

// failedReplica is a replica of this node that is out of service.
type failedReplica struct {
	shard   dsdb.ShardID
	replica dsdb.ReplicaID
	err     error
}

// failed lists the replicas that are out of service for good, by shard.
func (s *shards) failed() []failedReplica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []failedReplica
	for id, r := range s.held {
		err := r.err
		if err == nil {
			err = broken(s.n.host.Status(id.Group()))
		}
		if err == nil && r.shard != nil {
			err = r.shard.Damage()
		}
		if err != nil && !errors.Is(err, dsdb.ErrNewer) { // which a newer program will take up
			out = append(out, failedReplica{id, r.id, err})
		}
	}
	slices.SortFunc(out, func(a, b failedReplica) int { return cmp.Compare(a.shard, b.shard) })
	return out
}
