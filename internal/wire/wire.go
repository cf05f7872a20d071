// Package wire reads and appends the primitive values of messages between
// nodes: numbers, strings, floats bit by bit. It owns the bounds checks, so that
// a decoder built on a Reader allocates no more than its input can fill and
// does not panic; it knows nothing of what the values mean. A message is put
// together by the Append functions and taken apart by a
// Reader in the same order; the first fault sticks and makes all later values zero.
package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dasudian/dsdb"
)

// AppendUint appends an unsigned number, small ones in few bytes.
func AppendUint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// AppendInt appends a signed number.
func AppendInt(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// AppendString appends the length and the bytes of s.
func AppendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// AppendBool appends one byte, 0 or 1.
func AppendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendFloat appends the bits of x, so that NaN keeps its payload.
func AppendFloat(dst []byte, x float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
}

// AppendStrings appends the number of strings and the strings.
func AppendStrings(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, s := range list {
		dst = AppendString(dst, s)
	}
	return dst
}

// Reader takes a message apart. The zero Reader is at the end of an empty one.
type Reader struct {
	b   []byte
	n   int // length of the message
	err error
}

// NewReader returns a Reader of b, which what it reads does not alias but for Rest.
func NewReader(b []byte) *Reader { return &Reader{b: b, n: len(b)} }

// Fail notes a fault at the current offset; it reads as KindInvalid.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = dsdb.Errorf(dsdb.KindInvalid, "message malformed at byte %d: %s", r.n-len(r.b), fmt.Sprintf(format, args...))
		r.b = nil
	}
}

// Err returns the first fault.
func (r *Reader) Err() error { return r.err }

// End returns the first fault; bytes that are left are one.
func (r *Reader) End() error {
	if r.err == nil && len(r.b) > 0 {
		r.Fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// Len returns the number of bytes that are left.
func (r *Reader) Len() int { return len(r.b) }

// Rest returns all that is left; it aliases the message.
func (r *Reader) Rest() []byte {
	b := r.b
	r.b = nil
	return b
}

// Block reads four bytes of length, little endian, and so many bytes; it aliases the message.
func (r *Reader) Block() []byte {
	if len(r.b) < 4 {
		r.Fail("ends within a length")
		return nil
	}
	n := binary.LittleEndian.Uint32(r.b)
	if uint64(n) > uint64(len(r.b)-4) {
		r.Fail("%d bytes of %d", n, len(r.b)-4)
		return nil
	}
	b := r.b[4 : 4+n]
	r.b = r.b[4+n:]
	return b
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.b) == 0 {
		r.Fail("ends early")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// Bool reads what AppendBool appends.
func (r *Reader) Bool() bool {
	c := r.Byte()
	if c > 1 {
		r.Fail("truth value %d", c)
	}
	return c == 1
}

// Uint reads an unsigned number of at most limit.
func (r *Reader) Uint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	if v > limit {
		r.Fail("number %d exceeds %d", v, limit)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Int reads a signed number.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Size reads a number of at most limit, which is not negative.
func (r *Reader) Size(limit int) int { return int(r.Uint(uint64(limit))) }

// Count reads the number of things that follow, each of at least size bytes.
func (r *Reader) Count(size int) int {
	n := r.Uint(math.MaxInt32)
	if n > uint64(len(r.b)/size) {
		r.Fail("%d things of %d bytes in %d", n, size, len(r.b))
		return 0
	}
	return int(n)
}

// Float reads what AppendFloat appends.
func (r *Reader) Float() float64 {
	if len(r.b) < 8 {
		r.Fail("ends within a float")
		return 0
	}
	x := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	return x
}

// String reads what AppendString appends.
func (r *Reader) String() string {
	n := r.Count(1)
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// Strings reads what AppendStrings appends; none is nil.
func (r *Reader) Strings() []string {
	n := r.Count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.String()
	}
	return list
}
