package exec

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
)

// Conn carries messages to and from another node, in order. Send may keep
// nothing of b; what Recv returns is the caller's. Recv returns io.EOF when the
// other side has closed. Close may be called at any time and by anybody, more
// than once, and ends a Send or Recv that waits.
type Conn interface {
	Send(b []byte) error
	Recv() ([]byte, error)
	Close() error
}

// Remote is another node as one query sees it: shards that lie there answer
// through it, and their morsels run there. Its counterpart is Serve. Requests of
// several goroutines wait for each other.
//
// When the connection is lost the query fails with KindUnavailable, as does
// everything that is asked of the Remote later: the query may be run again
// through other nodes. Errors of the other side keep their kind and text.
type Remote struct {
	conn Conn

	mu      sync.Mutex // held while a request is answered; guards what follows
	id      uint64     // of the last request
	err     error      // why the connection is of no use any more
	planned bool       // the other side has the plan
	laid    bool       // it has the windows of the source that it has listed last
}

// NewRemote returns a Remote that owns conn, for one query.
func NewRemote(conn Conn) *Remote { return &Remote{conn: conn} }

// Close ends the connection; the other side releases what it holds for the
// query. It is idempotent, and to be called after the query's Result is closed.
func (r *Remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil { // let it end well, so that the connection can serve again
		r.err = dsdb.Errorf(dsdb.KindUnavailable, "the query is closed")
		err := send(r.conn, requestHead(endRequest, r.id+1))
		for err == nil {
			_, err = r.conn.Recv()
		}
	}
	return r.conn.Close()
}

// Source returns a shard of the other node. Nothing is asked before it is used;
// one that is not there has no measurements and no tag keys, and its series are
// reported as KindNotFound.
func (r *Remote) Source(id dsdb.ShardID) Source { return &remoteSource{r: r, id: id} }

// remoteSource is a shard of another node.
type remoteSource struct {
	r  *Remote
	id dsdb.ShardID
}

// remoteOf returns the node on which a source lies, nil if that is this one.
func remoteOf(s Source) *Remote {
	if s, ok := s.(*remoteSource); ok {
		return s.r
	}
	return nil
}

// Series implements Source.
func (s *remoteSource) Series(ctx context.Context, measurement string, where *dsdb.TagExpr, keys []string) (set *column.SeriesSet, err error) {
	body := appendSeriesRequest(nil, s.id, measurement, where, keys)
	err = s.r.ask(ctx, seriesRequest, body, func(b []byte) (err error) {
		set, err = decodeSet(wire.NewReader(b), keys)
		return err
	})
	return set, err
}

// Measurements implements Source.
func (s *remoteSource) Measurements(ctx context.Context) ([]string, error) {
	return s.r.strings(ctx, measurementsRequest, appendShards(nil, []dsdb.ShardID{s.id}))
}

// TagKeys implements Source.
func (s *remoteSource) TagKeys(ctx context.Context, measurement string) ([]string, error) {
	return s.r.strings(ctx, tagKeysRequest, appendShards(wire.AppendString(nil, measurement), []dsdb.ShardID{s.id}))
}

// Scan implements Source. Rows do not travel: who reads a shard runs where it lies.
func (s *remoteSource) Scan(context.Context, dsdb.Scan) (column.Cursor, error) {
	panic("BUG: scan of a shard on another node")
}

// Close implements Source; the other side's snapshot is released with the Remote.
func (s *remoteSource) Close() error { return nil }

// strings returns the list that a request is answered with.
func (r *Remote) strings(ctx context.Context, kind requestKind, body []byte) ([]string, error) {
	var out []string
	err := r.ask(ctx, kind, body, func(b []byte) error {
		m := wire.NewReader(b)
		out = append(out, m.Strings()...)
		return m.End()
	})
	return out, err
}

// ask sends a request and hands each item of the answer to item.
func (r *Remote) ask(ctx context.Context, kind requestKind, body []byte, item func(b []byte) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.exchange(ctx, kind, body, item)
	return err
}

