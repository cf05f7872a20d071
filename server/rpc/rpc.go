// Package rpc carries what the nodes of a cluster say to each other: raft
// messages, calls, streams of query fragments, and the files of snapshots. It
// owns the connections, their handshake, their frames and their bounds; it must
// not know what a raft message, a call or a stream means.
//
// A connection begins as an HTTP/1.1 request `GET /peer` with `Upgrade:
// dsdb-peer/1`, so that it can share a listener with the client API. What
// follows the handshake is frames; both are written down in FORMAT.md. Who
// dials sends: raft messages go from the dialer to the accepter only, on one
// connection for small messages (control) and one for those with entries (bulk),
// so that a heartbeat never waits behind a megabyte. Calls share a third
// connection, each stream has one to itself.
//
// A raft message flows: Send → bounded queue of its class → the sender takes
// all that waits, one write → frame → the other process's Raft.Step. Raft
// bears loss and does not bear waiting: what does not fit, or meets a broken
// connection, is dropped and Raft.Unreachable is told.
package rpc

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// Limits on what one request may carry, in bytes.
const (
	MaxCall    = 16 << 20 // body of a call, and of its answer
	MaxMessage = 64 << 20 // message of a stream
)

// Process says who a process is. A process that lacks a role has 0 for its id.
type Process struct {
	Cluster        uint64
	UUID           string
	MetaID, DataID dsdb.NodeID
	Epoch          uint64 // counts the starts of the process
	Addr           string // host:port at which others reach it
	Version        string // of its program, for people
}

// has reports whether id names the process.
func (p *Process) has(id dsdb.NodeID) bool { return id != 0 && (id == p.MetaID || id == p.DataID) }

// ids returns the ids of the process's roles.
func (p *Process) ids() []dsdb.NodeID {
	var ids []dsdb.NodeID
	if p.MetaID != 0 {
		ids = append(ids, p.MetaID)
	}
	if p.DataID != 0 {
		ids = append(ids, p.DataID)
	}
	return ids
}

// who names the process for people.
func (p *Process) who() string { return who(p.ids(), p.Addr, p.UUID) }

// node returns the id under which the process holds its replica of g.
func (p *Process) node(g dsdb.GroupID) dsdb.NodeID {
	if p.DataID == 0 || g == dsdb.MetaGroup && p.MetaID != 0 {
		return p.MetaID
	}
	return p.DataID
}

// sender names the process as the one that a message of g comes from.
func (p *Process) sender(g dsdb.GroupID) raftnode.Sender {
	s := raftnode.Sender{Node: p.node(g), Other: p.MetaID}
	if s.Node == p.MetaID {
		s.Other = p.DataID
	}
	return s
}

// Raft takes what arrives for the groups of this node. Its methods are safe for
// concurrent use, and but for Install they do not block. *raftnode.Host is one.
type Raft interface {
	Step(from raftnode.Sender, msgs []raftnode.Envelope)
	PeerDown(node dsdb.NodeID)
	Unreachable(node dsdb.NodeID)
	Install(ctx context.Context, from raftnode.Sender, s raftnode.Snapshot, dir string) error
}

// Options are what Peers work with.
type Options struct {
	Self   Process
	Secret []byte      // shared by all processes of the cluster; empty: peers are believed
	TLS    *tls.Config // of connections made here; nil: plain
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Logger *slog.Logger
	// Raft returns where raft messages go, nil while there is nothing to take
	// them. It is asked for each frame and must be quick.
	Raft func() Raft
	// Incoming says where an arriving snapshot of a group is put: a folder of its
	// own is made in dir, and removed again.
	Incoming func(g dsdb.GroupID) (fs vfs.FS, dir string, err error)
	// Files says where the files that a manifest of a group names lie.
	Files        func(g dsdb.GroupID) (fs vfs.FS, dir string, err error)
	SnapshotRate int64         // bytes per second of all outgoing snapshots together; 0: 64 MiB
	PingEvery    time.Duration // see isUp; 0: 1 s
	// Wall tells the date and time, which is compared with that of other processes;
	// nil: time.Now.
	Wall func() time.Time
}

// Node is a role of a process as the catalogue has it.
type Node struct {
	ID   dsdb.NodeID
	UUID string // of the process
	Addr string // host:port at which it is reached
	Gone bool   // the process was dropped, or replaced
}

