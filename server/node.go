// Package server is a node: it opens the folders, the log, the raft groups and
// the shards, wires them to the HTTP API, and closes them in reverse. It is the
// only package that knows all the others.
//
// A write enters at Node.Write (router.go), a query at Node.Execute (query.go),
// a change of the catalogue at Node.command (command.go). What runs beside the
// requests is started in tasks.go.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/tasks"
	"github.com/dasudian/dsdb/wal"
)

// metaReplica is the replica id of the meta group on the node that founds a cluster.
const metaReplica dsdb.ReplicaID = 1

// metaFlushEvery is how often the catalogue is written to its file, if it changed.
const metaFlushEvery = 5 * time.Second

// largestLogFile bounds a file of the log. With a small wal-max-size files are
// smaller: freeing the log goes by files.
const largestLogFile = 64 << 20

// stopGrace is how long requests may take to end when the node stops.
const stopGrace = 20 * time.Second

// Options are what a node needs beside its configuration.
type Options struct {
	FS      vfs.FS
	Logger  *slog.Logger
	Version string
	Fatal   func(error) // the log failed: the process must end at once, without acknowledging anything more
}

// Node is one running node. Make it with Open; Serve takes requests; Close ends it.
type Node struct {
	cfg config.Config
	fs  vfs.FS
	log *slog.Logger

	release    []func() error // undoes Open, last first
	wal        *wal.Log
	damage     damage
	host       *raftnode.Host
	meta       *meta.Store
	shards     *shards
	dataID     dsdb.NodeID
	maintainer *tasks.Maintainer
	handler    *httpd.Handler
	ready      atomic.Bool

	stop    context.CancelFunc // ends the tasks
	tasks   sync.WaitGroup
	closing sync.Once
	listen  net.Listener
	http    *http.Server
}

// Open recovers the node's state, founds a cluster of one if there is none,
// and starts serving the shards. The HTTP API is not yet reachable; see Serve.
func Open(ctx context.Context, cfg config.Config, o Options) (*Node, error) {
	n := &Node{cfg: cfg, fs: o.FS, log: o.Logger}
	n.shards = newShards(n)
	if err := n.open(ctx, o); err != nil {
		return nil, errors.Join(err, n.undo())
	}
	return n, nil
}

// open does what Open does. If it fails, what it did is to be undone.
func (n *Node) open(ctx context.Context, o Options) error {
	if err := n.lockFolders(); err != nil {
		return err
	}
	id, err := n.identity()
	if err != nil {
		return err
	}
	if err := n.openLog(id); err != nil {
		return err
	}
	if err := n.openCatalogue(ctx, id, o.Fatal); err != nil {
		return err
	}
	n.maintainer = tasks.NewMaintainer(managed{n}, n.limits(), n.log)
	if err := n.shards.sweep(n.meta.View()); err != nil {
		return err
	}
	if err := n.shards.reconcile(ctx); err != nil {
		return err
	}
	if err := n.shards.forget(ctx, n.meta.View()); err != nil {
		return err
	}
	n.damage.lost = nil // a group that is unknown from here on is new
	reg := prometheus.NewRegistry()
	n.registerMetrics(reg, o.Version)
	hc := n.httpConfig(o.Version)
	if hc.Auth, err = n.auth(reg); err != nil {
		return err
	}
	n.handler = httpd.New(hc, n, n.log, reg)
	n.onClose(func() error { n.handler.Close(); return nil })
	tctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.onClose(func() error { stop(); n.tasks.Wait(); return nil })
	n.runTasks(tctx)
	if err := n.bind(); err != nil {
		return err
	}
	n.ready.Store(true)
	return nil
}

// onClose adds a step to what Close undoes.
func (n *Node) onClose(fn func() error) { n.release = append(n.release, fn) }

// undo runs the steps of onClose, last first, and returns their errors.
func (n *Node) undo() error {
	var errs []error
	for i := len(n.release) - 1; i >= 0; i-- {
		errs = append(errs, n.release[i]())
	}
	n.release = nil
	return errors.Join(errs...)
}

// lockFolders makes the node's folders and takes their locks, so that no two
// processes ever write to one.
func (n *Node) lockFolders() error {
	for _, dir := range []string{n.cfg.Meta.Dir, n.cfg.Data.Dir, path.Join(n.cfg.Data.Dir, "shard"), n.cfg.Data.WALDir} {
		if err := n.fs.MkdirAll(dir); err != nil {
			return fmt.Errorf("folder %s: %w", dir, err)
		}
	}
	release, err := n.fs.Lock(path.Join(n.cfg.Meta.Dir, "lock"))
	if err != nil {
		return fmt.Errorf("%s is in use by another dsdbd: stop that one, or give this one other folders: %w", n.cfg.Meta.Dir, err)
	}
	n.onClose(release)
	return nil
}

