package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// WriteJob is a run of writes against a server.
type WriteJob struct {
	URL      string
	Database string // created if need be
	Hosts    int
	Batch    int // points per request
	Workers  int // connections
	Points   int // in all
	Seed     uint64
	PID      int              // of the server, on this machine; 0: unknown
	Progress func(points int) // called after each request; may be nil
	Start    time.Time        // time of the first points
	Step     time.Duration    // between points of one host
}

// WriteOutcome is what a WriteJob found. Latencies are of one request, in nanoseconds.
type WriteOutcome struct {
	Points  int
	Elapsed time.Duration
	Latency *hdrhistogram.Histogram
	Server  Usage   // what the server process used meanwhile; zero if PID is 0
	Syncs   float64 // of the server's log; negative: it does not say
}

// Values returns the number of field values written.
func (o *WriteOutcome) Values() int { return o.Points * ValuesPerPoint }

// Write runs a job. Every worker has a load of its own hosts; the first error ends the run.
func Write(ctx context.Context, j WriteJob) (*WriteOutcome, error) {
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: j.Workers, DisableCompression: true}}
	defer c.CloseIdleConnections()
	if err := createDatabase(ctx, c, j); err != nil {
		return nil, err
	}
	before, err := ReadUsage(j.PID)
	if err != nil {
		return nil, err
	}
	syncs := scrape(ctx, c, j.URL, "dsdb_wal_syncs_total")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &WriteOutcome{Latency: newHistogram()}
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for w := range j.Workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n, h, err := writer(ctx, c, j, w)
			if err != nil {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			out.Points += n
			out.Latency.Merge(h)
		}()
	}
	wg.Wait()
	out.Elapsed = time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return out, err
	}
	after, err := ReadUsage(j.PID)
	if err != nil {
		return nil, err
	}
	out.Server = after.Minus(before)
	if out.Syncs = -1; syncs >= 0 {
		out.Syncs = scrape(ctx, c, j.URL, "dsdb_wal_syncs_total") - syncs
	}
	return out, nil
}

// writer sends its share of the points.
func writer(ctx context.Context, c *http.Client, j WriteJob, w int) (points int, h *hdrhistogram.Histogram, err error) {
	h = newHistogram()
	hosts := max(1, j.Hosts/j.Workers)
	load := NewLoad(hosts, j.Step, j.Start, j.Seed+uint64(w)*1_000_003)
	for i := range load.prefix { // hosts of other workers have other names
		load.prefix[i] = strings.Replace(load.prefix[i], "hostname=host_", fmt.Sprintf("hostname=host_%d_", w), 1)
	}
	target := j.URL + "/write?" + url.Values{"db": {j.Database}}.Encode()
	var body []byte
	for left := j.Points / j.Workers; left > 0 && ctx.Err() == nil; {
		n := min(left, j.Batch)
		body = load.Append(body[:0], n)
		began := time.Now()
		if err := post(ctx, c, target, body); err != nil {
			return points, h, err
		}
		_ = h.RecordValue(min(int64(time.Since(began)), int64(time.Minute))) // in range
		points += n
		left -= n
		if j.Progress != nil {
			j.Progress(n)
		}
	}
	return points, h, nil
}

func post(ctx context.Context, c *http.Client, target string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

func createDatabase(ctx context.Context, c *http.Client, j WriteJob) error {
	q := url.Values{"q": {fmt.Sprintf("CREATE DATABASE %q", j.Database)}}
	if err := post(ctx, c, j.URL+"/query?"+q.Encode(), nil); err != nil {
		return fmt.Errorf("create database %s: %w", j.Database, err)
	}
	return nil
}
