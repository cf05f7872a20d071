package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// frameVersion is the version of all frames. Another one is told from damage by
// the checksum that covers it.
const frameVersion = 1

// Sizes of frames, in bytes. A raft frame is closed once it holds softRaftFrame.
const (
	headerSize    = 12
	maxGreeting   = 4 << 10 // frames of the handshake
	softRaftFrame = 1 << 20
	maxRaftFrame  = 32 << 20
	maxCallFrame  = MaxCall + 64<<10
	maxDataFrame  = MaxMessage
	raftEntrySize = 28 // of an envelope, without its message
)

// kind is what a frame holds.
type kind uint8

// The kinds of frames. Numbers are never given anew.
const (
	kindHello     kind = 1
	kindChallenge kind = 2
	kindProof     kind = 3
	kindReady     kind = 4
	kindRefuse    kind = 5
	kindRaft      kind = 16
	kindRequest   kind = 17
	kindResponse  kind = 18
	kindFailure   kind = 19
	kindCancel    kind = 20
	kindOpen      kind = 21
	kindData      kind = 22
	kindEnd       kind = 23
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one frame as it arrived. Its body is its reader's.
type frame struct {
	kind  kind
	count int
	body  []byte
}

// beginFrame appends an empty header; the body is to be appended next, and then
// endFrame called with the length that dst had before.
func beginFrame(dst []byte) []byte { return append(dst, make([]byte, headerSize)...) }

// endFrame fills in the header of the frame that begins at start and ends with buf.
func endFrame(buf []byte, start int, k kind, count int) {
	h := buf[start:]
	putHeader(h, k, count, len(h)-headerSize)
	binary.LittleEndian.PutUint32(h[4:], crc32.Checksum(h[8:], castagnoli))
}

func putHeader(h []byte, k kind, count, length int) {
	binary.LittleEndian.PutUint32(h, uint32(length))
	h[8], h[9] = byte(k), frameVersion
	binary.LittleEndian.PutUint16(h[10:], uint16(count))
}

// header makes the header of a frame whose body lies elsewhere.
func header(k kind, body []byte) [headerSize]byte {
	var h [headerSize]byte
	putHeader(h[:], k, 0, len(body))
	binary.LittleEndian.PutUint32(h[4:], crc32.Update(crc32.Checksum(h[8:], castagnoli), castagnoli, body))
	return h
}

// appendFrame appends a whole frame.
func appendFrame(dst []byte, k kind, body []byte) []byte {
	h := header(k, body)
	return append(append(dst, h[:]...), body...)
}

// readFrame reads the next frame, of at most limit bytes without its header. It
// reports KindCorrupt if the bytes are not a frame, io.EOF if there are none.
func readFrame(r *bufio.Reader, limit int) (frame, error) {
	h, err := r.Peek(headerSize)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	n, sum := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
	if uint64(n) > uint64(limit) {
		return frame{}, dsdb.Errorf(dsdb.KindCorrupt, "frame of %d bytes: at most %d are allowed", n, limit)
	}
	f := frame{kind: kind(h[8]), count: int(binary.LittleEndian.Uint16(h[10:]))}
	version := h[9]
	got := crc32.Checksum(h[8:headerSize], castagnoli)
	_, _ = r.Discard(headerSize)
	if f.body, err = readBody(r, int(n)); err != nil {
		return frame{}, err
	}
	if got = crc32.Update(got, castagnoli, f.body); got != sum {
		return frame{}, dsdb.Errorf(dsdb.KindCorrupt, "frame of kind %d, %d bytes: checksum %08x, want %08x", f.kind, n, got, sum)
	}
	if version != frameVersion {
		return frame{}, dsdb.Errorf(dsdb.KindCorrupt, "frame of version %d, this process reads %d", version, frameVersion)
	}
	return f, nil
}

// firstRead is the memory that a frame gets before any of it has come; what it says
// of its length is not believed for more.
const firstRead = 1 << 20

// readBody reads n bytes.
func readBody(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, min(n, firstRead))
	for have := 0; ; {
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if have = len(b); have == n {
			return b, nil
		}
		b = append(b, make([]byte, min(have, n-have))...)
	}
}

