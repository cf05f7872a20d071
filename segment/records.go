package segment

import (
	"encoding/binary"
	"slices"
)

// rowSet collects the rows of all record batches of a file.
type rowSet struct {
	r    *Reader
	rows []fileRow
}

// fileRow is one row of the file, without its values.
type fileRow struct {
	kind               uint8
	measurement, field uint32
	block              uint32
	sids               []byte
	values             uint64
	tmin, tmax         int64
	off, len           int64
}

// The buffers of a record batch in the order of fileFields; the validity of
// each column is a buffer too, empty here because nothing is null.
const (
	bufKind, bufMeasurement, bufField, bufBlock = 1, 3, 5, 7
	bufSidEnds, bufSids                         = 9, 11
	bufValues, bufTmin, bufTmax                 = 13, 15, 17
	bufDataEnds, bufData                        = 19, 20
	recordBuffers                               = 21
)

// loadRecord reads the columns of one record batch apart from the data.
func (r *Reader) loadRecord(set *rowSet, off, metaLen, bodyLen int64) error {
	meta, err := r.bytes(off, metaLen)
	if err != nil {
		return err
	}
	if metaLen < 8 || bodyLen < 0 || off+metaLen > r.pages.covered-bodyLen {
		return r.corrupt(off, "record of %d+%d bytes", metaLen, bodyLen)
	}
	record := fbRoot(meta[8:]).table(2)
	pos, n := record.vector(2, 16)
	rows := record.int64(0)
	if n != recordBuffers || rows < 0 || rows > bodyLen {
		return r.corrupt(off, "record of %d rows in %d buffers", rows, n)
	}
	var offs, lens [recordBuffers]int64
	for i := range recordBuffers {
		offs[i], lens[i] = fbInt64(record.b, pos+16*i), fbInt64(record.b, pos+16*i+8)
		if offs[i] < 0 || lens[i] < 0 || offs[i] > bodyLen-lens[i] {
			return r.corrupt(off, "buffer %d of the record", i)
		}
		offs[i] += off + metaLen
	}
	for i, width := range [...]int64{bufKind: 1, bufMeasurement: 4, bufField: 4, bufBlock: 4, bufValues: 8, bufTmin: 8, bufTmax: 8} {
		if lens[i] < rows*width {
			return r.corrupt(offs[i], "buffer %d of the record has %d bytes for %d rows", i, lens[i], rows)
		}
	}
	if rows == 0 {
		return nil
	}
	if lens[bufSidEnds] < 4*(rows+1) || lens[bufDataEnds] < 8*(rows+1) {
		return r.corrupt(off, "offsets of the record")
	}
	if err := r.touch(off, offs[bufData]-off); err != nil {
		return err
	}
	r.batches++
	return set.add(int(rows), &offs, &lens)
}

// add appends the rows of a record batch whose buffers are where offs and lens say.
func (s *rowSet) add(rows int, offs, lens *[recordBuffers]int64) error {
	d := s.r.data
	u32 := func(buf, i int) uint32 { return binary.LittleEndian.Uint32(d[offs[buf]+4*int64(i):]) }
	u64 := func(buf, i int) int64 { return int64(binary.LittleEndian.Uint64(d[offs[buf]+8*int64(i):])) }
	for i := range rows {
		sid0, sid1 := int64(u32(bufSidEnds, i)), int64(u32(bufSidEnds, i+1))
		data0, data1 := u64(bufDataEnds, i), u64(bufDataEnds, i+1)
		if sid0 > sid1 || 4*sid1 > lens[bufSids] {
			return s.r.corrupt(offs[bufSidEnds]+4*int64(i), "series of row %d", i)
		}
		if data0 < 0 || data0 > data1 || data1 > lens[bufData] {
			return s.r.corrupt(offs[bufDataEnds]+8*int64(i), "data of row %d", i)
		}
		s.rows = append(s.rows, fileRow{
			kind:        d[offs[bufKind]+int64(i)],
			measurement: u32(bufMeasurement, i), field: u32(bufField, i), block: u32(bufBlock, i),
			sids:   d[offs[bufSids]+4*sid0 : offs[bufSids]+4*sid1],
			values: uint64(u64(bufValues, i)), tmin: u64(bufTmin, i), tmax: u64(bufTmax, i),
			off: offs[bufData] + data0, len: data1 - data0,
		})
	}
	return nil
}

