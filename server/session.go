package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/server/httpd"
)

// opensPerQuery is how many shards of one query are opened at a time.
const opensPerQuery = 32

// readLevel says what a query may miss.
type readLevel struct {
	Read      httpd.ReadConsistency `json:"read"`
	Staleness time.Duration         `json:"staleness,omitempty"`
}

// session is one statement's view of the cluster: one version of the catalogue
// and one snapshot of each shard that planner and exec ask for, wherever its
// replicas are. Safe for concurrent use until Close.
type session struct {
	n          *Node
	ctx        context.Context // of the statement
	level      readLevel
	view       *meta.Data
	*statement // nil if nothing is planned in it

	mu      sync.Mutex // guards what follows
	sources map[dsdb.ShardID]*sharedSource
	remotes map[dsdb.NodeID]*exec.Remote
	failed  outages
	losses  int  // how many more there are than when the session began
	nobody  bool // of some shard no replica was left to be asked

	staleness staleness // of what is read at ReadStale
}

// outages are what a statement does not ask (again): whole nodes, by shard 0,
// and single replicas.
type outages map[unread]error

// sharedSource is the source of a shard, while and after it is opened.
type sharedSource struct {
	done chan struct{} // closed when src or err is set
	src  exec.Source
	err  error
}

// openSession begins a statement: it reads the catalogue at the level asked
// for. Nodes that have failed an earlier try are not asked.
func (n *Node) openSession(ctx context.Context, level readLevel, failed outages) (*session, error) {
	s := &session{n: n, ctx: ctx, level: level, sources: map[dsdb.ShardID]*sharedSource{},
		remotes: map[dsdb.NodeID]*exec.Remote{}, failed: outages{}}
	var err error
	if level.Read == httpd.ReadStale {
		err = n.freshEnough(ctx, dsdb.MetaGroup, level.Staleness)
		s.staleness.add(n.asOf(ctx, dsdb.MetaGroup))
	} else {
		err = n.currentCatalogue(ctx, level.Read)
	}
	if err != nil {
		return nil, err
	}
	s.view = n.meta.View()
	maps.Copy(s.failed, failed)
	return s, nil
}

