package server

import (
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
)

// registerMetrics registers what the node measures of itself.
func (n *Node) registerMetrics(reg *prometheus.Registry, version string) {
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dsdb_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	info.Set(1)
	reg.MustRegister(info, &nodeCollector{n})
}

// nodeCollector reads counters that the parts of the node keep themselves.
type nodeCollector struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dsdb_"+name, help, labels, nil)
}

var (
	walUnflushed = desc("wal_unflushed_bytes", "Bytes of log entries whose effects are in no segment yet.")
	walDisk      = desc("wal_disk_bytes", "Bytes of the log's files, recycled ones included.")
	walWritten   = desc("wal_written_bytes_total", "Bytes written to the log.")
	walSyncs     = desc("wal_syncs_total", "Syncs of the log.")
	walBatches   = desc("wal_batches_total", "Batches written to the log; each is synced as a whole.")
	raftProposed = desc("raft_proposals_total", "Proposals given to raft groups.")
	raftApplied  = desc("raft_applied_entries_total", "Log entries applied to state machines.")
	shardCount   = desc("shards", "Shards with a replica on this node.")
	shardSeries  = desc("series", "Series of the shards whose index is loaded.")
	shardMemory  = desc("memtable_bytes", "Bytes of points in memory.")
	shardRows    = desc("memtable_rows", "Points in memory.")
	shardFiles   = desc("segment_files", "Segment files.")
	shardBytes   = desc("segment_bytes", "Bytes of segment files.")
	peersUp      = desc("peers_up", "Other processes of the cluster that this one is connected to.")
	peersProven  = desc("peers_authenticated", "1 if other processes must prove that they are of the cluster, else 0.")
	metaLeads    = desc("meta_leader", "1 if this node leads the meta nodes, else 0.")
	mismatches   = desc("replica_mismatches_total", "Shards whose replicas were found to hold different points.")
	outOfService = desc("replicas_out_of_service", "Replicas on this node that are damaged and wait to be replaced.")
	hintBytes    = desc("hints_waiting_bytes", "Bytes of points that were written at consistency any and wait on this node for the leader of their shard.")
	hintPoints   = desc("hints_waiting_points", "These points.")
	hintDisk     = desc("hints_disk_bytes", "Bytes of the files of hinted handoff.")
	hintsDamaged = desc("hints_damaged_total", "Writes at consistency any that were damaged on this node's disk before they were delivered.")
	hintOutcomes = desc("hints_points_total", "What became of points that were written at consistency any without a leader.", "outcome")
	tilesStats   = desc("query_tiles_answered_total", "Tiles that queries answered from their statistics.")
	tilesDecoded = desc("query_tiles_decoded_total", "Tiles that queries decoded.")
)

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	w := c.n.wal.Stats()
	gauge(walUnflushed, float64(w.UnflushedBytes))
	gauge(walDisk, float64(w.DiskBytes))
	counter(walWritten, float64(w.BytesWritten))
	counter(walSyncs, float64(w.Syncs))
	counter(walBatches, float64(w.Batches))
	m := c.n.host.Metrics()
	counter(raftProposed, float64(m.Proposals.Load()))
	counter(raftApplied, float64(m.Applied.Load()))
	counter(mismatches, float64(c.n.mismatches.Load()))
	gauge(outOfService, float64(len(c.n.shards.failed())))
	c.shards(gauge)
	c.cluster(gauge)
	c.hints(ch)
	t := exec.Totals()
	counter(tilesStats, float64(t.TilesByStats))
	counter(tilesDecoded, float64(t.TilesDecoded))
}

// hints reads the figures of hinted handoff.
func (c *nodeCollector) hints(ch chan<- prometheus.Metric) {
	h := c.n.handoff
	if h.queue == nil {
		return
	}
	s, p := h.queue.Stats(), &h.points
	ch <- prometheus.MustNewConstMetric(hintBytes, prometheus.GaugeValue, float64(s.Bytes))
	ch <- prometheus.MustNewConstMetric(hintPoints, prometheus.GaugeValue, float64(s.Points))
	ch <- prometheus.MustNewConstMetric(hintDisk, prometheus.GaugeValue, float64(s.Disk))
	ch <- prometheus.MustNewConstMetric(hintsDamaged, prometheus.CounterValue, float64(p.damaged.Load()))
	for _, o := range []struct {
		name  string
		count *atomic.Uint64
	}{{"stored", &p.stored}, {"delivered", &p.delivered}, {"superseded", &p.superseded}, {"deleted", &p.deleted},
		{"rejected", &p.rejected}, {"expired", &p.expired}, {"dropped", &p.dropped}} {
		ch <- prometheus.MustNewConstMetric(hintOutcomes, prometheus.CounterValue, float64(o.count.Load()), o.name)
	}
}

func (c *nodeCollector) cluster(gauge func(*prometheus.Desc, float64)) {
	up := 0
	for _, p := range c.n.peers.Status() {
		if p.Up {
			up++
		}
	}
	gauge(peersUp, float64(up))
	gauge(peersProven, oneIf(c.n.authenticatedPeers()))
	gauge(metaLeads, oneIf(c.n.host.Status(dsdb.MetaGroup).Leading))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *nodeCollector) shards(gauge func(*prometheus.Desc, float64)) {
	var series, mem, rows, files, bytes float64
	list := c.n.shards.list()
	for _, s := range list {
		st := s.Stats()
		series += float64(st.Series)
		mem += float64(st.MemBytes)
		rows += float64(st.MemRows)
		files += float64(st.Files)
		bytes += float64(st.Bytes)
	}
	gauge(shardCount, float64(len(list)))
	gauge(shardSeries, series)
	gauge(shardMemory, mem)
	gauge(shardRows, rows)
	gauge(shardFiles, files)
	gauge(shardBytes, bytes)
}
