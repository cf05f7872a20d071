package rpc

import (
	"encoding/binary"
	"fmt"
	"time"
)

// No decision of the cluster goes by the clocks of its nodes, but users see them: in
// points without a time, in now(), in what is too old to be kept. So processes compare
// them. The answer to a ping is the time where it was made; halfway between asking and
// getting it that was the time here.
const (
	clockEvery  = 10              // rounds between two looks at the clock of a peer
	clockApart  = 5 * time.Second // what NTP does not leave
	clockRemind = time.Hour       // between two warnings about one peer
	clockTrust  = 2 * time.Second // the longest that an answer may take of which a clock is read
)

// clock is what is known of a peer's clock. It is guarded by the peer's mu.
type clock struct {
	wait     int           // rounds until it is looked at again
	ahead    time.Duration // of this process's
	compared bool
	warned   time.Time
}

// due counts a round and reports whether the clock is to be looked at in it.
func (c *clock) due() bool {
	if c.wait > 0 {
		c.wait--
		return false
	}
	c.wait = clockEvery
	return true
}

// appendTime appends the answer to a ping.
func appendTime(dst []byte, now int64) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(now))
}

// offset returns by how much the clock is ahead with which a ping was answered that was
// sent at one time and answered before another, by this process's clock, and took so
// long. Nothing is known if that was too long, if this clock was set meanwhile, or if
// the answer, of an older program, has no time.
func offset(answer []byte, sent, after int64, took time.Duration) (time.Duration, bool) {
	if set := time.Duration(after-sent) - took; len(answer) != 8 || took > clockTrust || set.Abs() > clockTrust {
		return 0, false
	}
	theirs := int64(binary.LittleEndian.Uint64(answer))
	return time.Duration(theirs - sent - int64(took/2)), true
}

// compare notes by how much the clock of the peer is ahead, and warns of it.
func (q *peer) compare(ahead time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &q.clock
	c.ahead, c.compared = ahead, true
	if ahead.Abs() <= clockApart || !c.warned.IsZero() && time.Since(c.warned) < clockRemind {
		return
	}
	c.warned = time.Now()
	how := "ahead of"
	if ahead < 0 {
		how = "behind"
	}
	p := q.owner
	p.opt.Logger.Warn(fmt.Sprintf("the clock of %s is %v %s that of %s, this one: see that NTP runs on both",
		who(q.roles, q.process.Addr, q.uuid), ahead.Abs().Round(time.Second), how, p.opt.Self.who()))
}
