package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/server/rpc"
)

// methodQuery is the stream on which a node answers from its shards for
// another: a queryHeader, then what exec says.
const methodQuery = "query"

// A node to which a stream cannot be opened within openWait counts as gone. One
// that is to answer and has not for quietTime is pinged; it counts as gone if
// that is not answered within pingWait.
const (
	openWait  = 2 * time.Second
	quietTime = time.Second
	pingWait  = 1500 * time.Millisecond
)

// maxHeader bounds the bytes of a queryHeader.
const maxHeader = 4 << 10

// queryHeader is the first message of a query stream, as JSON.
type queryHeader struct {
	readLevel
	Catalogue uint64 `json:"catalogue"` // index of the asker's: it names shards that an older one does not know
}

// remote returns the stream to a node on which this statement's shards there
// are read. It is opened when it is first needed.
func (s *session) remote(node dsdb.NodeID) (*exec.Remote, error) {
	s.mu.Lock()
	r := s.remotes[node]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	conn, err := s.connect(node)
	if err != nil {
		s.fail(node, err)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.remotes[node]; r != nil { // somebody was faster
		return r, conn.Close()
	}
	r = exec.NewRemote(conn)
	s.remotes[node] = r
	return r, nil
}

// connect opens a stream to a node and tells it what is to come.
func (s *session) connect(node dsdb.NodeID) (*queryConn, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	wait := openWait
	if !s.n.up(node) {
		wait = lostWait
	}
	late := time.AfterFunc(wait, cancel)
	stream, err := s.n.peers.Open(ctx, node, methodQuery)
	if !late.Stop() {
		if err == nil {
			stream.Close()
		}
		err = dsdb.Errorf(dsdb.KindUnavailable, "%s has not answered in %v", nodeName(s.view, node), wait)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	c := &queryConn{Stream: stream, s: s, node: node, cancel: cancel}
	header, err := json.Marshal(queryHeader{s.level, s.view.Index})
	if err == nil {
		err = stream.Send(header)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// queryConn is a stream that tells its session when it breaks.
type queryConn struct {
	*rpc.Stream
	s      *session
	node   dsdb.NodeID
	cancel context.CancelFunc // ends what the stream waits for
	closed atomic.Bool        // by this side: what fails then is no fault of the node
}

// Close implements exec.Conn.
func (c *queryConn) Close() error {
	c.closed.Store(true)
	err := c.Stream.Close()
	c.cancel()
	return err
}

// Send implements exec.Conn.
func (c *queryConn) Send(b []byte) error { return c.note(c.Stream.Send(b)) }

// Recv implements exec.Conn.
func (c *queryConn) Recv() ([]byte, error) {
	answered := make(chan struct{})
	watch := time.AfterFunc(quietTime, func() { c.watch(answered) })
	b, err := c.Stream.Recv()
	close(answered)
	watch.Stop()
	return b, c.note(err)
}

// watch ends a stream whose other side is not alive: a process that hangs keeps
// its connections.
func (c *queryConn) watch(answered <-chan struct{}) {
	for {
		ctx, cancel := context.WithTimeout(c.s.ctx, pingWait)
		err := c.s.n.peers.Ping(ctx, c.node)
		cancel()
		select {
		case <-answered:
			return
		case <-c.s.ctx.Done():
			return
		default:
		}
		if err != nil {
			c.s.fail(c.node, err)
			c.Close()
			return
		}
		if pauseFor(c.s.ctx, quietTime) != nil {
			return
		}
	}
}

func (c *queryConn) note(err error) error {
	if err != nil && !c.closed.Load() {
		c.s.fail(c.node, err)
	}
	return err
}

// serveQuery answers a query stream.
func (n *Node) serveQuery(ctx context.Context, _ rpc.Process, s *rpc.Stream) error {
	b, err := s.Recv()
	if err != nil {
		return err
	}
	var h queryHeader
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); len(b) > maxHeader || err != nil {
		return dsdb.Errorf(dsdb.KindInvalid, "query stream: header of %d bytes: %w", len(b), err)
	}
	if err := n.knowCatalogue(ctx, h.Catalogue); err != nil {
		return err
	}
	return exec.Serve(ctx, s, func(ctx context.Context, id dsdb.ShardID) (exec.Source, error) {
		src, err := n.openLocal(ctx, id, h.readLevel)
		if err != nil && ctx.Err() == nil && !everywhere(err) {
			err = unread{n.id.DataID, id}.error(err)
		}
		return src, err
	}, n.execOptions(0))
}

// knowCatalogue waits until this node knows what whoever asks it knows.
func (n *Node) knowCatalogue(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	if err := n.meta.Wait(ctx, index); err != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "the catalogue on this node is at %d, not at %d: %w", n.meta.View().Index, index, err)
	}
	return nil
}

// unread says that a node cannot answer from its replica of a shard, though
// others may. It travels as the text of an error.
type unread struct {
	node  dsdb.NodeID
	shard dsdb.ShardID
}

const unreadFormat = "node %d cannot read shard %d"

func (r unread) error(err error) error {
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: fmt.Sprintf(unreadFormat+": %v", r.node, r.shard, err), Err: err}
}

// unreadOf finds the unread replica that an error of a statement is about.
func unreadOf(err error) (r unread, ok bool) {
	var e *dsdb.Error
	if !errors.As(err, &e) {
		return r, false
	}
	count, _ := fmt.Sscanf(e.Text, unreadFormat, &r.node, &r.shard)
	return r, count == 2
}
