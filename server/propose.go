package server

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/coord"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
)

// The methods by which nodes ask the leaders of raft groups.
const (
	methodPropose   = "propose"
	methodReadIndex = "readindex"
)

// matchWait is how long the leader waits for its followers to have an entry that
// is committed, for consistency level all.
const matchWait = 2 * time.Second

// routes are how this node finds the leaders of raft groups.
type routes struct {
	began     time.Time
	leaders   coord.Leaders
	sequencer *coord.Sequencer
	indexes   readIndexes
	fresh     coord.Freshness
	merger    merger
	heard     heard
	closed    chan struct{} // closed when the node ends
}

func newRoutes(id meta.Identity) *routes {
	return &routes{began: time.Now(), sequencer: coord.NewSequencer(id.Peer(), id.Epoch), closed: make(chan struct{}),
		indexes: readIndexes{groups: map[dsdb.GroupID]*indexTurn{}},
		merger:  merger{groups: map[dsdb.GroupID]*queue{}}, heard: heard{groups: map[dsdb.GroupID]uint64{}}}
}

// now is the time of attempts, in milliseconds.
func (r *routes) now() int64 { return r.at(time.Now()) }

func (r *routes) at(t time.Time) int64 { return t.Sub(r.began).Milliseconds() }

// age is the time since the node began.
func (r *routes) age() time.Duration { return time.Since(r.began) }

// answerPeers registers what this node answers to others. None of them is
// connected yet.
func (n *Node) answerPeers(p *rpc.Peers) {
	if err := n.sweepIncoming(); err != nil {
		n.log.Warn("what is left of snapshots stays", "err", err)
	}
	p.Handle(methodPropose, n.servePropose)
	p.Handle(methodReadIndex, n.serveReadIndex)
	p.Handle(methodAge, n.serveAge)
	p.Handle(methodChecksum, n.serveChecksum)
	p.Handle(methodFences, serveFences)
	p.HandleStream(methodQuery, n.serveQuery)
}

// propose has a raft group apply what encode makes for the id it is given, and
// returns the verdict. Leaders are looked for until ctx ends or the write
// timeout is over. KindUnavailable means that it certainly did not happen,
// KindTimeout that nobody can tell. What no replica of a shard would get past is not
// proposed: KindInternal.
func (n *Node) propose(ctx context.Context, g dsdb.GroupID, encode func(dsdb.ProposalID) []byte) (dsdb.Verdict, error) {
	ctx, cancel := n.bound(ctx)
	defer cancel()
	id, err := n.takeID(ctx, g)
	if err != nil {
		return dsdb.Verdict{}, err
	}
	defer n.routes.sequencer.Release(g, id)
	payload := encode(id)
	if g != dsdb.MetaGroup {
		if err := shard.Check(payload); err != nil {
			return dsdb.Verdict{}, dsdb.Errorf(dsdb.KindInternal, "not proposed, as no replica of shard %d would get past it: %v", g, err)
		}
	}
	o, err := n.proposeAs(ctx, &proposalCall{group: g, payload: payload})
	return o.Verdict, err
}

// bound ends ctx when the write timeout is over.
func (n *Node) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := time.Duration(n.cfg.Coordinator.WriteTimeout)
	if end, ok := ctx.Deadline(); limit <= 0 || mutant.WaitsForEver || ok && time.Until(end) <= limit {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// takeID returns the id of a new proposal, which is to be released. It waits
// while too many are outstanding.
func (n *Node) takeID(ctx context.Context, g dsdb.GroupID) (dsdb.ProposalID, error) {
	for {
		id, wait := n.routes.sequencer.Take(g)
		if wait == nil {
			return id, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return id, dsdb.Errorf(dsdb.KindUnavailable, "timeout: too many proposals to raft group %d wait for an outcome", g)
		}
	}
}

// proposeAs takes an encoded proposal to the leader of its group. That it leads
// here is the usual case, for which no attempt is begun.
func (n *Node) proposeAs(ctx context.Context, p *proposalCall) (o outcome, err error) {
	unknown := false
	if n.host.Status(p.group).Leading {
		if o, err = n.proposeHere(ctx, p); err == nil {
			return o, nil
		}
		switch dsdb.KindOf(err) {
		case dsdb.KindTimeout:
			unknown = true
		case dsdb.KindNotLeader, dsdb.KindUnavailable:
		default:
			return o, plainly(err)
		}
	}
	if o, err = n.seekLeader(ctx, p); unknown && err != nil && dsdb.KindOf(err) != dsdb.KindNotFound {
		err = &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: err}
	}
	return o, err
}

