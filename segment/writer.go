package segment

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Bounds on what a Writer holds and on the parts of a file.
const (
	blockSeries = 1024     // series of a block
	blockBytes  = 1 << 19  // encoded bytes of all columns at which a block ends
	batchBytes  = 8 << 20  // data at which a record batch ends
	batchSeries = 1 << 18  // series of a record batch
	runBytes    = 64 << 20 // finished blocks of one measurement that are held back to sort them
	maxChunk    = 1 << 30  // encoded bytes of one chunk
)

// Writer writes one segment. It encodes as rows come in and holds at most
// runBytes of finished blocks, so that all blocks of one field can be written
// next to each other. A measurement that is larger is written as several such
// runs one after the other: a scan of one field then reads a range per run
// instead of one, and look-ups are as quick as ever, because a reader finds
// every block through its own index. A Writer is used by one goroutine; after
// an error all further calls return it.
type Writer struct {
	out     *sink
	arrow   *arrowWriter
	opts    Options
	enc     encoder
	group   measurementWriter
	batch   batch
	blocks  uint32      // numbers the blocks of the file
	codes   []codeTable // Huffman codes, by number
	cuts    []int
	info    Info
	started bool
	err     error
}

// codeTable is a Huffman code and the column it was made for.
type codeTable struct {
	measurement, field uint32
	code               *huffCode
}

// measurementWriter is the state of the measurement that is being written.
type measurementWriter struct {
	id     uint32
	last   dsdb.SeriesID
	fields []*fieldWriter // ascending by id; the first is the times
	sids   []uint32       // of the block at hand
	tmin   int64          // of the block at hand
	tmax   int64
	bytes  int // encoded bytes of the block at hand
	done   int // bytes of the finished blocks
}

// blockRow is a finished block of one column: one record of the file.
type blockRow struct {
	block      uint32
	sids       []uint32 // only of the times
	values     uint64
	tmin, tmax int64
	ends       []uint32 // of the chunks within data
	data       []byte
}

// NewWriter returns a Writer that fills the empty file f. It never syncs f.
func NewWriter(f vfs.File, h Header, o Options) *Writer {
	if o.TileRows <= 0 {
		o.TileRows = 512
	}
	w := &Writer{out: &sink{f: f}, opts: o}
	w.arrow, w.err = newArrowWriter(w.out, h)
	w.info.MinTime, w.info.MaxTime = math.MaxInt64, math.MinInt64
	return w
}

// Add appends all rows of one series: at least one, their times strictly
// ascending, and the columns by ascending field, each with as many rows.
// Series come in ascending order within their measurement, and measurements in
// ascending order. Add keeps nothing of its arguments. Columns of type NoType
// are left out. It reports KindInvalid if the order is not kept or the type of a field changes.
func (w *Writer) Add(measurement uint32, sid dsdb.SeriesID, times []int64, cols []FieldColumn) error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.check(measurement, sid, times, cols); w.err != nil {
		return w.err
	}
	g := &w.group
	if !w.started || measurement != g.id {
		if w.err = w.nextMeasurement(measurement); w.err != nil {
			return w.err
		}
	}
	g.last = sid
	g.sids = append(g.sids, uint32(sid))
	w.cuts = appendCuts(w.cuts[:0], times, min(w.opts.TileRows, 1024))
	first, last := times[0], times[len(times)-1]
	if len(g.sids) == 1 {
		g.tmin, g.tmax = first, last
	}
	g.tmin, g.tmax = min(g.tmin, first), max(g.tmax, last)
	w.info.MinTime, w.info.MaxTime = min(w.info.MinTime, first), max(w.info.MaxTime, last)
	w.info.Rows += uint64(len(times))
	w.addTimes(times)
	if w.err = w.addFields(cols); w.err != nil {
		return w.err
	}
	for _, f := range g.fields {
		for len(f.ends) < len(g.sids) {
			f.ends = append(f.ends, uint32(len(f.data)))
		}
	}
	if len(g.sids) >= blockSeries || g.bytes >= blockBytes {
		w.closeBlock()
		if g.done >= runBytes {
			w.err = w.writeRun()
		}
	}
	return w.err
}

