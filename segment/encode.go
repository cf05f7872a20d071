package segment

import (
	"encoding/binary"
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// The first byte of a chunk is a set of these flags.
const (
	chunkTiles  = 1 << 0 // it has several tiles and so a column of their sizes
	chunkTable  = 1 << 1 // the number of a Huffman table follows
	chunkStats  = 1 << 2 // it has columns of statistics
	chunkCounts = 1 << 3 // it has a column of counts, because some rows are null
	chunkMarks  = 1 << 4 // it has a column of tile marks
)

// Tile marks.
const (
	markUnknown  = 1 // the statistics of the tile may not be used
	markOverflow = 2 // its sum overflows
)

// encoder is the scratch space that all columns of a Writer share.
type encoder struct {
	ints   intEncoder // for tiles
	plain  intEncoder // for directories, lengths and codes: never Huffman
	floats floatEncoder
	text   stringEncoder

	payload []byte
	bitmap  column.Bitmap
	gInts   []int64
	gFloats []float64
	rows    []int
	col     []int64
	fcol    []float64
	stats   []column.Stats
}

// fieldWriter encodes one column of a measurement, the times being field 0. It
// collects the chunks of the block at hand.
type fieldWriter struct {
	id       uint32
	kind     uint8
	code     *huffCode
	hist     *[huffSymbols]uint32 // while a code is being trained
	patience int                  // tiles after which a code that seldom pays is given up, doubled each time
	tries    [2]int               // of the code: tiles for which it did not pay and for which it did
	hint     floatHint
	hints    [5]floatHint // of the columns of statistics
	data     []byte
	ends     []uint32 // of the chunk of each series of the block; equal to the one before: no chunk
	values   uint64   // non-null values in the block
	rows     []blockRow
}

// minTraining is the number of differences from which a code may be trained.
// minPatience is the number of tiles after which the first code of a column may
// be replaced.
const (
	minTraining = 1024
	minPatience = 64
)

// appendTimes appends the chunk of times of a series, cut into tiles.
func (e *encoder) appendTimes(f *fieldWriter, times []int64, cuts []int) {
	e.payload = e.payload[:0]
	e.col = e.col[:0]
	start := 0
	f.arm(e)
	for _, end := range cuts {
		size := len(e.payload)
		e.payload = e.appendTimeTile(e.payload, times[start:end])
		e.col = append(e.col, int64(len(e.payload)-size))
		start = end
	}
	f.disarm(e)
	dst := f.openChunk(flagIf(len(cuts) > 1, chunkTiles))
	if len(cuts) == 1 {
		dst = binary.AppendUvarint(dst, uint64(len(times)))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(times[0]))
		dst = binary.AppendUvarint(dst, uint64(times[len(times)-1]-times[0]))
	} else {
		dst = e.appendTimeDirectory(dst, times, cuts)
	}
	f.data = append(dst, e.payload...)
	f.values += uint64(len(times))
}

// appendTimeTile appends nothing if the times are evenly spaced: the directory
// has their first, last and number.
func (e *encoder) appendTimeTile(dst []byte, times []int64) []byte {
	if evenlySpaced(times) {
		return dst
	}
	e.gInts = e.gInts[:0]
	for _, t := range times {
		e.gInts = append(e.gInts, t-times[0])
	}
	return e.ints.append(dst, e.gInts)
}

func evenlySpaced(times []int64) bool {
	if len(times) < 3 {
		return true
	}
	step := times[1] - times[0]
	for i := 2; i < len(times); i++ {
		if times[i]-times[i-1] != step {
			return false
		}
	}
	return true
}

// appendTimeDirectory appends the number of tiles and the columns of rows,
// first times, spans and the sizes, which are in e.col.
func (e *encoder) appendTimeDirectory(dst []byte, times []int64, cuts []int) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(cuts)))
	sizes := append(e.gInts[:0], e.col...)
	part := func(value func(start, end int) int64) {
		e.col = e.col[:0]
		start := 0
		for _, end := range cuts {
			e.col = append(e.col, value(start, end))
			start = end
		}
		dst = e.appendColumn(dst, e.col)
	}
	part(func(start, end int) int64 { return int64(end - start) })
	part(func(start, end int) int64 { return times[start] })
	part(func(start, end int) int64 { return times[end-1] - times[start] })
	e.gInts = sizes
	return e.appendColumn(dst, sizes)
}

