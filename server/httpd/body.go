package httpd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/dasudian/dsdb"
)

// A body may be slow, but not for ever: it has bodyGrace plus the time that
// minBodyRate allows for its length.
const (
	bodyGrace   = 10 * time.Second
	minBodyRate = 10 << 10 // bytes per second
)

var errTooLarge = dsdb.Errorf(dsdb.KindTooLarge, "Request Entity Too Large")

// readBody reads and inflates the body of a request into buf, which is reused
// from its start. At most MaxBody bytes are read from the client and at most
// MaxDecoded come out; more is KindTooLarge, and nothing of it is used.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer) error {
	buf.Reset()
	if h.cfg.MaxBody > 0 {
		if r.ContentLength > h.cfg.MaxBody {
			return errTooLarge
		}
		r.Body = http.MaxBytesReader(w, r.Body, h.cfg.MaxBody)
	}
	// Not every ResponseWriter has deadlines (tests); the server's own limits hold then.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyGrace + time.Duration(max(r.ContentLength, h.cfg.MaxBody))*time.Second/minBodyRate))
	src, done, err := h.inflater(r)
	if err != nil {
		return err
	}
	defer done()
	if r.Header.Get("Content-Encoding") == "" && r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
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
	}
	return dsdb.Errorf(dsdb.KindInvalid, "read body: %w", err)
}

// snappy reads either form of snappy: the framed stream, or one block whose
// declared length is checked before anything is allocated for it.
func (h *Handler) snappy(body io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReader(body)
	if head, _ := br.Peek(1); len(head) == 1 && head[0] == 0xff { // stream identifier chunk
		return s2.NewReader(br), func() {}, nil
	}
	block, err := io.ReadAll(br)
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
	plain, err := s2.Decode(nil, block)
	if err != nil {
		return nil, nil, bodyError(err)
	}
	return bytes.NewReader(plain), func() {}, nil
}

// inflater returns the decoded body of r, and what to call when it has been read.
func (h *Handler) inflater(r *http.Request) (io.Reader, func(), error) {
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
		return h.snappy(r.Body)
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