// seekLeader takes a proposal to the leader of its group, wherever that is.
func (n *Node) seekLeader(ctx context.Context, p *proposalCall) (o outcome, err error) {
	err = n.attempt(ctx, coord.Request{Group: p.group, Failure: failure(p.group)}, func(ctx context.Context, node dsdb.NodeID) error {
		if n.is(node) {
			o, err = n.proposeHere(ctx, p)
			return err
		}
		b, err := n.call(ctx, node, methodPropose, p.append(nil))
		if err == nil {
			o, err = decodeOutcome(b)
			n.routes.heard.note(p.group, o.Index)
		}
		return err
	})
	return o, err
}

// failure is how the error of a proposal begins that certainly did not happen.
func failure(g dsdb.GroupID) string {
	if g == dsdb.MetaGroup {
		return "the catalogue was not changed"
	}
	return "write failed"
}

// attempt follows one proposal or read to the leader of its group: ask asks
// one node. It returns nil if what was asked last had no error.
func (n *Node) attempt(ctx context.Context, r coord.Request, ask func(context.Context, dsdb.NodeID) error) error {
	r.Deadline = math.MaxInt64
	if end, ok := ctx.Deadline(); ok {
		r.Deadline = n.routes.at(end)
	}
	var err error
	if r.Replicas, err = n.members(r.Group); err != nil {
		return err
	}
	n.host.Wake(r.Group) // perhaps its leader is gone
	elected := n.host.Elected(r.Group)
	a, do := coord.Start(&n.routes.leaders, r, n.routes.now())
	for do.Op != coord.Done && !n.dropped(r.Group) {
		if do.Op == coord.Wait {
			sooner, err := n.pause(ctx, time.Duration(do.After)*time.Millisecond, elected)
			if err != nil {
				return a.GiveUp(err)
			}
			elected = n.host.Elected(r.Group)
			if leader := n.host.Status(r.Group).LeaderNode; sooner && leader != 0 {
				do = a.Elected(n.routes.now(), leader)
			} else {
				do = a.Wake(n.routes.now())
			}
			continue
		}
		do = a.Answer(n.routes.now(), n.ask(ctx, do, ask))
	}
	if (do.Op != coord.Done || do.Err != nil) && n.dropped(r.Group) { // whatever became of it is gone
		return errShardDropped(r.Group)
	}
	return n.withAway(r.Group, leaderless(r.Group, r.Failure, plainly(do.Err)))
}

// dropped reports whether a group is that of a shard that is no more.
func (n *Node) dropped(g dsdb.GroupID) bool {
	return g != dsdb.MetaGroup && n.meta.View().ShardDropped(dsdb.ShardID(g))
}

// final is an error that trying again does not change. It has no kind, so that
// an attempt ends with it.
type final struct{ err error }

func (f *final) Error() string { return f.err.Error() }

// plainly returns err as whoever is told it sees it. An outcome that is not
// known stays so, whatever is final in its cause.
func plainly(err error) error {
	if f, ok := err.(*final); ok {
		return f.err
	}
	return err
}

