package server

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/server/tasks"
	"github.com/dasudian/dsdb/wal"
)

// openLog recovers the log and says what it found.
func (n *Node) openLog(id meta.Identity) error { return n.takeLog(id, wal.Open) }

// readLog is openLog for one that is to be left as it is.
func (n *Node) readLog(id meta.Identity) error { return n.takeLog(id, wal.Read) }

func (n *Node) takeLog(id meta.Identity, open func(vfs.FS, string, wal.Options) (*wal.Log, wal.Report, error)) error {
	o := wal.Options{SegmentSize: min(largestLogFile, int64(n.cfg.Data.WALMaxSize)/16),
		OnSync: func(d time.Duration) { n.logSyncs.Observe(d.Seconds()) }}
	if err := stamp(&o, id); err != nil {
		return err
	}
	began := time.Now()
	l, report, err := open(n.fs, n.cfg.Data.WALDir, o)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	n.wal = l
	n.onClose(l.Close)
	n.logReport(report, time.Since(began))
	return nil
}

// stamp sets whose files a log is made of.
func stamp(o *wal.Options, id meta.Identity) error {
	binary.LittleEndian.PutUint64(o.ClusterID[:], id.ClusterID)
	if _, err := hex.Decode(o.NodeUUID[:], []byte(compact(id.UUID))); err != nil {
		return fmt.Errorf("node id %q: %w", id.UUID, err)
	}
	return nil
}

// openCatalogue starts this node's replica of the meta group and the
// connections to the other nodes, and returns when the catalogue is known to be
// the cluster's and names this start of this node.
func (n *Node) openCatalogue(ctx context.Context) error {
	damage, err := n.openStore()
	if err == nil && n.meta != nil {
		err = n.cutShort()
	}
	if err == nil && damage != nil {
		err = n.renew(ctx, damage)
	}
	if err != nil {
		return err
	}
	if err := n.twin(ctx); err != nil { // before any other node hears of this start
		return err
	}
	n.peers = rpc.New(n.peerOptions())
	n.host, err = raftnode.Open(raftnode.Options{Log: n.wal, Transport: transport{n.peers, n}, Logger: n.log, Fatal: n.opt.Fatal})
	if err != nil {
		return errors.Join(err, n.peers.Close())
	}
	n.onClose(func() error { n.shards.close(); return nil })
	n.onClose(n.host.Close)
	n.onClose(n.peers.Close)
	if n.unbegun() {
		if err := n.eraseOld(ctx); err != nil {
			return err
		}
	}
	n.routes = newRoutes(n.id)
	n.maintainer = tasks.NewMaintainer(managed{n}, n.limits(), n.log)
	n.onClose(func() error { close(n.routes.closed); return nil })
	n.answerPeers(n.peers)
	n.control.answer(n.peers)
	running, stop := context.WithCancel(context.Background())
	n.running = running
	n.onClose(func() error { stop(); n.tasks.Wait(); return nil })
	if err := n.startSoundMeta(ctx); err != nil {
		return err
	}
	n.spawn(func() { n.followNodes(running) })
	n.spawn(func() { n.seekPeers(running) })
	if n.alone() {
		err := n.found(ctx)
		if err == nil {
			n.door.admitPeers(n.peers)
		}
		return err
	}
	n.door.admitPeers(n.peers)
	if err := n.openKnownShards(ctx); err != nil {
		return err
	}
	if err := n.awaitCatalogue(ctx); err != nil {
		return err
	}
	return n.announce(ctx)
}

func (n *Node) catalogueDir() string { return path.Join(n.cfg.Meta.Dir, "catalogue") }

// peerOptions describe this process to the others.
func (n *Node) peerOptions() rpc.Options {
	secret, _ := n.cfg.Meta.Secret() // was read when the configuration was checked
	o := rpc.Options{Secret: secret, TLS: n.door.outgoing, Logger: n.log, SnapshotRate: n.snapshotRate(), Wall: n.opt.Wall,
		Self: rpc.Process{Cluster: n.id.ClusterID, UUID: n.id.UUID, MetaID: n.id.MetaID, DataID: n.id.DataID,
			Epoch: n.id.Epoch, Addr: n.addrs.TCP, Version: n.opt.Version},
		Raft: func() rpc.Raft {
			if n.host == nil {
				return nil
			}
			return n.host
		},
		Files: n.files, Incoming: n.incoming,
	}
	return o
}

