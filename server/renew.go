package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
)

// This node's replica of the catalogue can be damaged, in its file or in the
// log. If there are other nodes they have all of it: the damaged replica is
// given up, and a new one, under a new id, is filled by them. Its id is written
// first, then what is left of the old one is erased; a crash in between is seen
// by the log that holds another replica than node.json names, or by a catalogue
// of a replica that has not begun.

// openStore opens the file of the catalogue. damage says why this node's
// replica of it cannot be trusted; it is nil if it can.
func (n *Node) openStore() (damage, err error) {
	dir := n.catalogueDir()
	if n.meta, err = meta.Open(n.fs, dir); err != nil {
		if dsdb.KindOf(err) != dsdb.KindCorrupt || n.id.Replica == 0 {
			return nil, err
		}
		n.log.Error("the catalogue on this node is damaged", "err", err)
		return err, nil
	}
	if n.unbegun() {
		return nil, nil
	}
	bad, err := n.quarantined(dsdb.MetaGroup, n.id.Replica, dir)
	if bad {
		damage = dsdb.Errorf(dsdb.KindCorrupt, "the log is damaged and may have lost changes of the catalogue, without which nothing can be served: %v", n.damage.lost)
	}
	return damage, err
}

// unbegun reports whether this node's replica of the catalogue was given to it
// in place of a damaged one, and has not been started yet.
func (n *Node) unbegun() bool {
	st, known := n.wal.State(dsdb.MetaGroup)
	return n.id.Replica != founder && !n.id.Begun && (!known || st.Replica != n.id.Replica)
}

// renew gets this node a new replica of the catalogue in place of a damaged
// one. It waits for the leader of the meta nodes as long as it takes.
func (n *Node) renew(ctx context.Context, damage error) error {
	list, err := n.others()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("%w; %s, or restore the node's folders from a copy; if it is one of several, start it with -join and the address of another", damage, n.wayOut())
	}
	n.log.Error("this node's copy of the catalogue is damaged: it gets another one from the other nodes", "replica", n.id.Replica, "err", damage)
	j := &joining{n: n, id: n.id, list: list, client: newPeerClient(n.door.outgoing)}
	defer j.client.CloseIdleConnections()
	for {
		var trouble []string
		answered := false
		for _, address := range list {
			id, err := j.renew(ctx, address)
			if err == nil {
				n.id = id
				n.door.admitter.member.Store(&id)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !retryable(err) {
				return fmt.Errorf("%w; %w", damage, err)
			}
			answered = answered || !errors.As(err, new(net.Error))
			trouble = append(trouble, fmt.Sprintf("%s: %v", address, err))
		}
		waits := fmt.Sprintf("the other nodes, for its copy of the catalogue is damaged (%s)", strings.Join(trouble, "; "))
		if !answered && time.Since(n.began) >= time.Duration(n.cfg.Meta.DeadTimeout) {
			waits += "; if there are no others any more, stop dsdbd; " + n.wayOut()
		}
		n.phase.say(n.log, waits)
		if err := pauseFor(ctx, joinBackOff); err != nil {
			return err
		}
	}
}

// wayOut says what an operator can do whose only copy of the catalogue is damaged.
func (n *Node) wayOut() string {
	if n.meta == nil { // its file is
		return fmt.Sprintf("move %s away and have dsdbd recover make it anew from what %s knows of it", n.cfg.Meta.Dir, n.cfg.Data.Dir)
	}
	return "dsdbd recover tells what is lost, and with -accept-loss has the node go on without that"
}

// peersFile, beside node.json, has the [meta] addresses of the other nodes, one a
// line: they are in the catalogue, but that may be what is damaged.
const peersFile = "peers"

// notePeers writes peersFile, if there are other nodes.
func (n *Node) notePeers(view *meta.Data) error {
	list := n.peersIn(view)
	if len(list) == 0 {
		return nil
	}
	text := strings.Join(list, "\n") + "\n"
	return vfs.WriteFileAtomic(n.fs, path.Join(n.cfg.Meta.Dir, peersFile), []byte(text))
}

// peersIn lists the [meta] addresses of the other processes of a catalogue.
func (n *Node) peersIn(view *meta.Data) []string {
	var list []string
	for _, p := range view.Processes {
		if p.UUID != n.id.UUID && !p.Gone() && p.MetaHTTPAddr != "" {
			list = append(list, p.MetaHTTPAddr)
		}
	}
	return list
}