// check verifies the order of what Add gets.
func (w *Writer) check(measurement uint32, sid dsdb.SeriesID, times []int64, cols []FieldColumn) error {
	g := &w.group
	if w.started && (measurement < g.id || measurement == g.id && sid <= g.last) {
		return dsdb.Errorf(dsdb.KindInvalid, "segment: series %d of measurement %d after series %d of %d",
			sid, measurement, g.last, g.id)
	}
	if len(times) == 0 || len(times) > math.MaxInt32 {
		return dsdb.Errorf(dsdb.KindInvalid, "segment: series %d has %d rows", sid, len(times))
	}
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return dsdb.Errorf(dsdb.KindInvalid, "segment: series %d: time %d after %d", sid, times[i], times[i-1])
		}
	}
	prev := uint32(0)
	for i := range cols {
		if cols[i].Field <= prev || cols[i].Vec.N != len(times) {
			return dsdb.Errorf(dsdb.KindInvalid, "segment: series %d: field %d of %d rows after field %d, times have %d",
				sid, cols[i].Field, cols[i].Vec.N, prev, len(times))
		}
		prev = cols[i].Field
		if v := &cols[i].Vec; v.Type == dsdb.String && v.Offsets[v.N]-v.Offsets[0] > maxStringTile {
			return dsdb.Errorf(dsdb.KindTooLarge, "segment: the strings of field %d of series %d have %d bytes",
				prev, sid, v.Offsets[v.N]-v.Offsets[0])
		}
	}
	return nil
}

func (w *Writer) nextMeasurement(id uint32) error {
	if err := w.endMeasurement(); err != nil {
		return err
	}
	w.group = measurementWriter{id: id, fields: []*fieldWriter{w.newField(0, kindTime)}}
	w.started = true
	return nil
}

func (w *Writer) newField(id uint32, kind uint8) *fieldWriter {
	f := &fieldWriter{id: id, kind: kind}
	if w.opts.Entropy && kind != kindBoolean && kind != kindString {
		f.hist, f.patience = new([huffSymbols]uint32), minPatience
	}
	return f
}

func (w *Writer) addTimes(times []int64) {
	f := w.group.fields[0]
	start := len(f.data)
	w.enc.appendTimes(f, times, w.cuts)
	if w.train(f) {
		f.data = f.data[:start]
		f.values -= uint64(len(times))
		w.enc.appendTimes(f, times, w.cuts)
	}
	w.group.bytes += len(f.data) - start
}

func (w *Writer) addFields(cols []FieldColumn) error {
	at := 1
	for i := range cols {
		c := &cols[i]
		if c.Vec.Type == dsdb.NoType {
			continue
		}
		f, err := w.field(c, &at)
		if err != nil {
			return err
		}
		start, values := len(f.data), f.values
		w.enc.appendField(f, &c.Vec, w.cuts)
		if w.train(f) {
			f.data, f.values = f.data[:start], values
			w.enc.appendField(f, &c.Vec, w.cuts)
		}
		w.info.Values += f.values - values
		w.group.bytes += len(f.data) - start
		if len(f.data)-start > maxChunk {
			return dsdb.Errorf(dsdb.KindTooLarge, "segment: field %d of series %d takes %d bytes", f.id, w.group.last, len(f.data)-start)
		}
	}
	return nil
}

// field returns the writer of a column; the search goes on where the last one of the row ended.
func (w *Writer) field(c *FieldColumn, at *int) (*fieldWriter, error) {
	g := &w.group
	i := *at
	for i < len(g.fields) && g.fields[i].id < c.Field {
		i++
	}
	*at = i + 1
	if i == len(g.fields) || g.fields[i].id != c.Field {
		kind, err := fieldKind(&c.Vec)
		if err != nil {
			return nil, err
		}
		f := w.newField(c.Field, kind)
		g.fields = slices.Insert(g.fields, i, f)
	}
	f := g.fields[i]
	if kindTypes[f.kind] != c.Vec.Type {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "segment: field %d of measurement %d is %s and then %s",
			c.Field, g.id, kindTypes[f.kind], c.Vec.Type)
	}
	for len(f.ends) < len(g.sids)-1 {
		f.ends = append(f.ends, uint32(len(f.data))) // the series before had no chunk
	}
	return f, nil
}

func (w *Writer) train(f *fieldWriter) bool {
	if !f.train(uint32(len(w.codes))) {
		return false
	}
	w.codes = append(w.codes, codeTable{w.group.id, f.id, f.code})
	return true
}

// closeBlock turns what the columns have collected into rows of the run.
func (w *Writer) closeBlock() {
	g := &w.group
	if len(g.sids) == 0 {
		return
	}
	for _, f := range g.fields {
		if len(f.data) == 0 {
			f.ends = f.ends[:0]
			continue
		}
		r := blockRow{block: w.blocks, values: f.values, tmin: g.tmin, tmax: g.tmax, ends: f.ends, data: f.data}
		if f.id == 0 {
			r.sids = g.sids
		}
		f.rows = append(f.rows, r)
		f.data = make([]byte, 0, len(f.data)+len(f.data)/8)
		f.ends = make([]uint32, 0, len(f.ends))
		f.values = 0
	}
	w.blocks++
	g.done += g.bytes
	g.bytes = 0
	g.sids = make([]uint32, 0, len(g.sids))
}

