package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
)

// The methods by which the leader of the meta group learns how nodes are and
// has things done there.
const (
	methodReport   = "report"
	methodChange   = "change"
	methodTransfer = "transfer"
)

// Shares of a disk: above diskFull a node gets no more replicas, until it is below
// diskRoomy again.
const (
	diskFull  = 0.85
	diskRoomy = 0.83
)

// report is what a process tells of itself.
type report struct {
	meta.NodeReport
	Version   string `json:"version"`
	Shards    int    `json:"shards"`          // replicas of shards
	Leads     int    `json:"leads"`           // shards that it leads
	Witnesses int    `json:"witnesses"`       // of shards
	Lag       uint64 `json:"lag"`             // most committed entries that one of its replicas knows of and has not applied
	Newer     int    `json:"newer,omitempty"` // of its replicas, the catalogue's too, those that wait for a newer program
	DiskUsed  uint64 `json:"disk_used"`       // bytes, of the disk that holds the points
	DiskFree  uint64 `json:"disk_free"`       // bytes

	Held map[dsdb.NodeID]string `json:"held,omitempty"` // of the leader of the meta group: why copies that are to go stay on a node
	reportDelta
}

// report tells how this process is.
func (n *Node) report() report {
	r := report{NodeReport: meta.NodeReport{UUID: n.id.UUID}, Version: n.opt.Version}
	if free, total, err := n.fs.Free(n.cfg.Data.Dir); err == nil && total > 0 {
		r.DiskFree, r.DiskUsed = free, total-free
		limit := diskFull
		if p, _ := n.meta.View().Process(n.id.UUID); p.DataFull {
			limit = diskRoomy
		}
		r.DiskFull = float64(r.DiskUsed) > limit*float64(total)
	}
	if n.control != nil {
		r.Held = n.control.held.all()
	}
	r.add(dsdb.MetaGroup, n.host.Status(dsdb.MetaGroup))
	r.Leads = 0 // counts shards
	for _, ref := range n.meta.View().ReplicasOn(n.id.DataID) {
		g := ref.Shard.ID.Group()
		st := n.host.Status(g)
		if n.meta.View().GivenUp(&ref.Shard) {
			r.addLeft(n, g, st)
		}
		if ref.Replica.Witness {
			r.addWitness(ref, st)
			continue
		}
		sh, id, err := n.shards.local(ref.Shard.ID)
		switch {
		case dsdb.KindOf(err) == dsdb.KindCorrupt || errors.Is(err, dsdb.ErrNewer):
			st.Failed, st.Replica = err, ref.Replica.ID
		case err != nil:
			continue // not opened yet
		case st.Failed == nil && sh.Damage() != nil: // it goes on in its group until it is replaced
			r.Failed = append(r.Failed, meta.FailedGroup{Group: g, Replica: id, Reason: sh.Damage().Error()})
		}
		r.Shards++
		r.add(g, st)
	}
	return r
}

// add tells of one replica.
func (r *report) add(g dsdb.GroupID, st raftnode.GroupStatus) {
	switch {
	case errors.Is(st.Failed, dsdb.ErrNewer):
		r.Newer++
		return
	case broken(st) != nil:
		r.Failed = append(r.Failed, meta.FailedGroup{Group: g, Replica: st.Replica, Reason: st.Failed.Error()})
		return
	}
	r.Lag = max(r.Lag, raftnode.Lacked(st.Commit, st.Applied))
	if !st.Leading {
		return
	}
	r.Leads++
	gr := meta.GroupReport{Group: g, Replica: st.Replica, Term: st.Term, Commit: st.Commit,
		Members: groupMembers(st.Members)}
	for _, p := range st.Progress {
		gr.Progress = append(gr.Progress, meta.Progress{Replica: p.Replica, Match: p.Match, Sent: p.Sent, Queued: p.Queued, Active: p.Active})
	}
	r.Groups = append(r.Groups, gr)
}

func groupMembers(m raftnode.Members) meta.Members {
	return meta.Members{Voters: members(m.Voters), Outgoing: members(m.Outgoing), Learners: members(m.Learners)}
}

func members(peers []raftnode.Peer) []meta.Member {
	var out []meta.Member
	for _, p := range peers {
		out = append(out, meta.Member(p))
	}
	return out
}

// reportOf asks a process how it is; body is that of the call.
func (n *Node) reportOf(ctx context.Context, p *meta.Process, body []byte) (r report, err error) {
	if p.UUID == n.id.UUID {
		return n.report(), nil
	}
	b, err := n.peers.Call(ctx, p.ID(), methodReport, body)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("report of node %d: %w", p.ID(), err)
	}
	r.UUID = p.UUID // who answered was told by the handshake
	return r, nil
}

// wholeReport asks a process how it is.
func (n *Node) wholeReport(ctx context.Context, p *meta.Process) (report, error) {
	return n.reportOf(ctx, p, nil)
}

// reports asks all processes of the catalogue at the same time by ask; nil stands
// for one that did not answer, or is gone.
func (n *Node) reports(ctx context.Context, view *meta.Data, wait time.Duration, ask func(context.Context, *meta.Process) (report, error)) []*report {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	out := make([]*report, len(view.Processes))
	done := make(chan struct{})
	asked := 0
	for i := range view.Processes {
		p := &view.Processes[i]
		if p.Gone() {
			continue
		}
		asked++
		go func() {
			if r, err := ask(ctx, p); err == nil {
				out[i] = &r
			}
			done <- struct{}{}
		}()
	}
	for range asked {
		<-done
	}
	return out
}
