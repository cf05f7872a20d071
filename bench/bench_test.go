package bench

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/influxdata/influxdb1-client/models"
)

func TestEqualSeedsWriteEqualPoints(t *testing.T) {
	start := time.Unix(1e9, 0)
	a := NewLoad(3, time.Second, start, 7).Append(nil, 10)
	b := NewLoad(3, time.Second, start, 7).Append(nil, 4)
	if !bytes.HasPrefix(a, b) {
		t.Error("equal seeds, different points")
	}
	if bytes.Equal(a, NewLoad(3, time.Second, start, 8).Append(nil, 10)) {
		t.Error("different seeds, equal points")
	}
	points, err := models.ParsePoints(a)
	if err != nil || len(points) != 10 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	for i, p := range points {
		if want := start.Add(time.Duration(i/3) * time.Second); !p.Time().Equal(want) {
			t.Errorf("point %d is at %v, want %v", i, p.Time(), want)
		}
		if f, err := p.Fields(); err != nil || len(f) != ValuesPerPoint {
			t.Errorf("point %d: %d fields, %v", i, len(f), err)
		}
	}
}

func TestIOPSCountsSyncedWritesAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	o, err := IOPS(context.Background(), dir, Job{Random, 4096, 2}, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if o.Ops == 0 || o.Ops != o.Latency.TotalCount() || o.PerSecond() <= 0 {
		t.Errorf("%d operations, %d latencies", o.Ops, o.Latency.TotalCount())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestClassesOfTheSizingGuide(t *testing.T) {
	for _, c := range []struct {
		perSecond float64
		want      string
	}{{20, "less than 500 IOPS"}, {500, "500-1000 IOPS"}, {999, "500-1000 IOPS"}, {1000, "1000+ IOPS"}} {
		if got := Classify(c.perSecond).Name; got != c.want {
			t.Errorf("%v: %s, want %s", c.perSecond, got, c.want)
		}
	}
}

func TestWriteSendsEveryPointOnce(t *testing.T) {
	var lines, requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/write" {
			body, _ := io.ReadAll(r.Body)
			lines.Add(int64(bytes.Count(body, []byte("\n"))))
			requests.Add(1)
		}
	}))
	defer srv.Close()
	o, err := Write(context.Background(), WriteJob{URL: srv.URL, Database: "d", Hosts: 4, Batch: 30, Workers: 2, Points: 200,
		PID: os.Getpid(), Step: time.Second, Start: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if lines.Load() != 200 || o.Points != 200 || requests.Load() != 8 || o.Latency.TotalCount() != 8 {
		t.Errorf("%d lines in %d requests; outcome %d points, %d latencies", lines.Load(), requests.Load(), o.Points, o.Latency.TotalCount())
	}
	if o.Server.PeakRSS == 0 || o.Syncs != -1 {
		t.Errorf("usage %+v, syncs %v", o.Server, o.Syncs)
	}
	if pid := FindPID(srv.URL); pid != os.Getpid() {
		t.Errorf("FindPID = %d, want %d", pid, os.Getpid())
	}
}

func TestWriteEndsAtTheFirstRefusal(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/write" {
			http.Error(w, "full", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	_, err := Write(context.Background(), WriteJob{URL: srv.URL, Database: "d", Hosts: 1, Batch: 1, Workers: 1, Points: 5, Start: time.Unix(0, 0), Step: 1})
	if err == nil || err.Error() != "503 Service Unavailable: full" {
		t.Errorf("got %v", err)
	}
}