// appendEnvelope appends a raft message to the body of a raft frame.
func appendEnvelope(dst []byte, e *raftnode.Envelope) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Group))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.From))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.To))
	at := len(dst)
	dst = raftnode.AppendMessage(append(dst, 0, 0, 0, 0), e.Message)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// decodeEnvelopes reads count messages from the body of a raft frame. They alias
// it, but for entries that are less than half of it: raft keeps entries in memory,
// and a small one of an idle group must not keep all that travelled with it.
func decodeEnvelopes(body []byte, count int) ([]raftnode.Envelope, error) {
	if count*raftEntrySize > len(body) {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft frame: %d messages in %d bytes", count, len(body))
	}
	out := make([]raftnode.Envelope, 0, count)
	d := decoder{b: body}
	for range count {
		e := raftnode.Envelope{Group: dsdb.GroupID(d.u64()), From: dsdb.ReplicaID(d.u64()), To: dsdb.ReplicaID(d.u64())}
		raw := d.bytes(uint64(d.u32()))
		if d.err != nil {
			return nil, fmt.Errorf("raft frame: %w", d.err)
		}
		m, err := raftnode.DecodeMessage(raw)
		if err != nil {
			return nil, fmt.Errorf("raft frame: group %d: %w", e.Group, err)
		}
		e.Message = m
		if 2*len(raw) < len(body) {
			detach(&e)
		}
		out = append(out, e)
	}
	if len(d.b) > 0 {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft frame: %d bytes behind the last message", len(d.b))
	}
	return out, nil
}

// detach gives the entries of a message memory of their own.
func detach(e *raftnode.Envelope) {
	ents, size := e.Message.GetEntries(), 0
	for _, e := range ents {
		size += len(e.GetData())
	}
	if size == 0 {
		return
	}
	own := make([]byte, 0, size)
	for _, e := range ents {
		at := len(own)
		if own = append(own, e.GetData()...); e.Data != nil {
			e.Data = own[at:len(own):len(own)]
		}
	}
}

// decoder takes little endian values from b. After the first that is missing
// it returns zeros and err is set.
type decoder struct {
	b   []byte
	err error
}

// bytes returns the next n bytes; they alias b.
func (d *decoder) bytes(n uint64) []byte {
	if d.err != nil {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.err = dsdb.Errorf(dsdb.KindCorrupt, "%d bytes are wanted where %d are left", n, len(d.b))
		d.b = nil
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() uint8 {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// short returns a string with a length of one byte, as appendShort writes it.
func (d *decoder) short() string { return string(d.bytes(uint64(d.u8()))) }

// appendShort appends the first 255 bytes of s with their length.
func appendShort(dst []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint8)]
	return append(append(dst, byte(len(s))), s...)
}

// appendFailure appends an error as it crosses the wire: kind, leader, text.
// That a handler's context ended is KindTimeout: its outcome is unknown.
func appendFailure(dst []byte, err error) []byte {
	k, text := dsdb.KindOf(err), err.Error()
	if k == dsdb.KindInternal && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		k, text = dsdb.KindTimeout, "timeout: "+text
	}
	text = text[:min(len(text), 32<<10)]
	dst = append(dst, byte(k))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(leaderOf(err)))
	return append(dst, text...)
}

// leaderOf returns the leader that an error of KindNotLeader names.
func leaderOf(err error) dsdb.NodeID {
	var e *dsdb.Error
	if errors.As(err, &e) {
		return e.Leader
	}
	return 0
}

// decodeFailure reads what appendFailure wrote.
func decodeFailure(b []byte) error {
	d := decoder{b: b}
	e := &dsdb.Error{Kind: dsdb.Kind(d.u8()), Leader: dsdb.NodeID(d.u64())}
	if d.err != nil {
		return fmt.Errorf("error from a peer: %w", d.err)
	}
	if e.Kind > dsdb.KindNotLeader {
		e.Kind = dsdb.KindInternal // of a newer program
	}
	e.Text = string(d.b)
	return e
}
