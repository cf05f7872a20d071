package raftnode

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/wal"
)

// sink is a state machine that does nothing.
type sink struct{ applied atomic.Uint64 }

func (s *sink) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	s.applied.Store(es[len(es)-1].Index)
	return make([]dsdb.Verdict, len(es)), nil
}
func (s *sink) FlushedIndex() uint64 { return s.applied.Load() }
func (s *sink) Snapshot() (dsdb.Manifest, func(), error) {
	panic("BUG: snapshot of a sink")
}
func (s *sink) Install(dsdb.Manifest, string) error { panic("BUG: install into a sink") }

func diskLog(b testing.TB) *wal.Log {
	b.Helper()
	log, _, err := wal.Open(vfs.OS(), b.TempDir(), wal.Options{CacheBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	return log
}

// One group with a single voter on a real disk: clients propose in a closed loop.
func BenchmarkPropose(b *testing.B) {
	for _, c := range []struct{ clients, size int }{{1, 64}, {64, 64}, {256, 4 << 10}, {2, 500 << 10}, {8, 500 << 10}} {
		b.Run(fmt.Sprintf("clients=%d/bytes=%d", c.clients, c.size), func(b *testing.B) {
			h := openHost(b, diskLog(b))
			startSingle(b, h, 1, new(sink))
			benchPropose(b, h, c.clients, c.size)
		})
	}
}

func benchPropose(b *testing.B, h *Host, clients, size int) {
	b.ReportAllocs()
	b.SetBytes(int64(size))
	var all sync.WaitGroup
	var next atomic.Int64
	times := make([][]time.Duration, clients)
	before := h.Metrics().Batches.Load()
	b.ResetTimer()
	for c := range clients {
		all.Go(func() {
			data := make([]byte, size)
			for next.Add(1) <= int64(b.N) {
				start := time.Now()
				if _, err := h.Propose(context.Background(), 1, data); err != nil {
					b.Error(err)
					return
				}
				times[c] = append(times[c], time.Since(start))
				if size > 1<<16 {
					h.Flushed(1)
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	b.ReportMetric(float64(len(sorted))/b.Elapsed().Seconds(), "proposals/s")
	b.ReportMetric(float64(sorted[len(sorted)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(sorted[len(sorted)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(len(sorted))/float64(max(1, h.Metrics().Batches.Load()-before)), "proposals/sync")
}

func BenchmarkReadIndex(b *testing.B) {
	h := openHost(b, newMemLog())
	startSingle(b, h, 1, new(sink))
	b.ReportAllocs()
	for b.Loop() {
		if err := readNow(context.Background(), h, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// A thousand groups with a single voter: from nothing to ready, on a real disk.
func BenchmarkCreateGroups(b *testing.B) {
	log := diskLog(b)
	id := dsdb.GroupID(0)
	for b.Loop() {
		h := openHost(b, log)
		var specs []GroupSpec
		var ids []dsdb.GroupID
		for range 1040 {
			id++
			specs, ids = append(specs, single(id, new(sink))), append(ids, id)
		}
		if err := h.Start(b.Context(), specs); err != nil {
			b.Fatal(err)
		}
		if err := h.Ready(b.Context(), ids); err != nil {
			b.Fatal(err)
		}
		h.Close()
	}
}

// From a log of 64 MiB in entries of 128 KiB to a group that is ready.
func BenchmarkReplay(b *testing.B) {
	const entries, size = 512, 128 << 10
	log := diskLog(b)
	h := openHost(b, log)
	startSingle(b, h, 1, &replayed{})
	for range entries {
		if _, err := h.Propose(b.Context(), 1, make([]byte, size)); err != nil {
			b.Fatal(err)
		}
	}
	h.Close()
	b.SetBytes(entries * size)
	for b.Loop() {
		h := openHost(b, log)
		startSingle(b, h, 1, &replayed{})
		h.Close()
	}
}

// replayed is a sink that never flushes.
type replayed struct{ sink }

func (r *replayed) FlushedIndex() uint64 { return 0 }

// What a thousand groups cost that do nothing and have done nothing for a while,
// in parts of one core: with a single voter, and with three in one process.
func BenchmarkIdle(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprintf("voters=%d", nodes), func(b *testing.B) {
			net := &wires{hosts: map[dsdb.NodeID]*Host{}}
			var ids []dsdb.GroupID
			for g := range 1000 {
				ids = append(ids, dsdb.GroupID(g+1))
			}
			for i := range nodes {
				h, err := Open(Options{Log: newMemLog(), Transport: wire{net, dsdb.NodeID(i)}, Logger: quiet(), Fatal: func(err error) { b.Error(err) }})
				if err != nil {
					b.Fatal(err)
				}
				defer h.Close()
				net.hosts[dsdb.NodeID(i)] = h
			}
			for i := range nodes {
				var specs []GroupSpec
				for _, g := range ids {
					s := trioSpec(i, g, true, new(sink))
					s.Founders = s.Founders[:nodes]
					specs = append(specs, s)
				}
				if err := net.hosts[dsdb.NodeID(i)].Start(b.Context(), specs); err != nil {
					b.Fatal(err)
				}
			}
			for _, g := range ids {
				for net.hosts[0].Status(g).Leader == 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
			time.Sleep(time.Duration(leaderIdle+quiescentPace) * TickEvery)
			before := cpuTime()
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Second)
			}
			b.ReportMetric(100*(cpuTime()-before).Seconds()/b.Elapsed().Seconds(), "%core")
		})
	}
}

// cpuTime is the processor time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
