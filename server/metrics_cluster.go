package server

import (
	"cmp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
)

// clusterCollector reads what the node knows of its raft groups and of the other
// nodes. There is no label per shard: there may be thousands. What docs/clustering.md
// tells operators of these figures goes with them.
type clusterCollector struct{ n *Node }

var (
	raftGroups     = desc("raft_groups", "Raft groups with a replica on this node, that of the catalogue included.")
	raftLeading    = desc("raft_groups_leading", "Raft groups that this node leads.")
	raftLeaderless = desc("raft_groups_without_leader", "Raft groups with a replica on this node that know of no leader.")
	raftUnapplied  = desc("raft_unapplied_entries", "Most entries that a replica on this node knows to be committed and has still to apply.")
	raftWaiting    = desc("raft_waiting_requests", "Proposals and reads that wait for an outcome.")
	raftProposed   = desc("raft_proposals_total", "Proposals given to raft groups.")
	raftRefused    = desc("raft_proposals_refused_total", "Proposals that were refused, and have no effect: this node does not lead, or has no room.")
	raftUncertain  = desc("raft_proposals_uncertain_total", "Proposals whose outcome was not known in time.")
	raftApplied    = desc("raft_applied_entries_total", "Log entries applied to state machines.")
	raftElected    = desc("raft_elections_won_total", "Times that a replica on this node has become the leader of others.")
	raftLeaders    = desc("raft_leader_changes_total", "Times that a raft group with a replica on this node was found to have a leader, another one or again.")
	raftSent       = desc("raft_messages_sent_total", "Messages of raft groups that were sent to other nodes.")
	raftReceived   = desc("raft_messages_received_total", "Messages of raft groups that came from other nodes.")
	raftDropped    = desc("raft_messages_dropped_total", "Messages of raft groups that were not sent, as there was no connection or no room.")
	lagEntries     = desc("replication_lag_entries", "Most committed entries that a replica on another node lacks, of the raft groups that this node leads.", "node")
	lagSeconds     = desc("replication_lag_seconds", "How old the oldest of these entries is; 0 if less than a second.", "node")

	snapshotsSent     = desc("snapshots_sent_total", "Replicas that were sent whole to other nodes.")
	snapshotsReceived = desc("snapshots_received_total", "Replicas that came whole from other nodes.")
	snapshotsFailed   = desc("snapshots_failed_total", "Replicas of which the sending or the receiving failed; it is tried again.")
	snapshotsOut      = desc("snapshots_sent_bytes_total", "Bytes of the files of replicas that were sent.")
	snapshotsIn       = desc("snapshots_received_bytes_total", "Bytes of the files of replicas that were received.")

	peersKnown  = desc("peers", "Other processes that the catalogue has.")
	peersUp     = desc("peers_up", "Other processes of the cluster that this one is connected to and hears of.")
	peersProven = desc("peers_authenticated", "1 if other processes must prove that they are of the cluster, else 0.")
	peersClock  = desc("peer_clock_offset_seconds", "By how much the clock of another node is ahead of this one's, when they were compared last; negative: behind.", "node")
	metaLeads   = desc("meta_leader", "1 if this node leads the meta nodes, else 0.")
	rpcOut      = desc("rpc_sent_bytes_total", "Bytes sent to other nodes.")
	rpcIn       = desc("rpc_received_bytes_total", "Bytes received from other nodes.")
	rpcFrames   = desc("rpc_sent_frames_total", "Frames sent to other nodes.")
	rpcFramesIn = desc("rpc_received_frames_total", "Frames received from other nodes.")
	rpcOpened   = desc("rpc_connections_total", "Connections to and from other nodes that were established; more of them come when they break.")
	rpcRefused  = desc("rpc_handshakes_refused_total", "Connections that one side refused: another cluster, another secret, a node that was removed.")
	rpcCalls    = desc("rpc_calls_total", "Calls to other nodes.")
	rpcServed   = desc("rpc_calls_served_total", "Calls of other nodes.")
	rpcStreams  = desc("rpc_streams_total", "Streams to and from other nodes.")
)

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, v interface{ Load() uint64 }) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()))
	}
	c.groups(ch, gauge)
	c.peers(ch, gauge)
	m := c.n.host.Metrics()
	counter(raftProposed, &m.Proposals)
	counter(raftRefused, &m.Refused)
	counter(raftUncertain, &m.Uncertain)
	counter(raftApplied, &m.Applied)
	counter(raftElected, &m.Elected)
	counter(raftLeaders, &m.Leaders)
	traffic(counter, c.n.peers.Metrics())
}

