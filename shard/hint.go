package shard

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
)

// A hint is points that one node took while their shard had no leader, and that
// come late. It fills in what is missing and overwrites nothing: a value that
// the shard holds stays, whether it was written before the hint was made or
// since, and of two hints the first one to arrive. Nor does a hint bring back
// what was deleted since it was made. What the shard holds when an entry is
// applied is the same in every replica, so all of them come to the same end.

// AppendHint appends a hint of the points of b. All deletes up to since, an
// index of the shard's log, are known to have come before the points were
// written; any later one counts as having come after.
func AppendHint(dst []byte, since uint64, b *column.WriteBatch) []byte {
	return b.Append(binary.AppendUvarint(dst, since))
}

// AppendHints appends the log entry that delivers some hints, one after the
// other, proposed as id. Delivered reads its verdict. The field types were found in
// the catalogue as of its index prepared, 0: when the hints were made.
func AppendHints(dst []byte, id dsdb.ProposalID, prepared uint64, hints [][]byte) []byte {
	dst = appendPrepared(appendHeader(dst, entryHints, id), len(dst), prepared)
	for _, hint := range hints {
		dst = append(binary.AppendUvarint(dst, uint64(len(hint))), hint...)
	}
	return dst
}

// DecodeHint returns what AppendHint was given. It reports KindCorrupt for what is
// no hint.
func DecodeHint(hint []byte) (since uint64, b *column.WriteBatch, err error) {
	r := reader{hint}
	since, b = r.uvarint(), &column.WriteBatch{}
	if r.rest == nil {
		return 0, nil, dsdb.Errorf(dsdb.KindCorrupt, "hint of %d bytes is malformed", len(hint))
	}
	return since, b, b.Decode(r.rest)
}

// Delivered returns, from the verdict on an entry of AppendHints, how many
// points had no effect because all their values were there already, and how
// many because they were deleted since. The verdict's Rejected counts others.
func Delivered(v dsdb.Verdict) (superseded, deleted int, err error) {
	if len(v.Value) == 0 {
		return 0, 0, nil
	}
	r := reader{v.Value}
	superseded, deleted = int(r.uvarint()), int(r.uvarint())
	if r.rest == nil || len(r.rest) > 0 {
		return 0, 0, dsdb.Errorf(dsdb.KindCorrupt, "%d bytes are not the verdict on hints", len(v.Value))
	}
	return superseded, deleted, nil
}

// delivery is an entry of hints that is being applied.
type delivery struct {
	shard               *Shard
	src                 *Source              // what it holds without them
	batches             []*column.WriteBatch // what is left of each hint
	superseded, deleted int                  // rows that are not
	verdict             dsdb.Verdict
}