// identity reads who this node is, or makes a new identity for new folders.
// A folder that knows points but no identity has lost a file: it is refused.
func (n *Node) identity() (meta.Identity, error) {
	id, err := meta.ReadIdentity(n.fs, n.cfg.Meta.Dir)
	if err == nil {
		return id, n.checkDataFolder(id)
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		return id, err
	}
	for _, dir := range []string{path.Join(n.cfg.Data.Dir, "shard"), n.cfg.Data.WALDir} {
		names, err := n.fs.List(dir)
		if err != nil {
			return id, err
		}
		if len(names) > 0 {
			return id, fmt.Errorf("%s holds data, but %s has no %s: is meta.dir the folder that belongs to it? Restore the file, or move the data away to start anew",
				dir, n.cfg.Meta.Dir, meta.IdentityFile)
		}
	}
	id = meta.Identity{ClusterID: randomID(), UUID: newUUID(), MetaID: 1, DataID: 2}
	if err := meta.WriteIdentity(n.fs, n.cfg.Data.Dir, id); err != nil {
		return id, err
	}
	return id, meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, id)
}

// checkDataFolder makes sure that the folder of the points is this node's.
func (n *Node) checkDataFolder(id meta.Identity) error {
	got, err := meta.ReadIdentity(n.fs, n.cfg.Data.Dir)
	if err != nil {
		return fmt.Errorf("data.dir: %w", err)
	}
	if got.UUID != id.UUID || got.ClusterID != id.ClusterID {
		return fmt.Errorf("%s belongs to node %s, %s to node %s: give both folders of one node", n.cfg.Meta.Dir, id.UUID, n.cfg.Data.Dir, got.UUID)
	}
	return nil
}

// randomID returns a random positive number.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return binary.LittleEndian.Uint64(b[:])>>1 | 1
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// openLog recovers the log and says what it found.
func (n *Node) openLog(id meta.Identity) error {
	o := wal.Options{SegmentSize: min(largestLogFile, int64(n.cfg.Data.WALMaxSize)/16)}
	binary.LittleEndian.PutUint64(o.ClusterID[:], id.ClusterID)
	if _, err := hex.Decode(o.NodeUUID[:], []byte(compact(id.UUID))); err != nil {
		return fmt.Errorf("node id %q: %w", id.UUID, err)
	}
	began := time.Now()
	l, report, err := wal.Open(n.fs, n.cfg.Data.WALDir, o)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	n.wal = l
	n.onClose(l.Close)
	n.logReport(report, time.Since(began))
	return nil
}

func compact(uuid string) string {
	out := make([]byte, 0, 32)
	for i := range len(uuid) {
		if uuid[i] != '-' {
			out = append(out, uuid[i])
		}
	}
	return string(out)
}

// openCatalogue starts the meta group and founds the cluster if it is new.
func (n *Node) openCatalogue(ctx context.Context, id meta.Identity, fatal func(error)) error {
	dir := path.Join(n.cfg.Meta.Dir, "catalogue")
	store, err := meta.Open(n.fs, dir)
	if err != nil {
		return err
	}
	if bad, err := n.quarantined(dsdb.MetaGroup, dir); err != nil || bad {
		return errors.Join(err, dsdb.Errorf(dsdb.KindCorrupt, "the log is damaged and may have lost changes of the catalogue, without which nothing can be served: %v; restore the node's folders from a copy", n.damage.lost))
	}
	n.meta = store
	host, err := raftnode.Open(raftnode.Options{Log: n.wal, Logger: n.log, Fatal: fatal})
	if err != nil {
		return err
	}
	n.host = host
	n.onClose(func() error { n.shards.close(); return nil })
	n.onClose(host.Close)
	spec := raftnode.GroupSpec{ID: dsdb.MetaGroup, Replica: metaReplica, Node: id.MetaID, New: true, StateMachine: store,
		Founders: []raftnode.Peer{{Replica: metaReplica, Node: id.MetaID}}}
	if err := host.Start(ctx, []raftnode.GroupSpec{spec}); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	if err := host.Ready(ctx, []dsdb.GroupID{dsdb.MetaGroup}); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	n.dataID = id.DataID
	return n.found(ctx, id)
}

// found makes the catalogue of a new cluster name this node. The commands are
// idempotent: a crash between them leaves the rest for the next start.
func (n *Node) found(ctx context.Context, id meta.Identity) error {
	if view := n.meta.View(); view.ClusterID == id.ClusterID && len(view.Processes) > 0 {
		return nil
	}
	addr := n.cfg.HTTP.BindAddress
	for _, c := range []meta.Command{
		&meta.CreateCluster{ID: id.ClusterID},
		&meta.JoinCluster{UUID: id.UUID, Meta: true, Data: true, Epoch: id.Epoch,
			Addresses: meta.Addresses{HTTPAddr: addr, MetaHTTPAddr: addr, TCPAddr: addr}},
	} {
		if err := n.command(ctx, c); err != nil {
			return fmt.Errorf("found cluster: %w", err)
		}
	}
	if err := n.flushMeta(); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if self, ok := n.meta.View().NodeOf(id.UUID, meta.DataNode); !ok || self.ID != id.DataID {
		return fmt.Errorf("the catalogue in %s does not know node %s: it belongs to another node", n.cfg.Meta.Dir, id.UUID)
	}
	return nil
}

