package rpc

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Processes compare their clocks now and then: who is far off is told of once, by how
// much and against whom, and when it is right again that is known.
func TestClocksThatDifferAreTold(t *testing.T) {
	var step atomic.Int64
	a := start(t, 1, slowly)
	b := start(t, 2, slowly, func(o *Options) {
		o.Wall = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	})
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) && b.up(1) })
	q := a.peer("uuid-2")
	near := func(want time.Duration) {
		t.Helper()
		eventually(t, "the clock of the other is "+want.String()+" ahead", func() bool {
			q.round()
			for _, st := range a.Status() {
				if off := st.Clock; st.Compared && (off-want).Abs() < time.Second {
					return true
				}
			}
			return false
		})
	}
	told := func() int { return strings.Count(a.log.String(), "clock") }
	near(0)
	step.Store(int64(4 * time.Second))
	near(4 * time.Second)
	if told() != 0 {
		t.Errorf("of some seconds nothing is told: %s", a.log)
	}
	step.Store(int64(-time.Hour))
	near(-time.Hour)
	for range 5 * clockEvery {
		q.round()
	}
	if want := "the clock of node 21 (" + b.addr + ") is 1h0m0s behind that of node 11 (" + a.addr + "), this one: see that NTP runs on both"; told() != 1 || !strings.Contains(a.log.String(), want) {
		t.Errorf("not told once %q: %s", want, a.log)
	}
	step.Store(0)
	near(0)
}

// An answer by which nothing can be said of a clock says nothing: of an older program,
// late, or while this process's own clock was set.
func TestClocksThatCannotBeCompared(t *testing.T) {
	const sent, hour = int64(1e18), int64(time.Hour)
	answer := func(at int64) []byte { return appendTime(nil, at) }
	for name, c := range map[string]struct {
		answer []byte
		after  int64
		took   time.Duration
	}{
		"no time":        {nil, sent + 10, 10},
		"half a time":    {answer(sent)[:4], sent + 10, 10},
		"set meanwhile":  {answer(sent + hour), sent + hour, time.Millisecond},
		"took very long": {answer(sent), sent + int64(time.Minute), time.Minute},
	} {
		if off, ok := offset(c.answer, sent, c.after, c.took); ok {
			t.Errorf("%s: %v", name, off)
		}
	}
	if off, ok := offset(answer(sent+hour+50), sent, sent+100, 100); !ok || off != time.Hour {
		t.Errorf("an hour ahead: %v %v", off, ok)
	}
}