// appendColumn appends an integer column of a directory with its size in front.
func (e *encoder) appendColumn(dst []byte, v []int64) []byte {
	return appendSized(dst, func(dst []byte) []byte { return e.plain.append(dst, v) })
}

func flagIf(c bool, flag byte) byte {
	if c {
		return flag
	}
	return 0
}

// arm lends the code and the histogram of the column to the shared encoder. It
// first gives up a code that pays for less than half of the tiles: the series
// that it was trained on were not typical.
func (f *fieldWriter) arm(e *encoder) {
	if tried := f.tries[0] + f.tries[1]; f.code != nil && tried >= f.patience {
		if f.tries[1] < f.tries[0] {
			f.code, f.hist = nil, new([huffSymbols]uint32)
			f.patience *= 2
		}
		f.tries = [2]int{}
	}
	e.ints.code, e.ints.hist, e.ints.tries = f.code, f.hist, [2]int{}
}

// disarm takes back what arm has lent.
func (f *fieldWriter) disarm(e *encoder) {
	f.tries[0] += e.ints.tries[0]
	f.tries[1] += e.ints.tries[1]
}

// openChunk appends the flags of a chunk and the number of its table to f.data.
func (f *fieldWriter) openChunk(flags byte) []byte {
	if f.code == nil {
		return append(f.data, flags)
	}
	f.code.used = true
	dst := append(f.data, flags|chunkTable)
	return binary.AppendUvarint(dst, uint64(f.code.id))
}

// appendField appends the chunk of one field of a series, nothing if every row
// is null. Tiles end at cuts.
func (e *encoder) appendField(f *fieldWriter, vec *column.Vector, cuts []int) {
	e.payload, e.col, e.stats = e.payload[:0], e.col[:0], e.stats[:0]
	withStats := vec.N > smallChunk && f.kind != kindBoolean && f.kind != kindString
	total := 0
	start := 0
	f.arm(e)
	for _, end := range cuts {
		size := len(e.payload)
		s := e.appendTile(f, vec, start, end, withStats)
		e.stats = append(e.stats, s)
		e.col = append(e.col, int64(len(e.payload)-size))
		total += s.Count
		start = end
	}
	f.disarm(e)
	if total == 0 {
		return
	}
	flags := flagIf(len(cuts) > 1, chunkTiles) | flagIf(vec.N > smallChunk, chunkStats) |
		flagIf(vec.N > smallChunk && total != vec.N, chunkCounts)
	marks := false
	for i := range e.stats {
		marks = marks || withStats && e.stats[i].Count > 0 && markOf(&e.stats[i]) != 0
	}
	flags |= flagIf(marks, chunkMarks)
	f.data = e.appendDirectory(f.openChunk(flags), f, flags)
	f.data = append(f.data, e.payload...)
	f.values += uint64(total)
}

func markOf(s *column.Stats) int64 {
	return int64(flagIf(!s.Known, markUnknown) | flagIf(s.SumOverflow, markOverflow))
}

// appendDirectory appends the columns that flags announce: sizes, which are in
// e.col, counts, marks, and the sums, minima, maxima, first and last values.
func (e *encoder) appendDirectory(dst []byte, f *fieldWriter, flags byte) []byte {
	if flags&chunkTiles != 0 {
		dst = e.appendColumn(dst, e.col)
	}
	part := func(value func(s *column.Stats) int64) {
		e.col = e.col[:0]
		last := int64(0)
		for i := range e.stats {
			if s := &e.stats[i]; s.Count > 0 {
				last = value(s)
			}
			e.col = append(e.col, last)
		}
	}
	if flags&chunkCounts != 0 {
		e.col = e.col[:0]
		for i := range e.stats {
			e.col = append(e.col, int64(e.stats[i].Count))
		}
		dst = e.appendColumn(dst, e.col)
	}
	if flags&chunkMarks != 0 {
		part(markOf)
		dst = e.appendColumn(dst, e.col)
	}
	if flags&chunkStats == 0 || f.kind == kindBoolean || f.kind == kindString {
		return dst
	}
	for i, value := range statColumns {
		part(func(s *column.Stats) int64 { return int64(*value(s)) })
		if f.kind != kindFloat {
			dst = e.appendColumn(dst, e.col)
			continue
		}
		e.fcol = e.fcol[:0]
		for _, b := range e.col {
			e.fcol = append(e.fcol, math.Float64frombits(uint64(b)))
		}
		dst = appendSized(dst, func(dst []byte) []byte {
			return e.floats.append(dst, e.fcol, &f.hints[i], &e.plain)
		})
	}
	return dst
}