// exchange sends a request and hands each item of the answer to item; r.mu is
// held. After an error of item it asks the other side to stop, passes over what
// still comes, and returns that error.
func (r *Remote) exchange(ctx context.Context, kind requestKind, body []byte, item func(b []byte) error) (c Counters, err error) {
	if err := ctx.Err(); err != nil {
		return c, canceled(err)
	}
	if r.err != nil {
		return c, r.err
	}
	unwatch := context.AfterFunc(ctx, func() { r.conn.Close() })
	defer func() {
		if !unwatch() && r.err == nil {
			r.err = canceled(ctx.Err())
		}
	}()
	r.id++
	if err := send(r.conn, append(requestHead(kind, r.id), body...)); err != nil {
		return c, r.lost(ctx, err)
	}
	var failed error
	for {
		b, err := receive(r.conn)
		if err != nil {
			return c, r.lost(ctx, err)
		}
		c.Exchanged += int64(len(b))
		m := wire.NewReader(b)
		switch k := answerKind(m.Byte()); {
		case k == itemAnswer && failed == nil:
			if failed = item(m.Rest()); failed == nil {
				continue
			}
			if err := send(r.conn, requestHead(stopRequest, r.id)); err != nil {
				return c, r.lost(ctx, err)
			}
		case k == itemAnswer:
		case k == doneAnswer:
			c.decode(m)
			if err := m.End(); failed == nil {
				failed = err
			}
			return c, failed
		default:
			err := decodeError(m)
			if failed == nil {
				failed = err
			}
			return c, failed
		}
	}
}

// lost notes that the connection is of no use any more.
func (r *Remote) lost(ctx context.Context, err error) error {
	r.conn.Close()
	if ctx.Err() != nil {
		r.err = canceled(ctx.Err())
	} else {
		r.err = dsdb.Errorf(dsdb.KindUnavailable, "a node that answers a part of the query was lost: %w", err)
	}
	return r.err
}

// opened asks for shards to be opened and returns for each why it is not.
func (r *Remote) opened(ctx context.Context, ids []dsdb.ShardID) ([]error, error) {
	var out []error
	err := r.ask(ctx, openRequest, appendShards(nil, ids), func(b []byte) error {
		m := wire.NewReader(b)
		if m.Bool() {
			out = append(out, decodeError(m))
			return nil
		}
		out = append(out, nil)
		return m.End()
	})
	if err == nil && len(out) != len(ids) {
		err = wrongAnswers(len(out), len(ids))
	}
	return out, err
}

func wrongAnswers(got, want int) error {
	return dsdb.Errorf(dsdb.KindInvalid, "message malformed: %d answers, not %d", got, want)
}

// errNotExist stands for a file that the other node no longer has.
type errNotExist struct{ text string }

func (e *errNotExist) Error() string { return e.text }
func (e *errNotExist) Unwrap() error { return fs.ErrNotExist }

// Marks of errors on the wire beside the kinds.
const (
	plainError byte = iota
	tooMuchError
	notExistError
)

// appendError appends the kind, the text and the leader of an error.
func appendError(dst []byte, err error) []byte {
	mark := plainError
	switch {
	case errors.Is(err, errTooMuch):
		mark = tooMuchError
	case errors.Is(err, fs.ErrNotExist):
		mark = notExistError
	}
	var leader dsdb.NodeID
	var e *dsdb.Error
	if errors.As(err, &e) {
		leader = e.Leader
	}
	dst = append(dst, mark, byte(dsdb.KindOf(err)))
	dst = wire.AppendUint(dst, uint64(leader))
	return wire.AppendString(dst, err.Error())
}

// decodeError reads what appendError appends.
func decodeError(r *wire.Reader) error {
	mark, kind, leader, text := r.Byte(), dsdb.Kind(r.Byte()), dsdb.NodeID(r.Uint(1<<63)), r.String()
	if err := r.End(); err != nil {
		return err
	}
	e := &dsdb.Error{Kind: kind, Text: text, Leader: leader}
	switch mark {
	case tooMuchError:
		return errTooMuch
	case notExistError:
		e.Err = &errNotExist{text}
	}
	return e
}