// startMeta starts this node's replica of the meta group. The founder's begins
// with itself, any other blank: the leader sends it the catalogue. A replica
// that the log has forgotten must not begin again, for it may have voted, and what
// it acknowledged was in there.
func (n *Node) startMeta(ctx context.Context) error {
	spec := raftnode.GroupSpec{ID: dsdb.MetaGroup, Replica: n.id.Replica, Node: n.id.Peer(), New: true, StateMachine: n.meta}
	if n.id.Replica == founder {
		spec.Founders = []raftnode.Peer{{Replica: founder, Node: n.id.MetaID}}
	}
	if _, known := n.wal.State(dsdb.MetaGroup); !known && n.id.Begun {
		return n.lostLog(n.id)
	}
	defer n.phase.sayWhile(n.log, func() string { return "the log to take the catalogue's entries" + n.spaceLeft() })()
	if err := n.host.Start(ctx, []raftnode.GroupSpec{spec}); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	if err := n.host.Ready(ctx, []dsdb.GroupID{dsdb.MetaGroup}); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	if n.id.Begun {
		return nil
	}
	n.id.Begun = true
	return n.makeRoom(func() error { return meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, n.id) })
}

// spaceLeft says how much space there is for the log, if that is so little that
// it may be what a start waits for.
func (n *Node) spaceLeft() string {
	free, _, err := n.fs.Free(n.cfg.Data.WALDir)
	if err != nil || free > 1<<20 {
		return ""
	}
	return fmt.Sprintf("; the disk of %s is full: %d bytes are free", n.cfg.Data.WALDir, free)
}

// alone reports whether this node is all of the meta group.
func (n *Node) alone() bool {
	m := n.host.Status(dsdb.MetaGroup).Members
	return len(m.Voters) == 1 && len(m.Outgoing)+len(m.Learners) == 0 && m.Voters[0].Replica == n.id.Replica
}

// found makes the catalogue of a cluster of one name this node and its
// addresses. The commands are idempotent: a crash between them leaves the rest
// for the next start.
func (n *Node) found(ctx context.Context) error {
	if view := n.meta.View(); view.ClusterID == n.id.ClusterID && len(view.Processes) > 0 {
		return n.announce(ctx)
	}
	for _, c := range []meta.Command{
		&meta.CreateCluster{ID: n.id.ClusterID},
		&meta.JoinCluster{UUID: n.id.UUID, Meta: n.id.MetaID != 0, Data: n.id.DataID != 0,
			Addresses: n.addresses(), Epoch: n.id.Epoch, Nonce: n.door.instance},
	} {
		if err := n.command(ctx, c); err != nil {
			return fmt.Errorf("found cluster: %w", err)
		}
	}
	if err := n.flushMeta(); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	self, ok := n.meta.View().Process(n.id.UUID)
	if !ok || self.MetaID != n.id.MetaID || self.DataID != n.id.DataID {
		return fmt.Errorf("the catalogue in %s does not know node %s: it belongs to another node", n.cfg.Meta.Dir, n.id.UUID)
	}
	return nil
}

// addresses are those that the catalogue has of this node. A node that no other
// reaches is known by the address of its clients.
func (n *Node) addresses() meta.Addresses {
	a := meta.Addresses{HTTPAddr: n.addrs.HTTP, MetaHTTPAddr: n.addrs.MetaHTTP, TCPAddr: n.addrs.TCP}
	if a.TCPAddr == "" {
		a.TCPAddr = n.cfg.HTTP.BindAddress
	}
	return a
}

