// Package column holds the typed column vectors through which all data flows:
// the WriteBatch that a request becomes and that a log entry carries, the Tile
// that a shard hands to the query engine, and the Frame of result rows that
// goes to a client. It knows no file format, no query language and no Arrow.
package column

import "github.com/dasudian/dsdb"

// Bitmap has one bit per row, bit i%64 of word i/64. As the validity of a
// vector a nil Bitmap means that every row is valid.
type Bitmap []uint64

// NewBitmap returns a bitmap of n rows, all clear.
func NewBitmap(n int) Bitmap { return make(Bitmap, (n+63)/64) }

// Get reports bit i; a nil Bitmap has every bit set.
func (b Bitmap) Get(i int) bool { return b == nil || b[i>>6]>>(uint(i)&63)&1 != 0 }

// Set sets bit i.
func (b Bitmap) Set(i int) { b[i>>6] |= 1 << (uint(i) & 63) }

// Clear clears bit i.
func (b Bitmap) Clear(i int) { b[i>>6] &^= 1 << (uint(i) & 63) }

// Vector is a column of N values of one type. Exactly one representation is in use:
//
//	Float                              Floats
//	Integer, Time, Unsigned, Boolean   Ints (unsigned as its bits, boolean as 0 or 1)
//	String                             Offsets (N+1, ascending) into Bytes
//	NoType                             none: every row is null
//
// The value of a null row is unspecified. Whoever made the vector owns its
// memory; a reader copies what it keeps.
type Vector struct {
	Type    dsdb.FieldType
	N       int
	Valid   Bitmap
	Floats  []float64
	Ints    []int64
	Offsets []uint32
	Bytes   []byte
}

// Null reports whether row i is null.
func (v *Vector) Null(i int) bool { return v.Type == dsdb.NoType || !v.Valid.Get(i) }

// Str returns the bytes of string row i; they alias the vector.
func (v *Vector) Str(i int) []byte { return v.Bytes[v.Offsets[i]:v.Offsets[i+1]] }
