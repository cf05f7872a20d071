package rpc

import (
	"sync"

	"github.com/dasudian/dsdb"
)

// batcher writes frames that come from many goroutines. Who finds nobody
// writing writes at once; what is queued meanwhile goes out in the next write.
type batcher struct {
	conn *conn

	mu      sync.Mutex
	buf     []byte // waits
	spare   []byte
	frames  int
	batch   uint64 // number of the batch that waits
	begun   uint64 // number of the last one of which a byte may have been written, plus one
	writing bool
	err     error
}

// begin returns the buffer to append frames to, and locks it until end.
func (b *batcher) begin() ([]byte, error) {
	b.mu.Lock()
	if err := b.err; err != nil {
		b.mu.Unlock()
		return nil, err
	}
	if len(b.buf) > maxWaiting {
		b.mu.Unlock()
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "more than %d bytes wait to be sent to %s", maxWaiting, b.conn.peer.who())
	}
	return b.buf, nil
}

// end queues one frame that was appended to buf, and sees that it is written.
func (b *batcher) end(buf []byte) {
	b.buf = buf
	b.frames++
	if b.writing {
		b.mu.Unlock()
		return
	}
	b.writing = true
	if b.flush(); b.writing && !b.conn.peer.owner.start(b.rest) {
		b.writing = false
	}
	b.mu.Unlock()
}

// rest writes until nothing waits.
func (b *batcher) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.writing {
		b.flush()
	}
}

// flush writes what waits; writing ends if nothing came meanwhile. mu is held
// but for the write.
func (b *batcher) flush() {
	buf, n := b.buf, b.frames
	b.buf, b.spare, b.frames = b.spare[:0], nil, 0
	b.batch++
	b.begun = b.batch
	b.mu.Unlock()
	err := b.conn.write(buf, n, writeTime)
	b.mu.Lock()
	if cap(buf) <= 1<<20 {
		b.spare = buf
	}
	if err != nil {
		b.conn.Close() // the reader tells everyone
		b.err = lost(b.conn, err, dsdb.KindUnavailable)
	}
	b.writing = b.err == nil && len(b.buf) > 0
}

// stop refuses all further frames with err. Batches below begun may have been written.
func (b *batcher) stop(err error) (begun uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	return b.begun
}
