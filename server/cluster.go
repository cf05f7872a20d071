package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
)

// serverRows lists the nodes of one role for SHOW SERVERS. One that is leaving is
// listed no more, as in InfluxDB, from the moment when it was dropped.
func serverRows(view *meta.Data, kind meta.NodeKind) []exec.ServerRow {
	var rows []exec.ServerRow
	for _, node := range view.NodesOf(kind) {
		if node.State == meta.Leaving {
			continue
		}
		rows = append(rows, exec.ServerRow{ID: node.ID, HTTPAddr: node.HTTPAddr, TCPAddr: node.TCPAddr})
	}
	return rows
}

// Processes implements exec.ShowEnv: it asks every process how it is.
func (e *showEnv) Processes(ctx context.Context) ([]exec.ProcessRow, error) {
	n := e.n
	view := n.meta.View()
	known := map[string]rpc.PeerStatus{}
	for _, st := range n.peers.Status() {
		known[st.Process.UUID] = st
	}
	group := n.host.Status(dsdb.MetaGroup)
	var rows []exec.ProcessRow
	all := n.reports(ctx, view, statusWait, n.wholeReport)
	lags := lagsOf(all)
	for i, r := range all {
		p := &view.Processes[i]
		if p.Gone() {
			continue
		}
		row := exec.ProcessRow{TCPAddr: p.TCPAddr, Role: metaRole(p, group), Authenticated: "none"}
		if p.Has(meta.MetaNode) {
			row.MetaID = p.MetaID
		}
		if p.Has(meta.DataNode) {
			row.DataID = p.DataID
		}
		st, met := known[p.UUID]
		switch {
		case met && st.Authenticated != "none":
			row.Authenticated = st.Authenticated
		case met && n.cfg.Meta.CA != "":
			row.Authenticated = "certificate" // of the authority, without which no connection is served
		}
		switch {
		case r != nil:
			row.Status, row.LastSeen = meta.Up.String(), time.Now().UnixNano()
			row.Version, row.Shards, row.Leads, row.Witnesses, row.Lag = r.Version, r.Shards, r.Leads, r.Witnesses, r.Lag
			row.DiskUsed, row.DiskFree = int64(r.DiskUsed), int64(r.DiskFree)
		default:
			row.Status, row.LastSeen = n.silence(st, met)
			row.Version = st.Process.Version
		}
		if r != nil && r.Newer > 0 {
			row.Status += ", needs an upgrade"
		}
		row.Lag = max(row.Lag, lags[p.MetaID], lags[p.DataID])
		if p.UUID == n.id.UUID {
			row.Authenticated = "self"
		}
		if p.MetaState == meta.Leaving || p.DataState == meta.Leaving {
			row.Status += ", leaving" + held(all, p.DataID)
			row.Shards = len(view.ReplicasOn(p.DataID)) // also if it does not answer: they are to be moved
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// lagsOf returns how many entries the replica on each node that is furthest behind
// lacks, as the leaders know it.
func lagsOf(all []*report) map[dsdb.NodeID]uint64 {
	lags := map[dsdb.NodeID]uint64{}
	for _, r := range all {
		if r == nil {
			continue
		}
		for i := range r.Groups {
			g := &r.Groups[i]
			match := map[dsdb.ReplicaID]uint64{}
			for _, p := range g.Progress {
				match[p.Replica] = p.Match
			}
			for _, m := range slices.Concat(g.Members.Voters, g.Members.Outgoing, g.Members.Learners) {
				if at, known := match[m.Replica]; known {
					lags[m.Node] = max(lags[m.Node], raftnode.Lacked(g.Commit, at))
				}
			}
		}
	}
	delete(lags, 0) // a role that a process does not have
	return lags
}

// held says why the copies on a data node that leaves stay there, "" if they go.
func held(all []*report, node dsdb.NodeID) string {
	for _, r := range all {
		if r != nil && r.Held[node] != "" {
			return ": " + r.Held[node]
		}
	}
	return ""
}

// aboutNodes reports whether a statement lists the nodes of the cluster.
func aboutNodes(s ql.Statement) bool {
	switch s.(type) {
	case *ql.ShowServers, *ql.ShowCluster:
		return true
	}
	return false
}

// metaRole says what a process is in the meta group.
func metaRole(p *meta.Process, st raftnode.GroupStatus) string {
	its := func(q raftnode.Peer) bool { return q.Node != 0 && (q.Node == p.MetaID || q.Node == p.DataID) }
	switch {
	case st.LeaderNode != 0 && its(raftnode.Peer{Node: st.LeaderNode}):
		return "leader"
	case slices.ContainsFunc(st.Members.Voters, its):
		return meta.Voter.String()
	case slices.ContainsFunc(st.Members.Learners, its):
		return "standby"
	}
	return ""
}

// silence says how a process is that does not answer.
func (n *Node) silence(st rpc.PeerStatus, met bool) (status string, last int64) {
	if mutant.SilenceIsUp {
		return meta.Up.String(), time.Now().UnixNano()
	}
	switch {
	case !met || st.Since.IsZero():
		return meta.Suspect.String(), 0
	case st.Up: // connected, and busy
		return meta.Suspect.String(), time.Now().UnixNano()
	case time.Since(st.Since) >= time.Duration(n.cfg.Meta.DeadTimeout):
		return meta.Dead.String(), st.Since.UnixNano()
	}
	return meta.Suspect.String(), st.Since.UnixNano()
}

// dropServer carries out DROP META SERVER and DROP DATA SERVER. The controller
// moves away what a data node holds, and takes a meta node's vote.
func (n *Node) dropServer(ctx context.Context, c *planner.Command) error {
	kind := meta.DataNode
	if c.Kind == planner.DropMetaServer {
		kind = meta.MetaNode
	}
	return n.command(ctx, &meta.DropNode{ID: c.Node, Kind: kind, Force: c.Force, Lost: c.Force, Now: n.opt.Wall().UnixNano()})
}

// missingQuorum says which meta nodes do not answer.
func (n *Node) missingQuorum() string {
	reached, voters, silent := n.quorum()
	text := fmt.Sprintf("a quorum of the meta nodes: %d/%d are reachable", reached, voters)
	if voters == 0 {
		return "the catalogue from the meta nodes"
	}
	if len(silent) > 0 {
		text += ", not " + strings.Join(silent, ", ")
	} else {
		text += ", no leader yet"
	}
	return text + n.spaceLeft()
}

// quorum counts the meta nodes that vote, and those of them that are up as far as
// this node knows, itself included; silent are the addresses of the others, with the reasons of refusals.
func (n *Node) quorum() (reached, voters int, silent []string) {
	view := n.meta.View()
	up, refusal := map[string]bool{n.id.UUID: true}, map[string]string{}
	for _, st := range n.peers.Status() {
		up[st.Process.UUID] = up[st.Process.UUID] || st.Up
		refusal[st.Process.UUID] = st.Refusal
	}
	for _, r := range n.host.Status(dsdb.MetaGroup).Members.Voters {
		voters++
		p, _ := view.ProcessOf(r.Node)
		if up[p.UUID] {
			reached++
		} else {
			if why := refusal[p.UUID]; why != "" {
				silent = append(silent, p.TCPAddr+" ("+why+")")
			} else {
				silent = append(silent, p.TCPAddr)
			}
		}
	}
	return reached, voters, silent
}

// warnOfPeers logs what other nodes can do without a proof of who they are.
func (n *Node) warnOfPeers() {
	host, _, err := net.SplitHostPort(n.addrs.TCP)
	if err != nil || n.authenticatedPeers() || len(n.meta.View().Processes) < 2 && isLoopbackHost(host) {
		return
	}
	n.log.Warn("whoever reaches this address is taken for a node of the cluster and may read and change everything: set [meta] shared-secret on all nodes, or https-ca", "address", n.addrs.TCP)
}

// authenticatedPeers reports whether other nodes must prove who they are.
func (n *Node) authenticatedPeers() bool {
	secret, _ := n.cfg.Meta.Secret() // was read when the configuration was checked
	return secret != nil || n.cfg.Meta.CA != ""
}