// awaitCatalogue returns when this node's copy of the catalogue includes
// everything that the cluster had decided when it was called.
func (n *Node) awaitCatalogue(ctx context.Context) error {
	n.phase.wait(n.missingQuorum())
	for {
		if _, known := n.meta.View().Process(n.id.UUID); !known {
			n.phase.say(n.log, "the catalogue: no leader of the meta nodes has sent it to "+n.addrs.TCP+" yet")
			if err := n.catalogueChange(ctx); err != nil {
				return err
			}
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := n.readIndex(attempt, dsdb.MetaGroup)
		cancel()
		if mutant.AllMustStart {
			if reached, voters, _ := n.quorum(); reached < voters {
				err = errors.New("not all are here")
			}
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := n.outcast(ctx); err != nil {
			return err
		}
		n.phase.say(n.log, n.missingQuorum())
		if err := pauseFor(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// outcast returns why the other nodes do not talk to this one, if one of them
// says so: it was dropped or replaced while it was away, or is a copy.
func (n *Node) outcast(ctx context.Context) error {
	if err := n.twin(ctx); err != nil {
		return err
	}
	c := newPeerClient(n.door.outgoing)
	defer c.CloseIdleConnections()
	for _, p := range n.meta.View().Processes {
		if p.UUID == n.id.UUID || p.Gone() || p.MetaHTTPAddr == "" {
			continue
		}
		s, err := c.status(ctx, p.MetaHTTPAddr, n.starter())
		switch {
		case err != nil || s.UUID != p.UUID:
		case s.Refuses != "":
			return n.renounce(dsdb.Errorf(dsdb.KindConflict, "%s says: %s", p.MetaHTTPAddr, s.Refuses))
		case s.Replica > n.id.Replica:
			return n.beginAnew(ctx, p.MetaHTTPAddr)
		}
	}
	return nil
}

// starter names this start of this node.
func (n *Node) starter() starter {
	return starter{UUID: n.id.UUID, Epoch: n.id.Epoch, Instance: n.door.instance}
}

// catalogueChange returns when the catalogue changes, or after a while.
func (n *Node) catalogueChange(ctx context.Context) error {
	select {
	case <-n.meta.Watch():
	case <-time.After(sayEvery):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// announce tells the cluster of this start: a copy of the folders of a node, or
// an old state of them, is refused here.
func (n *Node) announce(ctx context.Context) error {
	if err := n.twin(ctx); err != nil {
		return err
	}
	c := &meta.BootNode{UUID: n.id.UUID, Addresses: n.addresses(), Epoch: n.id.Epoch, Nonce: n.door.instance}
	for {
		err := n.command(ctx, c)
		switch kind := dsdb.KindOf(err); {
		case kind == dsdb.KindUnavailable, kind == dsdb.KindTimeout, kind == dsdb.KindNotLeader:
		case kind == dsdb.KindConflict && !c.Found && n.findsItself(ctx, c.Addresses):
			c.Found = true // it may be the address of another, which is not there any more
			continue
		case err != nil:
			return err
		default:
			return n.flushMeta()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.phase.say(n.log, n.missingQuorum())
	}
}

// flushMeta writes the catalogue to its file, and a copy of it beside the points,
// and lets the log forget it.
func (n *Node) flushMeta() error {
	if n.meta.View().Index == n.meta.FlushedIndex() {
		return nil
	}
	if err := n.makeRoom(n.meta.Flush); err != nil {
		return err
	}
	if !mutant.CatalogueNotCopied {
		if err := n.makeRoom(func() error { return n.meta.WriteCopy(n.cfg.Data.Dir) }); err != nil {
			return err
		}
	}
	n.host.Flushed(dsdb.MetaGroup)
	return nil
}

// openShards opens the shards that the catalogue places here, and removes what
// is left of others.
func (n *Node) openShards(ctx context.Context) error {
	if n.alone() {
		if err := n.shards.sweep(n.meta.View()); err != nil {
			return err
		}
	}
	if err := n.shards.reconcile(ctx); err != nil {
		return err
	}
	if err := n.shards.ready(ctx); err != nil {
		return err
	}
	if err := n.shards.sweep(n.meta.View()); err != nil {
		return err
	}
	return n.shards.forget(ctx, n.meta.View())
}

// openKnownShards opens the shards that this node knows itself to have before it
// hears of any other: their groups need not wait for the meta group.
func (n *Node) openKnownShards(ctx context.Context) error {
	if _, known := n.meta.View().Process(n.id.UUID); !known {
		return nil
	}
	return n.shards.reconcile(ctx)
}

// followNodes keeps the connections to other nodes in step with the catalogue,
// which it writes to its file when nodes change, so that the next start knows them.
func (n *Node) followNodes(ctx context.Context) {
	var last []meta.Process
	for {
		changed := n.meta.Watch()
		if view := n.meta.View(); !sameProcesses(last, view.Processes) {
			n.peers.SetNodes(peerNodes(view))
			if err := errors.Join(n.flushMeta(), n.notePeers(view)); err != nil {
				n.log.Error("writing the catalogue failed; it will be tried again", "err", err)
			}
			last = view.Processes
			if p, found := view.Process(n.id.UUID); found && p.Gone() {
				n.phase.wait(n.starter().banned(p))
				n.log.Error(n.starter().banned(p))
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// sameProcesses reports whether two versions of the catalogue share their processes.
func sameProcesses(a, b []meta.Process) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// peerNodes lists the roles of all processes that are, or were, in the cluster.
func peerNodes(view *meta.Data) []rpc.Node {
	var nodes []rpc.Node
	for _, p := range view.Processes {
		for _, id := range []dsdb.NodeID{p.MetaID, p.DataID} {
			if id != 0 {
				nodes = append(nodes, rpc.Node{ID: id, UUID: p.UUID, Addr: p.TCPAddr, Gone: p.Gone()})
			}
		}
	}
	return nodes
}