// statColumns are the columns of statistics in the order of the file.
var statColumns = [...]func(s *column.Stats) *uint64{
	func(s *column.Stats) *uint64 { return &s.Sum },
	func(s *column.Stats) *uint64 { return &s.Min },
	func(s *column.Stats) *uint64 { return &s.Max },
	func(s *column.Stats) *uint64 { return &s.First },
	func(s *column.Stats) *uint64 { return &s.Last },
}

// appendTile appends rows [start, end) to e.payload, nothing if all are null,
// and returns their statistics, only the count if these are not wanted.
func (e *encoder) appendTile(f *fieldWriter, vec *column.Vector, start, end int, want bool) column.Stats {
	n := end - start
	count := n
	var valid column.Bitmap
	if vec.Valid != nil {
		if e.bitmap == nil {
			e.bitmap = column.NewBitmap(column.MaxTileRows)
		}
		valid = bitmapWindow(e.bitmap, vec.Valid, start, n)
		count = countBits(valid)
		switch count {
		case 0:
			return column.Stats{Known: true}
		case n:
			valid = nil
		default:
			e.payload = appendValidity(e.payload, valid, n)
		}
	}
	s := column.Stats{Known: true, Count: count}
	switch f.kind {
	case kindFloat:
		v := vec.Floats[start:end]
		if valid != nil {
			e.gFloats = gather(e.gFloats[:0], v, valid)
			v = e.gFloats
		}
		e.payload = e.floats.append(e.payload, v, &f.hint, &e.ints)
		if want {
			s = floatStats(v)
		}
	case kindString:
		e.appendStrings(vec, start, end, valid)
	default:
		v := vec.Ints[start:end]
		if valid != nil {
			e.gInts = gather(e.gInts[:0], v, valid)
			v = e.gInts
		}
		if want {
			return e.appendInts(v, f.kind == kindUnsigned)
		}
		e.payload = e.ints.append(e.payload, v)
	}
	return s
}

// appendInts appends integers to e.payload and returns their statistics, which
// save the search for their least and greatest.
func (e *encoder) appendInts(v []int64, unsigned bool) column.Stats {
	s := intStats(v, unsigned)
	if unsigned {
		e.payload = e.ints.append(e.payload, v)
	} else {
		e.payload = e.ints.appendShaped(e.payload, v, shapeBetween(v, int64(s.Min), int64(s.Max)))
	}
	return s
}

// appendStrings appends the strings of rows [start, end) that are valid.
func (e *encoder) appendStrings(vec *column.Vector, start, end int, valid column.Bitmap) {
	e.rows = e.rows[:0]
	for i := start; i < end; i++ {
		if valid.Get(i - start) {
			e.rows = append(e.rows, i)
		}
	}
	e.payload = e.text.append(e.payload, len(e.rows), func(i int) []byte { return vec.Str(e.rows[i]) }, &e.plain)
}

// train makes a code once enough differences have been counted, and reports
// whether it did, so that the chunk at hand can be encoded anew.
func (f *fieldWriter) train(id uint32) bool {
	if f.hist == nil {
		return false
	}
	total := uint32(0)
	for _, n := range f.hist {
		total += n
	}
	if total < minTraining {
		return false
	}
	f.code, f.hist = newHuffCode(id, f.hist), nil
	return true
}

// fieldKind is the kind of the records of a column of this type.
func fieldKind(v *column.Vector) (uint8, error) {
	kind, ok := kindOf(v.Type)
	if !ok {
		return 0, dsdb.Errorf(dsdb.KindInvalid, "segment: a field cannot have the type %s", v.Type)
	}
	return kind, nil
}