// others returns where other nodes may answer, as far as this one still knows.
func (n *Node) others() ([]string, error) {
	list, err := n.cfg.Meta.Peers()
	if err != nil {
		return nil, err
	}
	if n.meta != nil {
		list = append(list, n.peersIn(n.meta.View())...)
	}
	b, err := vfs.ReadFile(n.fs, path.Join(n.cfg.Meta.Dir, peersFile))
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	list = append(list, strings.Fields(string(b))...)
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(a string) bool { return a == n.addrs.MetaHTTP }), nil
}

// renew asks the node at an address, and whom that names, for a new replica.
func (j *joining) renew(ctx context.Context, address string) (meta.Identity, error) {
	id := j.id
	body, err := json.Marshal(joinRequest{UUID: id.UUID, Meta: id.MetaID != 0, Data: id.DataID != 0,
		Addresses: j.n.addresses(), Instance: j.n.door.instance, Epoch: id.Epoch, Failed: id.Replica})
	if err != nil {
		return id, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for range maxRedirects {
		joined, next, err := j.post(ctx, address, body)
		switch {
		case err != nil:
			return id, err
		case next != "":
			address = next
			continue
		case joined.Cluster != id.ClusterID || joined.MetaID != id.MetaID || joined.DataID != id.DataID:
			return id, dsdb.Errorf(dsdb.KindConflict, "%s is of another cluster", address)
		case joined.Replica == id.Replica:
			return id, dsdb.Errorf(dsdb.KindUnavailable, "there is no other replica yet")
		}
		id.Replica, id.Begun = joined.Replica, false
		return id, j.n.settle(id)
	}
	return id, dsdb.Errorf(dsdb.KindUnavailable, "the nodes of the cluster do not agree on who leads")
}

// beginAnew has this node begin anew as another replica of the catalogue, which the
// node at an address says that it is to be: the group of its own was given up.
func (n *Node) beginAnew(ctx context.Context, address string) error {
	j := &joining{n: n, id: n.id, client: newPeerClient(n.door.outgoing)}
	defer j.client.CloseIdleConnections()
	id, err := j.renew(ctx, address)
	switch {
	case err == nil:
		n.log.Warn("the catalogue goes on without what this node knows of it alone: this node gets it from the others", "replica", id.Replica, "before", n.id.Replica)
		return errNewIDs
	case retryable(err):
		return nil
	}
	return err
}

// startSoundMeta is startMeta, with another replica if this node's turns out to
// be damaged. A start that ends early, or fails before raft runs the replica, says
// nothing of it.
func (n *Node) startSoundMeta(ctx context.Context) error {
	err := n.startMeta(ctx)
	damage := broken(n.host.Status(dsdb.MetaGroup))
	if _, known := n.wal.State(dsdb.MetaGroup); err == nil || ctx.Err() != nil || damage == nil || !known {
		return err
	}
	if err := n.renew(ctx, damage); err != nil {
		return err
	}
	if err := n.eraseOld(ctx); err != nil {
		return err
	}
	return n.startMeta(ctx)
}

// eraseOld removes what is left of the replica of the catalogue that this node
// had before: its log and its file. The new one begins blank.
func (n *Node) eraseOld(ctx context.Context) error {
	if err := n.host.Remove(ctx, dsdb.MetaGroup); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	if err := n.fs.RemoveAll(n.catalogueDir()); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if err := n.fs.SyncDir(path.Dir(n.catalogueDir())); err != nil {
		return err
	}
	store, err := meta.Open(n.fs, n.catalogueDir())
	n.meta = store
	return err
}

// renew gives a member of the cluster another replica of the catalogue in place
// of one that is damaged. Asking once more changes nothing.
func (a *admitter) renew(ctx context.Context, rq *joinRequest) error {
	view := a.n.meta.View()
	p, found := view.Process(rq.UUID)
	if !found {
		return dsdb.Errorf(dsdb.KindConflict, "node %s is not of this cluster", rq.UUID)
	}
	if why := (starter{UUID: rq.UUID, Epoch: rq.Epoch, Instance: rq.Instance}).banned(p); why != "" {
		return dsdb.Errorf(dsdb.KindConflict, "%s", why)
	}
	rq.Meta, rq.Data = p.Has(meta.MetaNode), p.Has(meta.DataNode) // whatever else it was once
	r, held := view.MetaReplica(p)
	if !held || r.ID != rq.Failed {
		return nil
	}
	reason := "its files or its log are damaged"
	if err := a.n.command(ctx, &meta.ReplicaFailed{Group: dsdb.MetaGroup, Replica: r.ID, Reason: reason}); err != nil {
		return err
	}
	a.n.log.Warn("a replica of the catalogue is to be replaced", "node", p.ID(), "replica", r.ID, "why", reason)
	return a.n.command(ctx, &meta.AddReplica{Group: dsdb.MetaGroup, Node: p.ID()})
}
