package server

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
)

// How the leader of the meta group looks after the cluster.
const (
	controlEvery = time.Second
	controlBusy  = 250 * time.Millisecond // while something is being done
	reportWait   = 800 * time.Millisecond
	actionWait   = 30 * time.Second
)

// control has the meta.Controller decide, where the meta group is led, and
// carries out what it wants.
type control struct {
	n     *Node
	began time.Time
	slots chan struct{} // bounds the actions that are carried out at the same time
	told  reportTold    // to the process that leads the meta group
	heard reportHeard   // from all, while this process does
	held  delays        // what cannot be done, while this process does

	mu     sync.Mutex
	undone []meta.Action // guarded by mu: those that failed since the last step
}

func newControl(n *Node) *control {
	return &control{n: n, began: time.Now(), slots: make(chan struct{}, 16), heard: reportHeard{n: n}}
}

// answer registers what other nodes may ask of this one about the cluster.
func (c *control) answer(p *rpc.Peers) {
	p.Handle(methodReport, c.serveReport)
	p.Handle(methodCatalogue, c.n.serveCatalogue)
	p.Handle(methodPeers, c.n.servePeers)
	p.Handle(methodChange, c.serveChange)
	p.Handle(methodTransfer, c.serveTransfer)
}

// run works until ctx ends.
func (c *control) run(ctx context.Context) {
	t := time.NewTimer(controlEvery)
	defer t.Stop()
	var decider *meta.Controller
	var term uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		t.Reset(controlEvery)
		st := c.n.host.Status(dsdb.MetaGroup)
		if st.Removed && c.n.phase.waiting() == "" {
			c.n.phase.wait("this node was removed from the cluster: to make it a node again, start it with empty folders and -join")
			c.n.log.Error(c.n.phase.waiting())
		}
		if !st.Leading || len(c.n.meta.View().Processes) < 2 {
			decider = nil
			c.held.forget()
			continue
		}
		if decider == nil || term != st.Term {
			if err := c.n.readIndex(ctx, dsdb.MetaGroup); err != nil {
				continue // perhaps it leads no longer
			}
			decider, term = meta.NewController(c.n.controllerOptions()), st.Term
			c.heard.forget()
		}
		if c.step(ctx, decider) {
			t.Reset(controlBusy)
		}
	}
}

// unlimited is a rate that no network reaches, in bytes per second.
const unlimited = 1 << 40

// snapshotRate is how many bytes of snapshots this node sends in a second.
func (n *Node) snapshotRate() int64 {
	if rate := int64(n.cfg.Data.SnapshotThroughput); rate > 0 {
		return rate
	}
	return unlimited
}

// controllerOptions are the default ones with what is configured.
func (n *Node) controllerOptions() meta.ControllerOptions {
	o := meta.DefaultControllerOptions()
	o.MaxVoters, o.DeadAfter = n.cfg.Meta.MaxVoters, time.Duration(n.cfg.Meta.DeadTimeout)
	return o
}

// step gathers reports and carries out what is decided by them. It reports
// whether anything was.
func (c *control) step(ctx context.Context, decider *meta.Controller) bool {
	view := c.n.meta.View()
	for _, r := range c.n.reports(ctx, view, reportWait, c.heard.report) {
		if r != nil {
			decider.Observe(c.now(), r.NodeReport)
		}
	}
	if ctx.Err() != nil {
		return false
	}
	c.mu.Lock()
	undone := c.undone
	c.undone = nil
	c.mu.Unlock()
	for _, a := range undone {
		decider.Undone(a)
	}
	actions := decider.Step(c.now(), c.n.meta.View())
	c.held.set(c.n.log, decider.Delays(), time.Now())
	for _, a := range actions {
		select {
		case c.slots <- struct{}{}:
		default:
			decider.Undone(a)
			continue
		}
		c.n.spawn(func() {
			defer func() { <-c.slots }()
			c.carryOut(ctx, a)
		})
	}
	return len(actions) > 0
}

// now is the controller's time, in milliseconds.
func (c *control) now() int64 { return time.Since(c.began).Milliseconds() }

// carryOut does one thing that was decided. If it fails it is decided again.
func (c *control) carryOut(ctx context.Context, a meta.Action) {
	ctx, cancel := context.WithTimeout(ctx, actionWait)
	defer cancel()
	var err error
	switch {
	case a.Command != nil:
		err = c.n.command(ctx, a.Command)
	case a.Change != nil:
		err = c.change(ctx, a.Change)
	case a.Transfer != nil:
		err = c.transfer(ctx, a.Transfer)
	}
	if err != nil {
		c.mu.Lock()
		c.undone = append(c.undone, a)
		c.mu.Unlock()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.n.log.Warn("looking after the cluster: a step failed and will be decided again", "step", a.Reason, "err", err)
	default:
		c.n.log.Info("looking after the cluster", "step", a.Reason)
	}
}

// change asks the leader of a group to change its members.
func (c *control) change(ctx context.Context, ch *meta.Change) error {
	if c.n.is(ch.Leader) {
		return c.n.host.Change(ctx, ch.Group, changes(ch.Steps))
	}
	return c.ask(ctx, ch.Leader, methodChange, ch)
}

// transfer asks the leader of a group to let another lead.
func (c *control) transfer(ctx context.Context, t *meta.Transfer) error {
	if c.n.is(t.Leader) {
		return c.n.host.Transfer(ctx, t.Group, t.To)
	}
	return c.ask(ctx, t.Leader, methodTransfer, t)
}

func (c *control) ask(ctx context.Context, node dsdb.NodeID, method string, what any) error {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = c.n.peers.Call(ctx, node, method, b)
	return err
}

func changes(steps []meta.MemberChange) []raftnode.Change {
	out := make([]raftnode.Change, len(steps))
	for i, s := range steps {
		out[i] = raftnode.Change{Peer: raftnode.Peer(s.Member)}
		switch s.Op {
		case meta.AddLearner:
			out[i].Op = raftnode.AddLearner
		case meta.AddVoter:
			out[i].Op = raftnode.AddVoter
		case meta.RemoveMember:
			out[i].Op = raftnode.Remove
		case meta.DemoteVoter:
			out[i].Op = raftnode.Demote
		}
	}
	return out
}

// serveReport answers the call "report": all, or if the body is the number of a
// report, or 0, what is not as in that.
func (c *control) serveReport(_ context.Context, from rpc.Process, body []byte) ([]byte, error) {
	r := c.n.report()
	if len(body) > 0 {
		w := wire.NewReader(body)
		since := w.Uint(math.MaxUint64)
		if err := w.End(); err != nil {
			return nil, err
		}
		c.told.reduce(&r, from.UUID, since, c.n.id.Epoch<<32)
	}
	return json.Marshal(r)
}

// serveChange answers the call "change" for a group that this node leads.
func (c *control) serveChange(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	var ch meta.Change
	if err := json.Unmarshal(body, &ch); err != nil {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "change of members: %w", err)
	}
	return nil, c.n.host.Change(ctx, ch.Group, changes(ch.Steps))
}

// serveTransfer answers the call "transfer" for a group that this node leads.
func (c *control) serveTransfer(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	var t meta.Transfer
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "transfer of a leadership: %w", err)
	}
	return nil, c.n.host.Transfer(ctx, t.Group, t.To)
}
