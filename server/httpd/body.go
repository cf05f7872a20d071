package httpd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/dasudian/dsdb"
)

// A body may be slow, but not for ever: at any time it is at most bodyGrace
// behind one that comes at minBodyRate.
const (
	bodyGrace   = 10 * time.Second
	minBodyRate = 10 << 10 // bytes per second
)

// pacedBody is the body of a request, which fails if it is too slow.
type pacedBody struct {
	io.ReadCloser
	conn  *http.ResponseController
	began time.Time
	read  int64
}

// pace makes the body of a request fail if it is too slow.
func pace(w http.ResponseWriter, r *http.Request) {
	r.Body = &pacedBody{ReadCloser: r.Body, conn: http.NewResponseController(w), began: time.Now()}
}

// Read implements io.Reader. Behind the end of the body there is no deadline any
// more: it would end the request while that is carried out.
func (b *pacedBody) Read(p []byte) (int, error) {
	// Not every ResponseWriter has deadlines (tests); the server's own limits hold then.
	_ = b.conn.SetReadDeadline(b.began.Add(bodyGrace + time.Duration(b.read)*time.Second/minBodyRate))
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF {
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// holdings count the bytes of all bodies that are held at the same time.
type holdings struct {
	bytes atomic.Int64
	most  int64 // 0: no limit
}

// holding is the part of one body.
type holding struct {
	of    *holdings
	bytes int64
}

// take counts n more bytes. It reports KindUnavailable if those of all bodies are too many.
func (h *holding) take(n int) error {
	h.bytes += int64(n)
	if all := h.of.bytes.Add(int64(n)); h.of.most > 0 && all > h.of.most {
		return dsdb.Errorf(dsdb.KindUnavailable, "write failed: the bodies of all writes that are being served take more than %d bytes; try again when some have ended", h.of.most)
	}
	return nil
}

// release gives the bytes back.
func (h *holding) release() { h.of.bytes.Add(-h.bytes) }

// heldReader counts what is read.
type heldReader struct {
	io.Reader
	*holding
}

// Read implements io.Reader.
func (r heldReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if full := r.take(n); full != nil {
		err = full
	}
	return n, err
}

var errTooLarge = dsdb.Errorf(dsdb.KindTooLarge, "Request Entity Too Large")

// readBody reads and inflates the body of a request into buf, which is reused
// from its start. At most MaxBody bytes are read from the client and at most
// MaxDecoded come out; more is KindTooLarge, and nothing of it is used. What is
// held is to be released when the body is of no use any more.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer, held *holding) error {
	buf.Reset()
	if h.cfg.MaxBody > 0 && r.ContentLength > h.cfg.MaxBody {
		return errTooLarge
	}
	if pace(w, r); h.cfg.MaxBody > 0 {
		r.Body = http.MaxBytesReader(w, r.Body, h.cfg.MaxBody)
	}
	src, done, err := h.inflater(r, held)
	if err != nil {
		return err
	}
	defer done()
	src = heldReader{src, held}
	limit := h.cfg.MaxDecoded
	if limit <= 0 {
		_, err = buf.ReadFrom(src)
		return bodyError(err)
	}
	n, err := buf.ReadFrom(io.LimitReader(src, limit+1))
	if err == nil && n > limit {
		return errTooLarge
	}
	return bodyError(err)
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return errTooLarge
	case dsdb.KindOf(err) == dsdb.KindUnavailable:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return dsdb.Errorf(dsdb.KindUnavailable, "timeout: the body came at less than %d bytes per second", minBodyRate)
	}
	return dsdb.Errorf(dsdb.KindInvalid, "read body: %w", err)
}

// snappy reads either form of snappy: the framed stream, or one block whose
// declared length is checked before anything is allocated for it.
func (h *Handler) snappy(body io.Reader, held *holding) (io.Reader, func(), error) {
	br := bufio.NewReader(body)
	if head, _ := br.Peek(1); len(head) == 1 && head[0] == 0xff { // stream identifier chunk
		return s2.NewReader(br), func() {}, nil
	}
	block, err := io.ReadAll(heldReader{br, held})
	if err != nil {
		return nil, nil, bodyError(err)
	}
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, nil, bodyError(err)
	}
	if h.cfg.MaxDecoded > 0 && int64(n) > h.cfg.MaxDecoded {
		return nil, nil, errTooLarge
	}
	if err := held.take(n); err != nil {
		return nil, nil, err
	}
	plain, err := s2.Decode(nil, block)
	if err != nil {
		return nil, nil, bodyError(err)
	}
	return bytes.NewReader(plain), func() {}, nil
}

// inflater returns the decoded body of r, and what to call when it has been read.
func (h *Handler) inflater(r *http.Request, held *holding) (io.Reader, func(), error) {
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
		return r.Body, func() {}, nil
	case "gzip":
		z := gzipReaders.Get().(*gzip.Reader)
		if err := z.Reset(r.Body); err != nil {
			gzipReaders.Put(z)
			return nil, nil, bodyError(err)
		}
		return z, func() { gzipReaders.Put(z) }, nil
	case "snappy", "x-snappy-framed":
		return h.snappy(r.Body, held)
	case "zstd":
		z := zstdReaders.Get().(*zstd.Decoder)
		if err := z.Reset(r.Body); err != nil {
			return nil, nil, bodyError(err)
		}
		return z, func() { zstdReaders.Put(z) }, nil
	default:
		return nil, nil, dsdb.Errorf(dsdb.KindInvalid, "unknown Content-Encoding %q: use gzip, snappy (framed), zstd or none", enc)
	}
}

// zstdReaders decode on the caller's goroutine and allocate no more of a
// window than the data fill.
var zstdReaders = sync.Pool{New: func() any {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		panic("BUG: zstd options: " + err.Error())
	}
	return z
}}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
