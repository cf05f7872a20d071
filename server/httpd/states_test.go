package httpd

import (
	"testing"
	"time"

	"github.com/dasudian/dsdb/lineproto"
)

// However many write at the same time: what is kept of it for later writes has a
// bound in bytes, and goes when it is not needed for a while.
func TestWhatWritesKeepIsBounded(t *testing.T) {
	var states writeStates
	now := time.Unix(1000, 0)
	warm := func() (n int) { // takes many at once, and counts those that were kept
		taken := make([]*writeState, 3*keepStates/keepBuffer)
		for i := range taken {
			if taken[i] = states.take(); taken[i].body.Cap() > 0 {
				n++
			} else {
				taken[i].body.Grow(keepBuffer / 2)
			}
		}
		for _, s := range taken {
			states.put(s, now)
		}
		return n
	}
	warm()
	if n := warm(); n < keepStates/keepBuffer || n > 2*keepStates/keepBuffer {
		t.Errorf("%d bodies of %d bytes are kept", n, keepBuffer/2)
	}
	states.expire(now.Add(keepIdle - 1))
	now = now.Add(keepIdle / 2)
	used := []*writeState{states.take(), states.take()}
	for _, s := range used {
		states.put(s, now)
	}
	states.expire(now.Add(keepIdle / 2))
	if n := warm(); n != len(used) {
		t.Errorf("%d are kept though %d were used lately", n, len(used))
	}
	now = now.Add(keepIdle)
	states.expire(now.Add(keepIdle))
	if states.bytes != 0 || len(states.idle) != 0 {
		t.Errorf("%d bytes in %d are kept of nothing", states.bytes, len(states.idle))
	}
}

// What a parser knows of series counts, too.
func TestWhatParsersKnowCounts(t *testing.T) {
	var states writeStates
	s := states.take()
	if _, err := s.parser.Parse(&s.batch, []byte("cpu,host=a usage=1 1"), lineproto.Options{}); err != nil {
		t.Fatal(err)
	}
	states.put(s, time.Unix(1000, 0))
	if states.bytes < 500 {
		t.Errorf("%d bytes", states.bytes)
	}
	if s := states.take(); s.parser.Retained() == 0 {
		t.Error("a parser that was kept knows nothing")
	}
}