// ask asks one node, no longer than the attempt allows.
func (n *Node) ask(ctx context.Context, do coord.Action, ask func(context.Context, dsdb.NodeID) error) error {
	limit := time.Duration(min(do.After, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > limit {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return ask(ctx, do.Node)
}

// pause waits before an attempt goes on, unless that is of no use. It ends sooner
// when elected is closed, and says so.
func (n *Node) pause(ctx context.Context, d time.Duration, elected <-chan struct{}) (sooner bool, err error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-elected:
		return true, nil
	case <-n.routes.closed:
		return false, dsdb.Errorf(dsdb.KindUnavailable, "the node is shutting down")
	case <-ctx.Done():
		if ctx.Err() == context.Canceled {
			return false, dsdb.Errorf(dsdb.KindCanceled, "canceled: %w", context.Cause(ctx))
		}
	}
	return false, nil
}

func errShardDropped(g dsdb.GroupID) error {
	return dsdb.Errorf(dsdb.KindNotFound, "shard %d was dropped", g)
}

// outcome is a verdict and, if every voter but a witness was to have the entry,
// how many do.
type outcome struct {
	dsdb.Verdict
	have, voters int
}

// proposeHere proposes to this node's replica. What is wrong with the only
// replica of a group is final, as is a full disk.
func (n *Node) proposeHere(ctx context.Context, p *proposalCall) (o outcome, err error) {
	if err := n.serves(ctx, p.group); err != nil {
		return o, err
	}
	o.Verdict, err = n.host.Propose(ctx, p.group, p.payload)
	if vfs.NoSpace(err) {
		return o, &final{err}
	}
	if err == nil && p.matched {
		n.match(ctx, p.group, &o)
	}
	return o, err
}

// serves reports what keeps this node's replica of a group from serving: if
// there are others, they are to be asked instead.
func (n *Node) serves(ctx context.Context, g dsdb.GroupID) error {
	if n.dropped(g) {
		return errShardDropped(g)
	}
	var err error
	if g != dsdb.MetaGroup {
		err = n.shards.await(ctx, dsdb.ShardID(g))
	}
	if err == nil {
		err = n.host.Status(g).Failed
	}
	if err == nil || dsdb.KindOf(err) == dsdb.KindNotLeader || ctx.Err() != nil {
		return err
	}
	if all, err2 := n.members(g); err2 == nil && len(all) > 1 {
		return &dsdb.Error{Kind: dsdb.KindNotLeader, Text: err.Error(), Err: err}
	}
	switch id := dsdb.ShardID(g); {
	case g == dsdb.MetaGroup:
	case n.filesOnly(id):
		err = dsdb.Errorf(dsdb.KindOf(err), "%w; what is in its files can be read with read_consistency=stale; dsdbd recover, on the stopped node, tells what is lost, and with -accept-loss has it go on without", err)
	case n.filesMissing(id):
		err = dsdb.Errorf(dsdb.KindOf(err), "%w; %s", err, filesLost(id))
	}
	return &final{err}
}

// match waits until every voter but a witness has an entry, and counts those that do.
func (n *Node) match(ctx context.Context, g dsdb.GroupID, o *outcome) {
	ctx, cancel := context.WithTimeout(ctx, matchWait)
	defer cancel()
	err := n.host.Matched(ctx, g, o.Index)
	st := n.host.Status(g)
	o.voters = full(st.Members.Voters)
	if o.have = o.voters; err != nil {
		o.have = min(o.voters-1, matched(st, o.Index))
	}
}

// full counts the replicas that are no witnesses.
func full(peers []raftnode.Peer) (n int) {
	for _, p := range peers {
		if !p.Witness {
			n++
		}
	}
	return n
}

// matched counts the voters but witnesses that have an entry, as far as this
// replica, which has it, knows.
func matched(st raftnode.GroupStatus, index uint64) int {
	n := 1
	for _, p := range st.Progress {
		if p.Match >= index && !p.Witness && slices.Contains(st.Members.Voters, p.Peer) {
			n++
		}
	}
	return n
}

// servePropose answers the call "propose": it leads the group, or says who does.
func (n *Node) servePropose(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	p, err := decodeProposal(body)
	if err == nil && p.points {
		err = n.admit()
	}
	if err != nil {
		return nil, err
	}
	o, err := n.proposeHere(ctx, &p)
	if err != nil {
		return nil, plainly(err)
	}
	return o.append(nil), nil
}

// call asks another node.
func (n *Node) call(ctx context.Context, node dsdb.NodeID, method string, body []byte) ([]byte, error) {
	if n.peers == nil {
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "node %d is not this one, which is alone", node)
	}
	b, err := n.peers.Call(ctx, node, method, body)
	if dsdb.KindOf(err) == dsdb.KindCanceled && ctx.Err() == nil { // the other node is stopping, and tells nothing
		err = &dsdb.Error{Kind: dsdb.KindTimeout, Text: err.Error(), Err: err}
	}
	return b, err
}

// is reports whether a node id is of this process.
func (n *Node) is(node dsdb.NodeID) bool {
	return node != 0 && (node == n.id.DataID || node == n.id.MetaID)
}

// members returns the nodes that hold a voter of a group, this node first: those
// that the catalogue has, and those that this node's replica knows, if it has
// one, for either may be behind.
func (n *Node) members(g dsdb.GroupID) ([]dsdb.NodeID, error) {
	view := n.meta.View()
	replicas := view.MetaReplicas
	if g != dsdb.MetaGroup {
		ref, found := view.Shard(dsdb.ShardID(g))
		if !found {
			return nil, errShardDropped(g)
		}
		replicas = ref.Shard.Replicas
	}
	nodes := make([]dsdb.NodeID, 0, len(replicas))
	for _, r := range replicas {
		switch {
		case !r.Votes():
		case n.is(r.Node): // also a witness, which knows who leads
			nodes = slices.Insert(nodes, 0, r.Node)
		default:
			nodes = append(nodes, r.Node)
		}
	}
	for _, p := range n.host.Status(g).Members.Voters {
		if !slices.ContainsFunc(nodes, func(node dsdb.NodeID) bool { return node == p.Node || n.is(node) && n.is(p.Node) }) {
			nodes = append(nodes, p.Node)
		}
	}
	if len(nodes) == 0 && g == dsdb.MetaGroup { // of a cluster that is being founded
		nodes = append(nodes, n.id.Peer())
	}
	return nodes, nil
}
