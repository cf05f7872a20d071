package exec

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

func TestWindowStart(t *testing.T) {
	la, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	h := int64(time.Hour)
	for _, c := range []struct {
		at, want string
		every    int64
		offset   int64
		loc      *time.Location
	}{
		{"2000-01-01T00:00:14Z", "2000-01-01T00:00:05Z", 10 * second, 5 * second, nil},
		{"2000-01-01T00:00:04Z", "1999-12-31T23:59:55Z", 10 * second, -5 * second, nil},
		{"1969-12-31T23:59:59Z", "1969-12-31T23:59:50Z", 10 * second, 0, nil},
		{"2000-04-02T12:00:00-07:00", "2000-04-02T00:00:00-08:00", 24 * h, 0, la}, // the day of 23 hours
		{"2000-10-29T23:30:00-08:00", "2000-10-29T00:00:00-07:00", 24 * h, 0, la}, // the day of 25 hours
		{"2000-10-29T01:30:00-08:00", "2000-10-29T01:00:00-08:00", h, 0, la},
		{"2000-10-29T01:30:00-08:00", "2000-10-29T00:00:00-07:00", 2 * h, 0, la}, // three hours long
	} {
		at, _ := time.Parse(time.RFC3339, c.at)
		want, _ := time.Parse(time.RFC3339, c.want)
		if got := windowStart(at.UnixNano(), planner.Interval{Every: c.every, Offset: c.offset}, c.loc); got != want.UnixNano() {
			t.Errorf("%s every %s: %s, want %s", c.at, time.Duration(c.every), time.Unix(0, got).In(at.Location()), c.want)
		}
	}
}

// TestWindowsCoverTime says that the windows of a range follow one another
// without gap, that each holds the times that windowStart puts into it, and
// that runs cut rows at them.
func TestWindowsCoverTime(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	var zones []*time.Location
	for _, n := range []string{"", "America/Los_Angeles", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin"} {
		if n == "" {
			zones = append(zones, nil)
			continue
		}
		z, err := time.LoadLocation(n)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, z)
	}
	for range 400 {
		p := &planner.Select{Location: oneOf(r, zones...)}
		p.Interval.Every = oneOf[int64](r, 24*3600, 3600, 7200, 1800, 7*24*3600, 3*3600, 61) * second
		p.Interval.Offset = oneOf[int64](r, 0, 0, 5*second, -1800*second)
		start := 946684800*second + r.Int64N(370*24*3600)*second
		rng := dsdb.TimeRange{Start: start, End: start + 1 + r.Int64N(20*p.Interval.Every)}
		w, err := newWindows(rng, p)
		if err != nil {
			t.Fatal(err)
		}
		if w.start(0) > rng.Start || w.start(1) <= rng.Start || w.start(w.n) < rng.End || w.start(w.n-1) >= rng.End {
			t.Fatalf("windows [%d, %d) do not fit %s", w.start(0), w.start(w.n), rng)
		}
		var times []int64
		for at := rng.Start; at < rng.End; at += 1 + r.Int64N(p.Interval.Every/oneOf[int64](r, 2, 40)) {
			times = append(times, at)
			if got, want := w.start(w.at(at)), windowStart(at, p.Interval, p.Location); got != want {
				t.Fatalf("%s every %s at %s: window %s, want %s", p.Location, time.Duration(p.Interval.Every),
					time.Unix(0, at).UTC(), time.Unix(0, got).UTC(), time.Unix(0, want).UTC())
			}
		}
		next := int32(0)
		for _, run := range w.appendRuns(nil, times) {
			if run.lo != next || run.hi <= run.lo {
				t.Fatalf("run %v after row %d", run, next)
			}
			for _, at := range times[run.lo:run.hi] {
				if w.at(at) != int(run.win) {
					t.Fatalf("run %v holds a time of window %d", run, w.at(at))
				}
			}
			next = run.hi
		}
		if int(next) != len(times) {
			t.Fatalf("runs end at row %d of %d", next, len(times))
		}
	}
}
