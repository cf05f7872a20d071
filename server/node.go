// Package server is a node: it opens the folders, the log, the raft groups and
// the shards, wires them to the HTTP API and to the other nodes of the cluster,
// and closes them in reverse. It is the only package that knows all the others.
//
// A node starts in this order (Node.open): folders and identity (identity.go),
// listeners, which answer "starting" until the end (listen.go), membership in a
// cluster, by founding or joining one (join.go; admit.go is the other side), log,
// catalogue and peers (start.go), roles (roles.go), shards, tasks.
//
// A write enters at Node.Write (router.go), a query at Node.Execute (query.go),
// a change of the catalogue at Node.command (command.go). What runs beside the
// requests is started in tasks.go; what the leader of the catalogue does about
// nodes that come and go in control.go.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/server/tasks"
	"github.com/dasudian/dsdb/wal"
)

// metaFlushEvery is how often the catalogue is written to its file, if it changed.
const metaFlushEvery = 5 * time.Second

// largestLogFile bounds a file of the log. With a small wal-max-size files are
// smaller: freeing the log goes by files.
const largestLogFile = 64 << 20

// stopGrace is how long requests may take to end when the node stops.
const stopGrace = 20 * time.Second

// handOver is how long a node that stops tries to give its leaderships away.
const handOver = 5 * time.Second

// Options are what a node needs beside its configuration.
type Options struct {
	FS      vfs.FS
	Logger  *slog.Logger
	Version string
	Replace dsdb.NodeID      // when it joins: the node whose place it takes; 0: none's
	Wall    func() time.Time // the date and time for users: of points without a time, of now(), of retention; nil: time.Now
	Fatal   func(error)      // the log failed: the process must end at once, without acknowledging anything more
	Locked  func()           // called when the folders are known to be no other process's; nil: nobody cares
}

// Node is one running node. Make it with Open; Serve waits for its end; Close ends it.
type Node struct {
	cfg     config.Config
	opt     Options
	fs      vfs.FS
	log     *slog.Logger
	id      meta.Identity // settled when the node has become a member
	dataID  dsdb.NodeID   // 0: it stores no points
	addrs   config.Addresses
	began   time.Time // when it was started
	phase   phase
	release []func() error // undoes Open, last first

	wal        *wal.Log
	damage     damage
	host       *raftnode.Host
	peers      *rpc.Peers
	routes     *routes
	handoff    *handoff
	meta       *meta.Store
	shards     *shards
	control    *control
	maintainer *tasks.Maintainer
	door       *door
	handler    *httpd.Handler
	mismatches atomic.Uint64 // replicas of a shard that were found to differ
	queries    exec.Memory   // of all that run here, also for other nodes
	logSyncs   prometheus.Histogram

	running context.Context // ends when the tasks are to end
	tasks   sync.WaitGroup
	closing sync.Once
}

// Open recovers the node's state, or makes it a member of a cluster (of its
// own, if it is told of none), and returns when it can serve. The HTTP API
// answers before that, that the node is starting. ctx ends the attempt.
func Open(ctx context.Context, cfg config.Config, o Options) (*Node, error) {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	for {
		n := &Node{cfg: cfg, opt: o, fs: o.FS, log: o.Logger, logSyncs: newLogSyncs(), began: time.Now()}
		n.queries.Limit = machineMemory(os.ReadFile) / 100 * queriesShare
		n.shards = newShards(n)
		n.control = newControl(n)
		err := n.open(ctx)
		if err == nil {
			return n, nil
		}
		undone := n.undo()
		if !errors.Is(err, errNewIDs) || undone != nil {
			return nil, errors.Join(err, undone)
		}
		cfg = n.cfg // with the ports that it has listened on
	}
}

