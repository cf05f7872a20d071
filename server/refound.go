package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/config"
)

// Remains describes a copy of a catalogue that has lost most of its voters.
type Remains struct {
	Self        string   // the node that has it
	Index, Term uint64   // of the last entry of its log
	Lost        []string // meta nodes that are given up
	Others      []string // nodes that get a new copy when they are started
}

// Refound has the cluster go on from this node's copy of the catalogue, of which
// most voters are lost for good: the node becomes the only one that decides, of a
// cluster with the same id. The lost ones are meta nodes no more; the others follow
// when they are started. Before anything is changed confirm is asked.
//
// It refuses while a dsdbd uses the folders, while another node answers, and if the
// voters that are not given up are a majority. After an error, or a crash, the same
// call goes on; the node does not start in between.
func Refound(ctx context.Context, cfg config.Config, fs vfs.FS, lost []dsdb.NodeID, confirm func(Remains) error) (err error) {
	n := &Node{cfg: cfg, fs: fs, log: slog.New(slog.DiscardHandler), logSyncs: newLogSyncs()}
	defer func() { err = errors.Join(err, n.undo()) }()
	if err := n.lockFolders(); err != nil {
		return err
	}
	if n.id, err = n.identity(); err != nil {
		return err
	}
	if n.id.ClusterID == 0 || n.id.MetaID == 0 {
		return fmt.Errorf("%s is not that of a meta node of a cluster", cfg.Meta.Dir)
	}
	if err := n.openLog(n.id); err != nil {
		return err
	}
	damage, err := n.openStore()
	if err = errors.Join(err, damage); err != nil {
		return err
	}
	if st, _ := n.wal.State(dsdb.MetaGroup); st.Replica > n.id.Replica {
		return n.becomeReplica(st.Replica) // a crash came in between
	}
	r := Remains{Self: nodeName(n.meta.View(), n.id.MetaID)}
	_, r.Index = n.wal.Bounds(dsdb.MetaGroup)
	if r.Term, err = n.wal.Term(dsdb.MetaGroup, r.Index); err != nil {
		return err
	}
	if err := n.succeedCatalogue(ctx, lost, &r); err != nil {
		return err
	}
	if err := confirm(r); err != nil {
		return err
	}
	return n.refound()
}

// succeedCatalogue brings the catalogue, in memory only, to where it goes on from,
// if that is allowed.
func (n *Node) succeedCatalogue(ctx context.Context, lost []dsdb.NodeID, r *Remains) error {
	if err := n.minorityWithout(lost); err != nil {
		return err
	}
	c := &meta.SucceedCatalogue{UUID: n.id.UUID, Lost: lost}
	v, err := raftnode.Salvage(n.wal, dsdb.MetaGroup, n.meta, meta.Encode(dsdb.ProposalID{}, c), func() error { return nil })
	if err = errors.Join(err, v.Err()); err != nil {
		return err
	}
	view := n.meta.View()
	for _, id := range lost {
		r.Lost = append(r.Lost, nodeName(view, id))
	}
	for i := range view.Processes {
		if p := &view.Processes[i]; p.UUID != n.id.UUID && p.Is(meta.MetaNode) {
			r.Others = append(r.Others, nodeName(view, p.MetaID))
		}
	}
	return n.nobodyAnswers(ctx, view)
}

// minorityWithout reports an error if the voters that are not lost can decide.
func (n *Node) minorityWithout(lost []dsdb.NodeID) error {
	m, err := raftnode.LogMembers(n.wal, dsdb.MetaGroup)
	if err != nil {
		return err
	}
	decides := func(voters []raftnode.Peer) bool {
		left := slices.DeleteFunc(slices.Clone(voters), func(p raftnode.Peer) bool { return slices.Contains(lost, p.Node) })
		return len(voters) == 0 || len(left) > len(voters)/2
	}
	if decides(m.Voters) && decides(m.Outgoing) {
		return dsdb.Errorf(dsdb.KindConflict, "of the %d meta nodes that decide, a majority is left without %v: start them, and drop the others", len(m.Voters), lost)
	}
	return nil
}

// nobodyAnswers reports an error if another node of the cluster runs.
func (n *Node) nobodyAnswers(ctx context.Context, view *meta.Data) error {
	n.door = &door{n: n}
	if _, _, err := n.door.certificates(); err != nil {
		return err
	}
	c := newPeerClient(n.door.outgoing)
	defer c.CloseIdleConnections()
	for _, p := range view.Processes {
		if p.UUID == n.id.UUID || p.Gone() || p.MetaHTTPAddr == "" {
			continue
		}
		if s, err := c.status(ctx, p.MetaHTTPAddr, starter{}); err == nil && s.UUID == p.UUID {
			return dsdb.Errorf(dsdb.KindConflict, "node %d runs and answers at %s: stop all nodes of the cluster first; if a majority of the meta nodes can be started, nothing is lost", p.ID(), p.MetaHTTPAddr)
		}
	}
	return nil
}

// refound makes durable what succeedCatalogue has prepared: first the catalogue,
// then the log, then who this node is.
func (n *Node) refound() error {
	if err := n.meta.Flush(); err != nil {
		return err
	}
	if err := n.meta.WriteCopy(n.cfg.Data.Dir); err != nil {
		return err
	}
	m, release, err := n.meta.Snapshot()
	if err != nil {
		return err
	}
	release()
	self, _ := n.meta.View().Process(n.id.UUID)
	r, _ := n.meta.View().MetaReplica(self)
	if err := n.wal.Write(raftnode.Refound(dsdb.MetaGroup, raftnode.Peer{Replica: r.ID, Node: n.id.Peer()}, m), true); err != nil {
		return err
	}
	return n.becomeReplica(r.ID)
}

// becomeReplica notes which replica of the catalogue is this node's.
func (n *Node) becomeReplica(id dsdb.ReplicaID) error {
	n.id.Replica, n.id.Begun = id, true
	return n.settle(n.id)
}

// cutShort reports that Refound began here and did not end.
func (n *Node) cutShort() error {
	view := n.meta.View()
	self, _ := view.Process(n.id.UUID)
	r, _ := view.MetaReplica(self)
	st, _ := n.wal.State(dsdb.MetaGroup)
	alone := !slices.ContainsFunc(view.MetaReplicas, func(o meta.Replica) bool { return o.Votes() && o.ID != r.ID })
	if n.id.Begun && (alone && r.Votes() && r.ID > n.id.Replica || st.Replica > n.id.Replica) {
		return dsdb.Errorf(dsdb.KindConflict, "dsdbd recover -without was cut short on this node: run it again, as before")
	}
	return nil
}
