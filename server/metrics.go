package server

import (
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dasudian/dsdb/exec"
)

// registerMetrics registers what the node measures of itself.
func (n *Node) registerMetrics(reg *prometheus.Registry, version string) {
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dsdb_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	info.Set(1)
	reg.MustRegister(info, n.logSyncs, &nodeCollector{n}, &clusterCollector{n})
}

// newLogSyncs makes the histogram of how long syncs of the log take.
func newLogSyncs() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "dsdb_wal_fsync_duration_seconds", Help: "How long a sync of the log took.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}})
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
	shardCount   = desc("shards", "Shards with a replica on this node.")
	shardSeries  = desc("series", "Series of the shards whose index is loaded.")
	shardMemory  = desc("memtable_bytes", "Bytes of points in memory.")
	shardRows    = desc("memtable_rows", "Points in memory.")
	shardFiles   = desc("segment_files", "Segment files.")
	shardBytes   = desc("segment_bytes", "Bytes of segment files.")
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
	counter(mismatches, float64(c.n.mismatches.Load()))
	gauge(outOfService, float64(len(c.n.shards.failed())))
	c.shards(gauge)
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