// open does what Open does. If it fails, what it did is to be undone.
func (n *Node) open(ctx context.Context) error {
	if err := n.lockFolders(); err != nil {
		return err
	}
	if n.opt.Locked != nil {
		n.opt.Locked()
	}
	id, err := n.identity()
	if err != nil {
		return err
	}
	if err := n.openDoor(id); err != nil {
		return err
	}
	if id, err = n.becomeMember(ctx, id); err != nil {
		return err
	}
	if err := n.begin(id); err != nil {
		return err
	}
	if n.logGone(n.id) {
		return n.lostLog(n.id)
	}
	if err := n.openLog(n.id); err != nil {
		return err
	}
	n.warnOfLoss()
	if err := n.openHandoff(n.id); err != nil {
		return err
	}
	if err := n.openCatalogue(ctx); err != nil {
		return err
	}
	if err := n.settleRoles(ctx); err != nil {
		return err
	}
	if err := n.openShards(ctx); err != nil {
		return err
	}
	n.damage.lost = nil // a group that is unknown from here on is new
	n.wal.Noted()
	return n.openAPI()
}

// openAPI starts the tasks and opens the door to clients.
func (n *Node) openAPI() (err error) {
	reg := prometheus.NewRegistry()
	n.registerMetrics(reg, n.opt.Version)
	hc := n.httpConfig(n.opt.Version)
	if hc.Auth, err = n.auth(reg); err != nil {
		return err
	}
	n.handler = httpd.New(hc, n, n.log, reg)
	n.onClose(func() error { n.handler.Close(); return nil })
	n.runTasks(n.running)
	n.spawn(func() { n.control.run(n.running) })
	n.spawn(func() { n.followRoles(n.running) })
	n.warnOfAccess(n.door.client())
	n.warnOfPeers()
	n.door.open(n.handler)
	n.phase.done()
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
		MaxBodies: int64(n.cfg.Data.CacheMaxMemory), WriteWait: time.Duration(h.EnqueuedTimeout), WriteTimeout: time.Duration(c.WriteTimeout), QueryTimeout: time.Duration(c.QueryTimeout),
		MaxQueries: c.MaxConcurrentQueries, MaxAnswer: int64(c.QueryMemory), Verify: n.serveVerify, Snapshot: n.serveSnapshot, Pprof: h.Pprof, LogRequests: h.LogEnabled, Wall: n.opt.Wall}
}

// spawn runs fn on a goroutine that Close waits for.
func (n *Node) spawn(fn func()) {
	n.tasks.Add(1)
	go func() {
		defer n.tasks.Done()
		fn()
	}()
}

// Ready implements httpd.Backend: nil if a write would be taken now.
func (n *Node) Ready(ctx context.Context) error {
	if err := n.phase.err(); err != nil {
		return err
	}
	if st := n.host.Status(dsdb.MetaGroup); st.Failed != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "catalogue: %w", st.Failed)
	}
	if why := n.cutOff(); why != "" {
		return dsdb.Errorf(dsdb.KindUnavailable, "%s", why)
	}
	if why := n.noSpace(); why != nil {
		return why
	}
	return n.admit()
}

// Addr returns the address of the HTTP API, "" if it is off.
func (n *Node) Addr() string {
	if a := n.door.client(); a.IsValid() {
		return a.String()
	}
	return ""
}

// Serve returns when ctx has ended, leaderships have been given to other nodes
// and the requests that ran have come to an end, or when a listener fails.
func (n *Node) Serve(ctx context.Context) error {
	select {
	case err := <-n.door.failed:
		return err
	case <-ctx.Done():
	}
	n.phase.wait("stopping")
	hctx, cancel := context.WithTimeout(context.Background(), handOver)
	defer cancel()
	if err := n.host.TransferAll(hctx); err != nil {
		n.log.Info("a leadership could not be given to another node", "err", err)
	}
	sctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := n.door.shutdown(sctx); err != nil {
		return fmt.Errorf("requests were cut off after %v: %w", stopGrace, err)
	}
	return nil
}

// Close ends the node: tasks, peers, raft, shards, log, locks. It is idempotent.
func (n *Node) Close() (err error) {
	n.closing.Do(func() {
		n.door.close()
		err = n.undo()
	})
	return err
}
