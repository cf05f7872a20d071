package httpd

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/lineproto"
)

// writeState is what one write needs. It is kept for later ones, for its parser
// knows the series that it has met.
type writeState struct {
	body   bytes.Buffer
	parser lineproto.Parser
	batch  column.WriteBatch
	bytes  int64     // as of when it was put back last
	used   time.Time // likewise
}

// What is kept of writeStates: each comes to know all series that are written, so
// that with many clients they take more than anything else.
const (
	keepBuffer = 8 << 20         // bytes of the body of one
	keepStates = 128 << 20       // bytes of all, those in use included
	keepIdle   = 1 * time.Minute // for how long one stays that is not needed
)

// writeStates keeps those that are not in use, within the bounds.
type writeStates struct {
	mu     sync.Mutex    // guards what follows
	idle   []*writeState // the one used last is last
	bytes  int64         // of those in idle and of those taken from there
	expiry *time.Timer
}

// take returns the one that was used last, so that few are in use, or a new one.
func (p *writeStates) take() *writeState {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return new(writeState)
	}
	s := p.idle[len(p.idle)-1]
	p.idle[len(p.idle)-1] = nil
	p.idle = p.idle[:len(p.idle)-1]
	return s
}

// put keeps one, unless a large body has made it costly to keep, or there is no
// room for all that its parser knows.
func (p *writeStates) put(s *writeState, now time.Time) {
	size := int64(s.body.Cap() + s.parser.Retained())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= s.bytes
	if s.body.Cap() > keepBuffer || p.bytes+size > keepStates {
		return
	}
	s.bytes, s.used = size, now
	p.bytes += size
	p.idle = append(p.idle, s)
	if p.expiry == nil {
		p.expiry = time.AfterFunc(keepIdle, func() { p.expire(time.Now()) })
	}
}

// expire lets those go that were not used for a while, and comes back for the others.
func (p *writeStates) expire(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].used) >= keepIdle {
		p.bytes -= p.idle[n].bytes
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
	p.expiry = nil
	if p.bytes > 0 {
		p.expiry = time.AfterFunc(keepIdle, func() { p.expire(time.Now()) })
	}
}