func (n *Node) limits() tasks.Limits {
	d := n.cfg.Data
	compactions := d.MaxConcurrentCompacts
	if compactions <= 0 {
		compactions = max(1, runtime.GOMAXPROCS(0)/2)
	}
	return tasks.Limits{FlushBytes: int64(d.CacheSnapshotMemory), TotalBytes: int64(d.CacheMaxMemory), LogBytes: int64(d.WALMaxSize),
		FlushCold: time.Duration(d.CacheSnapshotCold), CompactCold: time.Duration(d.CompactFullCold), Compactions: compactions}
}

func (n *Node) httpConfig(version string) httpd.Config {
	h, c := n.cfg.HTTP, n.cfg.Coordinator
	writes := h.MaxWrites
	if writes <= 0 {
		writes = 256
	}
	return httpd.Config{Version: version, MaxBody: int64(h.MaxBody), MaxDecoded: 4 * int64(h.MaxBody), MaxWrites: writes,
		WriteWait: time.Duration(h.EnqueuedTimeout), WriteTimeout: time.Duration(c.WriteTimeout), QueryTimeout: time.Duration(c.QueryTimeout),
		MaxQueries: c.MaxConcurrentQueries, Pprof: h.Pprof, LogRequests: h.LogEnabled}
}

// spawn runs fn on a goroutine that Close waits for.
func (n *Node) spawn(fn func()) {
	n.tasks.Add(1)
	go func() {
		defer n.tasks.Done()
		fn()
	}()
}

// flushMeta writes the catalogue to its file and lets the log forget it.
func (n *Node) flushMeta() error {
	if n.meta.View().Index == n.meta.FlushedIndex() {
		return nil
	}
	if err := n.meta.Flush(); err != nil {
		return err
	}
	n.host.Flushed(dsdb.MetaGroup)
	return nil
}

// Ready implements httpd.Backend: nil if a write would be taken now.
func (n *Node) Ready(ctx context.Context) error {
	if !n.ready.Load() {
		return dsdb.Errorf(dsdb.KindUnavailable, "starting")
	}
	if st := n.host.Status(dsdb.MetaGroup); st.Failed != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "catalogue: %w", st.Failed)
	}
	return n.admit()
}

// bind opens the listener of the HTTP API.
func (n *Node) bind() error {
	h := n.cfg.HTTP
	if !h.Enabled {
		return nil
	}
	ln, err := net.Listen("tcp", h.BindAddress)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("http: %w: another server has the address: set [http] bind-address or DSDB_HTTP_BIND_ADDRESS", err)
	}
	if err != nil {
		return fmt.Errorf("[http] bind-address %q: %w", h.BindAddress, err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		n.warnOfAccess(a.AddrPort())
	}
	if h.MaxConnections > 0 {
		ln = netutil.LimitListener(ln, h.MaxConnections)
	}
	if h.HTTPS {
		key := h.PrivateKey
		if key == "" {
			key = h.Certificate
		}
		cert, err := tls.LoadX509KeyPair(h.Certificate, key)
		if err != nil {
			ln.Close()
			return fmt.Errorf("http: certificate: %w", err)
		}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	n.listen = ln
	n.http = &http.Server{Handler: n.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug)}
	return nil
}

// Addr returns the address of the HTTP API, "" if it is off.
func (n *Node) Addr() string {
	if n.listen == nil {
		return ""
	}
	return n.listen.Addr().String()
}

// Serve takes requests until ctx ends, then lets those that run come to an end.
func (n *Node) Serve(ctx context.Context) error {
	if n.listen == nil {
		<-ctx.Done()
		return nil
	}
	failed := make(chan error, 1)
	n.spawn(func() { failed <- n.http.Serve(n.listen) })
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	n.ready.Store(false)
	sctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := n.http.Shutdown(sctx); err != nil {
		_ = n.http.Close()
		return fmt.Errorf("requests were cut off after %v: %w", stopGrace, err)
	}
	return nil
}

// Close ends the node: tasks, raft, shards, log, locks. It is idempotent.
func (n *Node) Close() (err error) {
	n.closing.Do(func() {
		if n.http != nil {
			_ = n.http.Close()
		}
		if n.listen != nil {
			_ = n.listen.Close()
		}
		err = n.undo()
	})
	return err
}
