package httpd

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// encoder writes the answer of one request: for each statement begin, its
// frames, end; then finish.
type encoder interface {
	begin(statement int)
	frame(f *column.Frame) error
	end(err error, messages []string)
	finish()
}

// discardEncoder is the encoder of async queries: nobody reads the answer.
type discardEncoder struct{}

func (discardEncoder) begin(int)                 {}
func (discardEncoder) frame(*column.Frame) error { return nil }
func (discardEncoder) end(error, []string)       {}
func (discardEncoder) finish()                   {}

// flushBytes is how much of an answer is collected before it is sent.
const flushBytes = 64 << 10

// takeTime is how long a client may take to receive what is sent at once: one that
// does not read keeps what its query holds.
const takeTime = 5 * time.Minute

// response is the body of an answer, gzipped if the client takes that.
type response struct {
	w    http.ResponseWriter
	conn *http.ResponseController
	zip  *gzip.Writer
	buf  []byte // what encoders append to
	err  error  // of the first write that failed; later ones are dropped
	most int64  // bytes that an encoder may collect before it sends any; 0: no limit
}

// fits reports KindTooLarge if an encoder has collected too much.
func (o *response) fits(bytes int) error {
	if o.most > 0 && int64(bytes) > o.most {
		return dsdb.Errorf(dsdb.KindTooLarge, "the answer takes more than %d bytes in this format, which is sent as a whole: ask for chunked=true, for JSON without pretty=true, or for less", o.most)
	}
	return o.err
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	o := &response{w: w, conn: http.NewResponseController(w), buf: make([]byte, 0, 4096)}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		o.zip = gzipWriters.Get().(*gzip.Writer)
		o.zip.Reset(w)
	}
	return o
}

var gzipWriters = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed); return z }}

// spill sends the buffer if it is large.
func (o *response) spill() error {
	if len(o.buf) >= flushBytes {
		return o.send()
	}
	return o.err
}

// send writes the buffer to the body.
func (o *response) send() error {
	if o.err == nil && len(o.buf) > 0 {
		_ = o.conn.SetWriteDeadline(time.Now().Add(takeTime)) // not every ResponseWriter has deadlines (tests)
		if o.zip != nil {
			_, o.err = o.zip.Write(o.buf)
		} else {
			_, o.err = o.w.Write(o.buf)
		}
	}
	o.buf = o.buf[:0]
	return o.err
}

// flush sends the buffer and pushes it to the client.
func (o *response) flush() {
	if o.send() != nil {
		return
	}
	if o.zip != nil {
		o.err = o.zip.Flush()
	}
	if f, ok := o.w.(http.Flusher); ok {
		f.Flush()
	}
}

func (o *response) close() {
	_ = o.send() // an error is kept; there is nobody left to tell
	if o.zip != nil {
		_ = o.zip.Close()
		gzipWriters.Put(o.zip)
		o.zip = nil
	}
	if o.err == nil {
		_ = o.conn.SetWriteDeadline(time.Time{}) // of the next request on the connection
	}
}
