// Package bench measures: what a disk can do for the log (IOPS), and what a
// server does with writes (Load and Write). Figures come with their
// distribution; a run is bounded in time and space and leaves nothing behind.
// cmd/dsdb-bench prints them.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Pattern is the order in which a Job writes.
type Pattern string

// The patterns. Each write of either is followed by fdatasync.
const (
	Sequential Pattern = "sequential"
	Random     Pattern = "random"
)

// Job is one measurement: Depth writers, each writing blocks of Size bytes
// to its own file and syncing each.
type Job struct {
	Pattern Pattern
	Size    int
	Depth   int
}

// Jobs are the measurements that IOPS makes by default.
func Jobs() []Job {
	var jobs []Job
	for _, p := range []Pattern{Sequential, Random} {
		for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
			for _, depth := range []int{1, 4, 16} {
				jobs = append(jobs, Job{p, size, depth})
			}
		}
	}
	return jobs
}

// Outcome is what a Job found. Latencies are of one write with its sync, in nanoseconds.
type Outcome struct {
	Job
	Ops     int64
	Elapsed time.Duration
	Latency *hdrhistogram.Histogram
}

// PerSecond returns synced writes per second.
func (o *Outcome) PerSecond() float64 { return float64(o.Ops) / o.Elapsed.Seconds() }

// fileBytes is the size of each writer's file; a sequential writer starts over at its end.
const fileBytes = 64 << 20

// IOPS runs a job in dir for d. The files are made, filled with zeros and
// synced before the clock starts, and removed at the end.
func IOPS(ctx context.Context, dir string, j Job, d time.Duration) (*Outcome, error) {
	files := make([]*os.File, j.Depth)
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
				os.Remove(f.Name())
			}
		}
	}()
	for i := range files {
		f, err := prepare(dir, i)
		if err != nil {
			return nil, err
		}
		files[i] = f
	}
	out := &Outcome{Job: j, Latency: newHistogram()}
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	began := time.Now()
	for i, f := range files {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h, err := hammer(ctx, f, j, uint64(i), began.Add(d))
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			out.Latency.Merge(h)
		}()
	}
	wg.Wait()
	out.Elapsed = time.Since(began)
	out.Ops = out.Latency.TotalCount()
	return out, errors.Join(append(errs, ctx.Err())...)
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, int64(time.Minute), 3) }

// prepare makes one writer's file, with all its blocks allocated.
func prepare(dir string, i int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("dsdb-bench-%d-%d", os.Getpid(), i)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < fileBytes && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, off)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// hammer writes and syncs blocks until the deadline.
func hammer(ctx context.Context, f *os.File, j Job, seed uint64, deadline time.Time) (*hdrhistogram.Histogram, error) {
	h := newHistogram()
	rnd := rand.New(rand.NewPCG(seed, 1))
	block := make([]byte, j.Size)
	for i := range block {
		block[i] = byte(rnd.Uint32()) // not zeros: some disks take those for nothing
	}
	blocks := int64(fileBytes / j.Size)
	for n := int64(0); ; n++ {
		at := n % blocks
		if j.Pattern == Random {
			at = rnd.Int64N(blocks)
		}
		began := time.Now()
		if began.After(deadline) || ctx.Err() != nil {
			return h, nil
		}
		if _, err := f.WriteAt(block, at*int64(j.Size)); err != nil {
			return h, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return h, fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
		_ = h.RecordValue(min(int64(time.Since(began)), int64(time.Minute))) // in range
	}
}

// Class is a class of the hardware sizing guide, by the IOPS of the disk.
type Class struct {
	AtLeast float64
	Name    string
	Means   string
}

// Classes are those of the guide: low load needs 500 IOPS, moderate 500 to
// 1000, high more than 1000.
var Classes = []Class{
	{1000, "1000+ IOPS", "good for high load: more than 100,000 values/s, more than 1,000,000 series"},
	{500, "500-1000 IOPS", "good for moderate load: up to 100,000 values/s and 1,000,000 series"},
	{0, "less than 500 IOPS", "too slow for anything but low load: fewer than 5,000 values/s; put the log on a faster disk"},
}

// Classify returns the class of a disk that does so many synced 4 KiB writes a second.
func Classify(perSecond float64) Class {
	for _, c := range Classes {
		if perSecond >= c.AtLeast {
			return c
		}
	}
	return Classes[len(Classes)-1]
}