// index builds the look-up structures of the reader from all rows: sorted by
// measurement, block and field, the rows of a block follow each other, times first.
func (s *rowSet) index() error {
	r := s.r
	r.info = noTimes
	r.info.Size = int64(len(r.data))
	slices.SortFunc(s.rows, func(a, b fileRow) int {
		switch {
		case a.measurement != b.measurement:
			return compare(a.measurement, b.measurement)
		case (a.kind == kindHuffman) != (b.kind == kindHuffman):
			return int(a.kind) - int(b.kind)
		case a.block != b.block:
			return compare(a.block, b.block)
		}
		return compare(a.field, b.field)
	})
	var cur *block
	last := uint32(0)
	for i := range s.rows {
		row := &s.rows[i]
		switch {
		case row.kind == kindHuffman:
			if err := r.addTable(row); err != nil {
				return err
			}
			continue
		case int(row.kind) >= len(kindTypes) || (row.kind == kindTime) != (row.field == 0):
			return r.corrupt(row.off, "column %d of kind %d", row.field, row.kind)
		case row.kind == kindTime:
			var err error
			if cur, err = r.addBlock(row); err != nil {
				return err
			}
			last = row.block
		case cur == nil || last != row.block || r.groups[len(r.groups)-1].id != row.measurement:
			return r.corrupt(row.off, "block %d of field %d has no times", row.block, row.field)
		default:
			r.info.Values += row.values
		}
		if 4*int64(cur.count()) > row.len {
			return r.corrupt(row.off, "block %d of field %d has %d bytes for %d series", row.block, row.field, row.len, cur.count())
		}
		cur.columns = append(cur.columns, blockColumn{row.field, row.kind, row.values, row.off, row.len})
	}
	if r.info.Rows == 0 {
		r.info.MinTime, r.info.MaxTime = 0, 0
	}
	return nil
}

func compare(a, b uint32) int {
	if a < b {
		return -1
	}
	return 1
}

func (r *Reader) addTable(row *fileRow) error {
	src, err := r.bytes(row.off, row.len)
	if err != nil {
		return err
	}
	t := new(lazyTable)
	if t.lengths, err = decodeLengths(src); err != nil {
		return r.corrupt(row.off, "Huffman table %d: %v", row.block, err)
	}
	r.tables[row.block] = t
	return nil
}

// addBlock begins a block of the last measurement or of a new one.
func (r *Reader) addBlock(row *fileRow) (*block, error) {
	n := len(r.groups)
	if n == 0 || r.groups[n-1].id != row.measurement {
		r.groups = append(r.groups, group{id: row.measurement})
		n++
	}
	g := &r.groups[n-1]
	b := block{sids: row.sids, tmin: row.tmin, tmax: row.tmax}
	if b.count() == 0 {
		return nil, r.corrupt(row.off, "block %d has no series", row.block)
	}
	for i := 1; i < b.count(); i++ {
		if b.sid(i) <= b.sid(i-1) {
			return nil, r.corrupt(row.off, "series of block %d are not ascending", row.block)
		}
	}
	if k := len(g.blocks); k > 0 && g.blocks[k-1].sid(g.blocks[k-1].count()-1) >= b.first() {
		return nil, r.corrupt(row.off, "block %d is not above the one before", row.block)
	}
	g.blocks = append(g.blocks, b)
	r.info.Rows += row.values
	r.info.MinTime, r.info.MaxTime = min(r.info.MinTime, row.tmin), max(r.info.MaxTime, row.tmax)
	return &g.blocks[len(g.blocks)-1], nil
}
