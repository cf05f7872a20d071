// Package segment reads and writes segments: immutable columnar files that
// hold rows of one shard, sorted by (measurement, field, series, time).
//
// A segment is a valid Arrow IPC file of one fixed schema, whatever it holds.
// One record is a block: all values of one field of some consecutive series of
// a measurement, encoded. Within a block each series has a chunk, and a chunk
// is a run of tiles of at most column.MaxTileRows rows, cut at multiples of a
// time window, each with its statistics. All fields of a series share one
// column of times: tile i of a field holds the rows of tile i of the times,
// with a validity where rows lack the field. FORMAT.md has every byte.
//
// Values flow in through Writer.Add, which encodes a series at a time and
// keeps only encoded bytes until a measurement is complete, and out through
// Open, Reader.Chunk and FieldChunk.Decode, which read a mapping of the file
// and build no Arrow arrays. Every byte is covered by a checksum that is
// verified before the byte is first used.
//
// The package knows series and fields by number only: names, tags and types
// belong to the shard. It does not know about levels, merges or deletions; the
// Header carries what the shard wants to remember with the file.
package segment

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// Version is the format that this package writes and the newest that it reads.
const Version = 1

// Header is what a segment says about itself. It is the shard's; the package
// only stores it.
type Header struct {
	Shard              dsdb.ShardID
	Level              int
	MinIndex, MaxIndex uint64 // raft indexes, inclusive, whose rows the file may hold
	Seq                uint64 // numbers the files of a shard
}

// Options choose how a Writer encodes.
type Options struct {
	TileRows int  // rows that a tile should have at most, if its window allows it; 0 means 512
	Entropy  bool // train and use Huffman codes: smaller, and about a third slower to write
}

// FieldColumn is one field of the rows of a series.
type FieldColumn struct {
	Field uint32 // 1 …; 0 is the column of times
	Vec   column.Vector
}

// Info describes a finished segment.
type Info struct {
	Size             int64
	CRC              uint32 // CRC-32C of the whole file
	MinTime, MaxTime int64  // of all rows, inclusive; 0 if there are none
	Rows, Values     uint64 // values are non-null fields
}

// The kinds of record, as the column kind of the file numbers them.
const (
	kindTime     = 0
	kindInteger  = 1
	kindUnsigned = 2
	kindFloat    = 3
	kindBoolean  = 4
	kindString   = 5
	kindHuffman  = 16
)

// kindOf returns the kind of a field's records, false if the type has none.
func kindOf(t dsdb.FieldType) (uint8, bool) {
	switch t {
	case dsdb.Integer:
		return kindInteger, true
	case dsdb.Unsigned:
		return kindUnsigned, true
	case dsdb.Float:
		return kindFloat, true
	case dsdb.Boolean:
		return kindBoolean, true
	case dsdb.String:
		return kindString, true
	}
	return 0, false
}

var kindTypes = [...]dsdb.FieldType{dsdb.Time, dsdb.Integer, dsdb.Unsigned, dsdb.Float, dsdb.Boolean, dsdb.String}