// lag is how far replicas on another node are behind those that lead here.
type lag struct {
	entries uint64
	age     time.Duration
}

// groups tells of the raft groups together, and of each node that holds replicas
// of groups led here.
func (c *clusterCollector) groups(ch chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64)) {
	var groups, leading, leaderless int
	var unapplied, waiting uint64
	lags := map[dsdb.NodeID]lag{}
	for _, st := range c.n.host.Replicas() {
		groups++
		waiting += st.Waiting
		unapplied = max(unapplied, raftnode.Lacked(st.Commit, st.Applied))
		if st.Leading {
			leading++
		} else if st.Leader == 0 && st.Failed == nil && !st.Removed {
			leaderless++
		}
		for _, p := range st.Progress {
			l := lags[p.Node]
			lags[p.Node] = lag{max(l.entries, behind(&st, &p)), max(l.age, p.Lag)}
		}
	}
	gauge(raftGroups, float64(groups))
	gauge(raftLeading, float64(leading))
	gauge(raftLeaderless, float64(leaderless))
	gauge(raftUnapplied, float64(unapplied))
	gauge(raftWaiting, float64(waiting))
	for node, l := range lags {
		name := strconv.FormatUint(uint64(node), 10)
		ch <- prometheus.MustNewConstMetric(lagEntries, prometheus.GaugeValue, float64(l.entries), name)
		ch <- prometheus.MustNewConstMetric(lagSeconds, prometheus.GaugeValue, l.age.Seconds(), name)
	}
}

// behind is how many committed entries a replica lacked when it was last looked at.
func behind(st *raftnode.GroupStatus, p *raftnode.PeerProgress) uint64 {
	return raftnode.Lacked(st.Commit, p.Match)
}

func (c *clusterCollector) peers(ch chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64)) {
	known, up := 0, 0
	for _, p := range c.n.peers.Status() {
		if p.Known {
			known++
		}
		if p.Up {
			up++
		}
		if p.Up && p.Compared {
			name := strconv.FormatUint(uint64(cmp.Or(p.Process.DataID, p.Process.MetaID)), 10)
			ch <- prometheus.MustNewConstMetric(peersClock, prometheus.GaugeValue, p.Clock.Seconds(), name)
		}
	}
	gauge(peersKnown, float64(known))
	gauge(peersUp, float64(up))
	gauge(peersProven, oneIf(c.n.authenticatedPeers()))
	gauge(metaLeads, oneIf(c.n.host.Status(dsdb.MetaGroup).Leading))
}

// traffic tells what went between this node and the others.
func traffic(counter func(*prometheus.Desc, interface{ Load() uint64 }), m *rpc.Metrics) {
	counter(raftSent, &m.Sent.Messages)
	counter(raftReceived, &m.Received.Messages)
	counter(raftDropped, &m.Dropped)
	counter(snapshotsSent, &m.Sent.Snapshots)
	counter(snapshotsReceived, &m.Received.Snapshots)
	counter(snapshotsFailed, &m.SnapshotsFailed)
	counter(snapshotsOut, &m.Sent.SnapshotBytes)
	counter(snapshotsIn, &m.Received.SnapshotBytes)
	counter(rpcOut, &m.Sent.Bytes)
	counter(rpcIn, &m.Received.Bytes)
	counter(rpcFrames, &m.Sent.Frames)
	counter(rpcFramesIn, &m.Received.Frames)
	counter(rpcOpened, &m.Connections)
	counter(rpcRefused, &m.Refused)
	counter(rpcCalls, &m.Calls)
	counter(rpcServed, &m.CallsServed)
	counter(rpcStreams, &m.Streams)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