// applyHints applies an entry of hints: as a whole, for a flush counts an entry
// as done or not.
func (s *Shard) applyHints(h header, body []byte) (dsdb.Verdict, error) {
	src, err := s.Source()
	if err != nil {
		return dsdb.Verdict{}, err
	}
	defer src.Close()
	d := &delivery{shard: s, src: src}
	r := reader{body}
	for i := 0; len(r.rest) > 0; i++ {
		n := r.count()
		if r.rest == nil || n == 0 {
			return d.verdict, dsdb.Errorf(dsdb.KindCorrupt, "hint %d of an entry of %d bytes is malformed", i, len(body))
		}
		if err := d.add(r.rest[:n]); err != nil {
			return d.verdict, err
		}
		r.rest = r.rest[n:]
	}
	if s.fenced(h) && slices.ContainsFunc(d.batches, func(b *column.WriteBatch) bool { return b.Rows() > 0 }) {
		return s.refuse(h), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range slices.Backward(d.batches) { // of rows in memory the last one wins, of hints the first
		if err := s.writeLocked(b, &d.verdict); err != nil {
			return d.verdict, err
		}
	}
	if d.superseded+d.deleted > 0 {
		d.verdict.Value = binary.AppendUvarint(binary.AppendUvarint(nil, uint64(d.superseded)), uint64(d.deleted))
	}
	s.finishLocked(h, d.verdict)
	return d.verdict, nil
}

// add decodes a hint and keeps those of its values that are missing.
func (d *delivery) add(hint []byte) error {
	since, b, err := DecodeHint(hint)
	if err != nil {
		return err
	}
	if since < d.shard.deletes.floor {
		for range b.Rows() {
			addRejected(&d.verdict, dsdb.KindInvalid, "hint is older than the deletes that its shard remembers: what it holds may have been deleted")
		}
		return nil
	}
	for i := range b.Tables {
		if err := checkTable(&b.Tables[i]); err != nil {
			return err
		}
		d.deleted += drop(b, i, d.shard.deletes.hide(&b.Tables[i], since))
		gone, err := d.supersede(&b.Tables[i])
		if err != nil {
			return err
		}
		d.superseded += drop(b, i, gone)
		b.Tables[i].Columns = slices.DeleteFunc(b.Tables[i].Columns, func(c column.Column) bool { return !hasValue(&c) })
	}
	d.batches = append(d.batches, b)
	return nil
}

// drop drops the marked rows of a table and returns their number.
func drop(b *column.WriteBatch, table int, rows column.Bitmap) int {
	before := b.Tables[table].Rows()
	if rows != nil {
		b.Drop(table, rows)
	}
	return before - b.Tables[table].Rows()
}

// supersede takes the values out of a table that the shard holds others of, and
// returns the rows that are left without any, nil if none is.
func (d *delivery) supersede(t *column.Table) (gone column.Bitmap, err error) {
	rows := d.rowsBySeries(t)
	if len(rows) == 0 || mutant.HintOverwritesNewer {
		return nil, nil
	}
	rng := d.shard.o.Range
	rng = dsdb.TimeRange{Start: max(rng.Start, t.MinTime), End: min(rng.End-1, t.MaxTime) + 1}
	scan := dsdb.Scan{Measurement: t.Measurement, Range: rng}
	for i := range t.Columns {
		scan.Fields = append(scan.Fields, t.Columns[i].Name)
	}
	for i, r := range rows {
		if i == 0 || r.id != rows[i-1].id {
			scan.Series = append(scan.Series, r.id)
		}
	}
	c, err := d.src.Scan(context.Background(), scan)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for {
		tile, err := c.Next()
		if tile == nil || err != nil {
			return gone, err
		}
		first, _ := slices.BinarySearchFunc(rows, hintRow{tile.Series, tile.First, 0}, hintRow.compare)
		end, _ := slices.BinarySearchFunc(rows, hintRow{tile.Series, tile.Last, t.Rows()}, hintRow.compare)
		if first == end {
			continue
		}
		if gone, err = takeOut(t, tile, rows[first:end], gone); err != nil {
			return nil, err
		}
	}
}

// hintRow is a row of a hint whose series the shard has.
type hintRow struct {
	id   dsdb.SeriesID
	time int64
	row  int
}

func (r hintRow) compare(o hintRow) int {
	return cmp.Or(cmp.Compare(r.id, o.id), cmp.Compare(r.time, o.time), cmp.Compare(r.row, o.row))
}

// rowsBySeries returns the rows of the series that the shard has, in order.
func (d *delivery) rowsBySeries(t *column.Table) (rows []hintRow) {
	ids := d.shard.index.Find(nil, t.Measurement, &t.Keys)
	for row, key := range t.Series {
		if id := ids[key]; id != 0 {
			rows = append(rows, hintRow{id, t.Times[row], row})
		}
	}
	slices.SortFunc(rows, hintRow.compare)
	return rows
}

// takeOut takes the values out of rows that the tile, which is of their series,
// has at the same time, and marks those that have no value then.
func takeOut(t *column.Table, tile *column.Tile, rows []hintRow, gone column.Bitmap) (column.Bitmap, error) {
	if err := tile.LoadTimes(); err != nil {
		return nil, err
	}
	loaded := 0
	for _, r := range rows {
		at, found := slices.BinarySearch(tile.Times, r.time)
		if !found {
			continue
		}
		for ; loaded < len(t.Columns); loaded++ {
			if err := tile.Load(loaded); err != nil {
				return nil, err
			}
		}
		if takeOutRow(t, tile, r.row, at) {
			if gone == nil {
				gone = column.NewBitmap(t.Rows())
			}
			gone.Set(r.row)
		}
	}
	return gone, nil
}

// takeOutRow takes the values out of a row that row at of a tile has, whose
// columns are loaded. It reports whether none is left.
func takeOutRow(t *column.Table, tile *column.Tile, row, at int) (empty bool) {
	empty = true
	for i := range t.Columns {
		c := &t.Columns[i]
		if !tile.Cols[i].Null(at) {
			setNull(c, row)
		} else if c.Valid.Get(row) {
			empty = false
		}
	}
	return empty
}

// setNull takes a value out of a column.
func setNull(c *column.Column, row int) {
	if c.Valid == nil {
		c.Valid = column.NewBitmap(len(c.Bits))
		for i := range c.Bits {
			c.Valid.Set(i)
		}
	}
	c.Valid.Clear(row)
	c.Bits[row] = 0
}