// writeRun writes the finished blocks of the measurement, column by column.
func (w *Writer) writeRun() error {
	for _, f := range w.group.fields {
		for i := range f.rows {
			w.batch.add(w.group.id, f, &f.rows[i])
			f.rows[i] = blockRow{}
			if w.batch.full() {
				if err := w.writeBatch(); err != nil {
					return err
				}
			}
		}
		f.rows = f.rows[:0]
	}
	w.group.done = 0
	return nil
}

func (w *Writer) writeBatch() error {
	if len(w.batch.kinds) == 0 && w.out.pos > 0 {
		return nil // only a file without rows needs a batch without rows, to have a schema before its seal
	}
	if err := w.arrow.write(&w.batch); err != nil {
		return fmt.Errorf("segment %s: %w", w.out.f.Name(), err)
	}
	w.batch.reset()
	return nil
}

func (w *Writer) endMeasurement() error {
	w.closeBlock()
	return w.writeRun()
}

// Finish writes what is left and the footer. The caller syncs and closes the file.
func (w *Writer) Finish() (Info, error) {
	if w.err == nil {
		w.err = w.finish()
	}
	if w.err != nil {
		return Info{}, w.err
	}
	w.err = fmt.Errorf("segment %s: finished already", w.out.f.Name())
	info := w.info
	if info.Rows == 0 {
		info.MinTime, info.MaxTime = 0, 0
	}
	info.Size, info.CRC = w.out.pos, w.out.file
	return info, nil
}

func (w *Writer) finish() error {
	if err := w.endMeasurement(); err != nil {
		return err
	}
	for i := range w.codes {
		if t := &w.codes[i]; t.code.used {
			w.batch.addTable(t, uint32(i))
		}
	}
	if err := w.writeBatch(); err != nil {
		return err
	}
	w.out.hold = true
	if err := w.arrow.close(); err != nil {
		return fmt.Errorf("segment %s: %w", w.out.f.Name(), err)
	}
	w.out.hold = false
	footer := w.out.held
	w.out.held = nil
	if err := w.out.seal(footer); err != nil {
		return fmt.Errorf("segment %s: %w", w.out.f.Name(), err)
	}
	return nil
}

// batch holds the columns of the record batch that is being filled.
type batch struct {
	kinds        []uint8
	measurements []uint32
	fields       []uint32
	blocks       []uint32
	sidEnds      []int32 // offsets, one more than there are rows
	sids         []uint32
	values       []uint64
	tmin, tmax   []int64
	dataEnds     []int64 // offsets, one more than there are rows
	data         []byte
}

// add appends a row: the ends of the chunks, then the chunks.
func (b *batch) add(measurement uint32, f *fieldWriter, r *blockRow) {
	b.begin(f.kind, measurement, f.id, r.block)
	b.sids = append(b.sids, r.sids...)
	b.values[len(b.values)-1] = r.values
	b.tmin[len(b.tmin)-1], b.tmax[len(b.tmax)-1] = r.tmin, r.tmax
	for _, end := range r.ends {
		b.data = binary.LittleEndian.AppendUint32(b.data, end)
	}
	b.data = append(b.data, r.data...)
	b.end()
}

// addTable appends the row of a Huffman table; its block is the number of the table.
func (b *batch) addTable(t *codeTable, id uint32) {
	b.begin(kindHuffman, t.measurement, t.field, id)
	b.data = t.code.appendLengths(b.data)
	b.end()
}

func (b *batch) begin(kind uint8, measurement, field, block uint32) {
	if len(b.kinds) == 0 {
		b.sidEnds = append(b.sidEnds[:0], 0)
		b.dataEnds = append(b.dataEnds[:0], 0)
	}
	b.kinds = append(b.kinds, kind)
	b.measurements = append(b.measurements, measurement)
	b.fields = append(b.fields, field)
	b.blocks = append(b.blocks, block)
	b.values = append(b.values, 0)
	b.tmin = append(b.tmin, 0)
	b.tmax = append(b.tmax, 0)
}

func (b *batch) end() {
	b.sidEnds = append(b.sidEnds, int32(len(b.sids)))
	b.dataEnds = append(b.dataEnds, int64(len(b.data)))
}

func (b *batch) full() bool {
	return len(b.data) >= batchBytes || len(b.sids) >= batchSeries
}

func (b *batch) reset() {
	b.kinds, b.measurements, b.fields, b.blocks = b.kinds[:0], b.measurements[:0], b.fields[:0], b.blocks[:0]
	b.sids, b.values, b.tmin, b.tmax, b.data = b.sids[:0], b.values[:0], b.tmin[:0], b.tmax[:0], b.data[:0]
}