// Close releases the sources and ends the streams.
func (s *session) Close() error {
	s.mu.Lock()
	sources, remotes := s.sources, s.remotes
	s.sources, s.remotes = nil, nil
	s.mu.Unlock() // ending a stream waits for its node
	var errs []error
	for _, src := range sources {
		if own, ok := src.src.(unclosed); ok {
			errs = append(errs, own.Source.Close())
		}
	}
	for _, r := range remotes {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// open implements exec.Open. Closing what it returns does nothing: the session
// closes it.
func (s *session) open(ctx context.Context, id dsdb.ShardID) (exec.Source, error) {
	s.mu.Lock()
	shared := s.sources[id]
	if shared == nil {
		shared = &sharedSource{done: make(chan struct{})}
		s.sources[id] = shared
		s.mu.Unlock()
		shared.src, shared.err = s.find(ctx, id)
		close(shared.done)
	} else {
		s.mu.Unlock()
		select {
		case <-shared.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if shared.err != nil {
		return nil, shared.err
	}
	return shared.src, nil
}

// prepare opens shards at the same time, where opening one takes asking another node.
func (s *session) prepare(ctx context.Context, list []planner.Shard) {
	if s.n.peers == nil || len(list) < 2 {
		return
	}
	atOnce(opensPerQuery, list, func(_ int, sh planner.Shard) {
		_, _ = s.open(ctx, sh.ID) // whoever needs the shard is told the error
	})
}

// prepareAll opens the shards that a plan names.
func (s *session) prepareAll(ctx context.Context, p *planner.Select) {
	for i := range p.Sources {
		s.prepare(ctx, p.Sources[i].Shards)
	}
}

// find opens the source of a shard on the replica that is nearest, the next one
// if that cannot answer.
func (s *session) find(ctx context.Context, id dsdb.ShardID) (exec.Source, error) {
	ref, found := s.view.Shard(id)
	if !found {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "shard not found: %d", id)
	}
	var first error
	for _, node := range s.candidates(ref.Shard) {
		src, err := s.openOn(ctx, node, id)
		if err == nil {
			return src, nil
		}
		if ctx.Err() != nil || everywhere(err) {
			return nil, err
		}
		if first == nil || dsdb.KindOf(first) == dsdb.KindNotLeader {
			first = err
		}
		if s.n.is(node) && dsdb.KindOf(err) == dsdb.KindNotLeader { // it may have moved since the catalogue was read
			s.avoid(unread{node, id}, err)
		}
	}
	if first == nil {
		s.mu.Lock()
		s.nobody = true
		s.mu.Unlock()
		first = dsdb.Errorf(dsdb.KindUnavailable, "no replica of shard %d can be reached: %w", id, s.outage(ref.Shard))
	}
	return nil, s.n.withAway(id.Group(), first)
}

// outage returns why a replica of a shard is not asked: rather that its node
// fails than that it does not lead.
func (s *session) outage(sh meta.Shard) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var why error
	for _, r := range sh.Replicas {
		for _, u := range []unread{{node: r.Node}, {r.Node, sh.ID}} {
			if err := s.failed[u]; err != nil && (why == nil || dsdb.KindOf(why) == dsdb.KindNotLeader) {
				why = err
			}
		}
	}
	return cmp.Or(why, errors.New("none votes"))
}

// everywhere reports whether other replicas would say the same.
func everywhere(err error) bool {
	if dsdb.KindOf(err) == dsdb.KindNotFound {
		return true
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.HasPrefix(err.Error(), noQuorum) {
			return true
		}
	}
	return false
}

// candidates returns the nodes with a whole replica of a shard, the one to be asked first first.
func (s *session) candidates(sh meta.Shard) []dsdb.NodeID {
	leader := s.n.routes.leaders.Leader(sh.ID.Group())
	if st := s.n.host.Status(sh.ID.Group()); st.LeaderNode != 0 {
		leader = st.LeaderNode
	}
	rank := func(node dsdb.NodeID) int {
		switch {
		case s.n.is(node) && (s.level.Read != httpd.ReadLeader || node == leader):
			return 0
		case !s.n.up(node):
			return 3
		case node == leader:
			return 1
		}
		return 2
	}
	var nodes []dsdb.NodeID
	s.mu.Lock()
	for _, r := range sh.Replicas {
		if r.Whole() && s.failed[unread{node: r.Node}] == nil && s.failed[unread{r.Node, sh.ID}] == nil {
			nodes = append(nodes, r.Node)
		}
	}
	s.mu.Unlock()
	slices.SortStableFunc(nodes, func(a, b dsdb.NodeID) int { return rank(a) - rank(b) })
	return nodes
}

func (s *session) openOn(ctx context.Context, node dsdb.NodeID, id dsdb.ShardID) (exec.Source, error) {
	if s.n.is(node) {
		s.noteAge(ctx, node, id) // first: what is read later is no older
		src, err := s.n.openLocal(ctx, id, s.level)
		if s.level.Read == httpd.ReadStale && err == nil && s.n.filesOnly(id) {
			s.staleness.lacks(id)
		}
		return unclosed{src}, err
	}
	r, err := s.remote(node)
	if err != nil {
		return nil, err
	}
	s.noteAge(ctx, node, id)
	return r.Source(id), nil
}

// noteAge notes how old a replica is that is to be read, if that may be stale.
func (s *session) noteAge(ctx context.Context, node dsdb.NodeID, id dsdb.ShardID) {
	if s.level.Read != httpd.ReadStale {
		return
	}
	asked := s.n.routes.age()
	at, known := s.n.asOfOn(ctx, node, id.Group())
	s.staleness.add(atMost(s.level.Staleness, asked, at, known))
}

// unclosed is a source that belongs to its session.
type unclosed struct{ exec.Source }

// Close implements exec.Source.
func (unclosed) Close() error { return nil }

// fail notes that a node does not answer.
func (s *session) fail(node dsdb.NodeID, err error) { s.avoid(unread{node: node}, err) }

func (s *session) avoid(r unread, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed[r] == nil {
		s.failed[r] = err
		s.losses++
	}
}

// lost reports whether a statement that ended with err can do better if it is
// begun again, and adds to failed what it need not ask then.
func (s *session) lost(err error, failed outages) bool {
	if err == nil || s.ctx.Err() != nil || everywhere(err) {
		return false
	}
	all := []error{err}
	if several := (*exec.Unopened)(nil); errors.As(err, &several) { // not to find them one after the other
		all = several.All
	}
	for _, err := range all {
		if r, ok := unreadOf(err); ok {
			s.avoid(r, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(failed, s.failed)
	return s.losses > 0 || dsdb.KindOf(err) == dsdb.KindCanceled // by a node that is stopping
}

// pardon reports whether a statement can do better by asking nodes again that have
// failed it: all that have some shard did, and are there; they were too slow, perhaps.
func (s *session) pardon(err error, failed outages) bool {
	s.mu.Lock()
	stranded := s.nobody && dsdb.KindOf(err) == dsdb.KindUnavailable
	s.mu.Unlock()
	before := len(failed)
	maps.DeleteFunc(failed, func(r unread, _ error) bool { return stranded && r.shard == 0 && s.n.up(r.node) })
	return len(failed) < before && pauseFor(s.ctx, pardonPause) == nil
}

// openLocal opens a snapshot of this node's replica of a shard. It reports
// KindNotFound if the shard was dropped.
func (n *Node) openLocal(ctx context.Context, id dsdb.ShardID, level readLevel) (exec.Source, error) {
	src, err := n.openReplica(ctx, id, level)
	if err == nil {
		return src, nil
	}
	if n.meta.View().ShardDropped(id) {
		return nil, errShardDropped(id.Group())
	}
	return nil, plainly(err)
}

func (n *Node) openReplica(ctx context.Context, id dsdb.ShardID, level readLevel) (exec.Source, error) {
	within, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	if err := n.serves(within, id.Group()); err != nil {
		if level.Read == httpd.ReadStale && level.Staleness == 0 && n.filesOnly(id) {
			return n.openFiles(id)
		}
		return nil, err
	}
	sh, err := n.shards.get(id)
	if err == nil {
		err = n.readable(id, sh)
	}
	if err != nil {
		return nil, err
	}
	switch level.Read {
	case httpd.ReadStale:
		err = n.freshEnough(ctx, id.Group(), level.Staleness)
	case httpd.ReadLeader:
		if st := n.host.Status(id.Group()); !st.Leading {
			err = &dsdb.Error{Kind: dsdb.KindNotLeader, Text: fmt.Sprintf("node %d does not lead shard %d", n.dataID, id), Leader: st.LeaderNode}
		}
	default:
		err = n.catchUp(ctx, id.Group())
	}
	if err != nil {
		return nil, err
	}
	return sh.Source()
}