// CallHandler answers calls. The body is the handler's. An error reaches the
// caller with its kind, text and leader. ctx ends when the caller gives up or is
// lost, and at Close, which waits for handlers.
type CallHandler func(ctx context.Context, from Process, body []byte) ([]byte, error)

// StreamHandler is the answering side of a stream. The stream ends when it
// returns; the peer's Recv gets the error, or io.EOF. ctx ends when the opener
// gives up or is lost, and at Close, which waits for handlers.
type StreamHandler func(ctx context.Context, from Process, s *Stream) error

// Metrics count what has happened since New.
type Metrics struct {
	Sent, Received     Traffic
	Dropped            atomic.Uint64 // raft messages that were not sent
	Connections        atomic.Uint64 // established, in either direction
	Refused            atomic.Uint64 // handshakes, on either side
	Calls, CallsServed atomic.Uint64
	Streams            atomic.Uint64 // opened or served
	SnapshotsFailed    atomic.Uint64 // on either side
}

// Traffic counts what has gone one way, by established connections.
type Traffic struct {
	Frames, Bytes atomic.Uint64 // everything
	Messages      atomic.Uint64 // of raft
	Snapshots     atomic.Uint64 // whole ones
	SnapshotBytes atomic.Uint64 // of their files, also of those that failed
}

// Peers are the other processes of the cluster. All methods are safe for
// concurrent use.
type Peers struct {
	opt        Options
	instance   uint64 // tells this process from a copy of it
	metrics    Metrics
	handlers   handlers
	handshakes handshakes
	refusals   refusals
	snapshots  transfers
	ctx        context.Context // ends at Close
	stop       context.CancelFunc
	running    running

	mu       sync.RWMutex // taken before a peer's
	registry registry     // guarded by mu
}

// running are the goroutines that Close waits for.
type running struct {
	group  sync.WaitGroup // added to under mu while not closed
	mu     sync.Mutex
	closed bool
}

// handlers are what has been registered to answer. They are looked up by
// method for each request.
type handlers struct {
	mu      sync.RWMutex
	calls   map[string]CallHandler
	streams map[string]StreamHandler
}

// New makes the peers of this process. Nothing is dialed before SetNodes or the
// first use of a peer.
func New(o Options) *Peers {
	if o.SnapshotRate <= 0 {
		o.SnapshotRate = 64 << 20
	}
	if o.PingEvery <= 0 {
		o.PingEvery = pingEvery
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, as crypto/rand says
	p := &Peers{
		opt:       o,
		instance:  binary.LittleEndian.Uint64(b[:]),
		handlers:  handlers{calls: map[string]CallHandler{}, streams: map[string]StreamHandler{}},
		refusals:  refusals{logged: map[string]bool{}},
		snapshots: newTransfers(o.SnapshotRate),
		registry:  newRegistry(),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.HandleStream(snapshotMethod, p.receive)
	p.Handle(methodPing, func(context.Context, Process, []byte) ([]byte, error) {
		return appendTime(nil, o.Wall().UnixNano()), nil
	})
	p.start(p.listen)
	return p
}

// Handle registers what answers calls of a method. Methods are at most 255 bytes.
func (p *Peers) Handle(method string, h CallHandler) {
	p.handlers.mu.Lock()
	defer p.handlers.mu.Unlock()
	p.handlers.calls[method] = h
}

// HandleStream registers what answers streams of a method. Methods are at most 255 bytes.
func (p *Peers) HandleStream(method string, h StreamHandler) {
	p.handlers.mu.Lock()
	defer p.handlers.mu.Unlock()
	p.handlers.streams[method] = h
}

// Metrics returns the counters.
func (p *Peers) Metrics() *Metrics { return &p.metrics }

// Close ends all connections and waits for everything that was started, the
// handlers included. Snapshots that wait are told that they failed.
func (p *Peers) Close() error {
	p.stop()
	p.running.mu.Lock()
	p.running.closed = true
	p.running.mu.Unlock()
	p.running.group.Wait()
	return nil
}

// start runs f in a goroutine that Close waits for. It reports false, without
// having run it, after Close.
func (p *Peers) start(f func()) bool {
	p.running.mu.Lock()
	defer p.running.mu.Unlock()
	if !p.running.closed {
		p.running.group.Go(f)
	}
	return !p.running.closed
}

func (p *Peers) raft() Raft {
	if p.opt.Raft == nil {
		return nil
	}
	return p.opt.Raft()
}

// sleep waits for d, less if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
