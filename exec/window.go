package exec

import (
	"math"
	"sort"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// windowStart returns the start of the window of GROUP BY time that holds t.
// In a time zone windows are aligned in local time: a window in which the
// clock changes is longer or shorter than the others by the change, unless the
// change is as long as the window (InfluxDB 1.8, IteratorOptions.Window).
func windowStart(t int64, iv planner.Interval, loc *time.Location) int64 {
	t -= iv.Offset
	zone := zoneOffset(t, loc)
	into := (t + zone) % iv.Every
	if into < 0 {
		into += iv.Every
	}
	if t <= dsdb.MinTime+into {
		return dsdb.MinTime
	}
	start := t - into + iv.Offset
	if loc != nil {
		if o := zone - zoneOffset(start, loc); o != 0 && o > -iv.Every && o < iv.Every {
			start += o
		}
	}
	return start
}

// zoneOffset is how far local time is ahead of UTC at t, in nanoseconds.
func zoneOffset(t int64, loc *time.Location) int64 {
	if loc == nil {
		return 0
	}
	_, s := time.Unix(0, t).In(loc).Zone()
	return int64(s) * int64(time.Second)
}

// windows are the windows of a query from the first to the last that its time
// range meets: n windows, numbered from 0. Without GROUP BY time there is one.
type windows struct {
	n      int
	first  int64   // start of window 0
	every  int64   // distance of their starts if starts is nil
	starts []int64 // n+1 of them if their lengths differ (time zones)
}

// maxWindows bounds the table of windows and with it the cells of one group.
const maxWindows = 1 << 27

// newWindows lays out the windows of rng, which is not empty.
func newWindows(rng dsdb.TimeRange, p *planner.Select) (windows, error) {
	if p.Interval.Every == 0 {
		return windows{n: 1, first: rng.Start, starts: []int64{rng.Start, rng.End}}, nil
	}
	w := windows{first: windowStart(rng.Start, p.Interval, p.Location), every: p.Interval.Every}
	if late := w.first - rng.Start; late > 0 { // an offset moved the change of the clock into the range's first hour
		w.first = windowStart(rng.Start-late, p.Interval, p.Location)
	}
	n := uint64(rng.End-1-w.first)/uint64(w.every) + 1
	if n > maxWindows {
		return w, dsdb.Errorf(dsdb.KindTooLarge, "too many points in the group by interval. maybe you forgot to specify a where time clause?")
	}
	w.n = int(n)
	if p.Location != nil || w.first == dsdb.MinTime { // that window is cut off, those after it are where they belong
		for s := w.first; s < rng.End; s = nextWindow(s, p) {
			w.starts = append(w.starts, s)
		}
		w.n = len(w.starts)
		w.starts = append(w.starts, nextWindow(w.starts[w.n-1], p))
	}
	return w, nil
}

// nextWindow returns the start of the window after the one that starts at s.
func nextWindow(s int64, p *planner.Select) int64 {
	e := s + p.Interval.Every
	if e < s {
		return math.MaxInt64 // beyond all time
	}
	if n := windowStart(e, p.Interval, p.Location); n > s {
		return n
	}
	// The clock went back within the window, which is laid in time less Offset.
	o := p.Interval.Offset
	back := zoneOffset(s-o, p.Location) - zoneOffset(e-o, p.Location)
	if n := windowStart(e+back, p.Interval, p.Location); n > s {
		return n
	}
	return e
}

// start returns the start of window i; start(n) is the end of the last.
func (w *windows) start(i int) int64 {
	if w.starts != nil {
		return w.starts[i]
	}
	s := w.first + int64(i)*w.every
	if s < w.first { // the end of the last window is beyond all time
		return math.MaxInt64
	}
	return s
}

// at returns the number of the window that holds t, which must lie in one.
func (w *windows) at(t int64) int {
	if w.starts != nil {
		return sort.Search(w.n, func(i int) bool { return w.starts[i+1] > t })
	}
	return int(uint64(t-w.first) / uint64(w.every)) // they may be more than 2^63 apart
}

// run is the rows [lo, hi) of a block that fall into window win.
type run struct{ win, lo, hi int32 }

// appendRuns cuts rows with ascending times, all within the windows, into runs.
// The end of a run is looked for row by row while windows hold few rows;
// beyond smallRun rows it is guessed from the distance of the rows.
func (w *windows) appendRuns(dst []run, times []int64) []run {
	if len(times) == 0 {
		return dst
	}
	win := w.at(times[0])
	end := w.start(win + 1)
	for lo := 0; lo < len(times); {
		if times[lo] >= end {
			if win++; times[lo] >= w.start(win+1) { // a gap
				win = w.at(times[lo])
			}
			end = w.start(win + 1)
		}
		hi := lo + 1
		if probe := lo + smallRun; probe < len(times) && times[probe] < end {
			hi = runEnd(times, probe, end)
		} else {
			for hi < len(times) && times[hi] < end {
				hi++
			}
		}
		dst = append(dst, run{int32(win), int32(lo), int32(hi)})
		lo = hi
	}
	return dst
}

// runEnd returns the first index after lo whose time is at or after end; the
// time at lo is before it.
func runEnd(times []int64, lo int, end int64) int {
	n := len(times)
	if times[n-1] < end {
		return n
	}
	if step := times[lo] - times[lo-1]; step > 0 {
		if g := lo + int((end-times[lo]-1)/step) + 1; g > lo && g < n && times[g-1] < end && times[g] >= end {
			return g
		}
	}
	return lo + sort.Search(n-lo, func(i int) bool { return times[lo+i] >= end })
}
