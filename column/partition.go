package column

import (
	"math"

	"github.com/dasudian/dsdb"
)

// Partitioner splits batches by shard. It owns the memory of the batches that
// it makes and reuses it at the next Split; it is not safe for concurrent use.
type Partitioner struct {
	parts  []*WriteBatch // returned by Split; nil, the batch itself, or one of owned
	owned  []WriteBatch
	where  []int32  // per row of all tables: its part, -1 for none
	rows   []uint32 // of one table: its rows, part by part
	ends   []uint32 // of one table: where each part ends in rows
	newKey []uint32 // of one table: where a key went, plus one
}

// Split distributes the rows of b over n parts: of names the part of a row by
// its table, its key (an index into that table's Keys) and its time, once for
// each row, in order; a row with a negative part goes nowhere. Part i of the result is nil if it has no
// rows, b itself if it has all of them, and otherwise a batch, valid until the
// next Split, with the rows in b's order and only the keys and columns that they use.
func (p *Partitioner) Split(b *WriteBatch, n int, of func(table, key int, t int64) int) []*WriteBatch {
	p.parts = resize(p.parts, n)
	clear(p.parts)
	p.owned = resize(p.owned, n)
	if part, one := p.place(b, of); one {
		if part >= 0 {
			p.parts[part] = b
		}
		return p.parts
	}
	for i := range p.owned {
		p.owned[i].Tables = p.owned[i].Tables[:0]
	}
	at := 0
	for i := range b.Tables {
		t := &b.Tables[i]
		p.sort(p.where[at:at+t.Rows()], n)
		at += t.Rows()
		start := uint32(0)
		for part, end := range p.ends {
			if start < end {
				tables := &p.owned[part].Tables
				*tables = resize(*tables, len(*tables)+1)
				p.newKey = t.gather(&(*tables)[len(*tables)-1], p.rows[start:end], p.newKey)
				p.parts[part] = &p.owned[part]
			}
			start = end
		}
	}
	return p.parts
}

// sort lists the rows of a table part by part, by counting.
func (p *Partitioner) sort(where []int32, n int) {
	p.ends = resize(p.ends, n)
	clear(p.ends)
	total := uint32(0)
	for _, w := range where {
		if w >= 0 {
			p.ends[w]++
		}
	}
	for part, count := range p.ends {
		p.ends[part] = total // where the part begins, until its rows are listed
		total += count
	}
	p.rows = resize(p.rows, int(total))
	for row, w := range where {
		if w >= 0 {
			p.rows[p.ends[w]] = uint32(row)
			p.ends[w]++
		}
	}
}

// place asks for the part of every row, and reports whether all rows have the
// same; that of a batch without rows is -1.
func (p *Partitioner) place(b *WriteBatch, of func(table, key int, t int64) int) (part int, one bool) {
	p.where = resize(p.where, b.Rows())
	i, one := 0, true
	for ti := range b.Tables {
		t := &b.Tables[ti]
		for row, at := range t.Times {
			p.where[i] = int32(of(ti, int(t.Series[row]), at))
			one = one && p.where[i] == p.where[0]
			i++
		}
	}
	if i == 0 {
		return -1, true
	}
	return int(p.where[0]), one
}

// Drop removes rows of a table, and the keys and columns that no other row
// uses. A table that loses all its rows stays, so that the others keep their
// numbers; Append leaves it out.
func (b *WriteBatch) Drop(table int, rows Bitmap) {
	t := &b.Tables[table]
	keep := make([]uint32, 0, t.Rows())
	for row := range t.Rows() {
		if !rows.Get(row) {
			keep = append(keep, uint32(row))
		}
	}
	if len(keep) < t.Rows() {
		t.gather(t, keep, nil)
	}
}

// gather makes dst the given ascending rows of t, with the keys and columns
// that they use; dst may be t. newKey is scratch and is returned grown.
func (t *Table) gather(dst *Table, rows []uint32, newKey []uint32) []uint32 {
	keys, columns := t.Keys, t.Columns
	newKey = resize(newKey, keys.Len())
	clear(newKey)
	dst.Measurement = t.Measurement
	times, series := resize(dst.Times, len(rows)), resize(dst.Series, len(rows))
	dst.MinTime, dst.MaxTime = math.MaxInt64, math.MinInt64
	for i, row := range rows {
		at := t.Times[row]
		dst.MinTime, dst.MaxTime = min(dst.MinTime, at), max(dst.MaxTime, at)
		times[i] = at
		series[i] = t.Series[row]
		newKey[series[i]] = 1
	}
	dst.Times, dst.Series = times, series
	dst.Keys.keep(&keys, newKey)
	for i, s := range series {
		series[i] = newKey[s] - 1
	}
	out := dst.Columns[:0]
	for i := range columns {
		c := &columns[i]
		if !c.used(rows) {
			continue
		}
		out = resize(out, len(out)+1)
		c.gather(&out[len(out)-1], rows)
	}
	dst.Columns = out
	return newKey
}

// keep makes k the keys of src which wanted marks with 1, in their order, and
// writes into wanted where each went, plus one. k may be src.
func (k *Keys) keep(src *Keys, wanted []uint32) {
	bytes, ends := k.Bytes[:0], k.Ends[:0]
	start := uint32(0)
	for i, w := range wanted {
		end := src.Ends[i]
		if w != 0 {
			bytes = append(bytes, src.Bytes[start:end]...)
			ends = append(ends, uint32(len(bytes)))
			wanted[i] = uint32(len(ends))
		}
		start = end
	}
	k.Bytes, k.Ends = bytes, ends
}

// used reports whether one of the rows has the field.
func (c *Column) used(rows []uint32) bool {
	if c.Valid == nil {
		return len(rows) > 0
	}
	for _, row := range rows {
		if c.Valid.Get(int(row)) {
			return true
		}
	}
	return false
}

// gather makes dst the given ascending rows of c. If dst is c, the bytes of
// strings stay where they are; otherwise those of the rows are copied.
func (c *Column) gather(dst *Column, rows []uint32) {
	src := *c
	dst.Name, dst.Type = src.Name, src.Type
	bits := resize(dst.Bits, len(rows))
	for i, row := range rows {
		bits[i] = src.Bits[row]
	}
	valid, nulls := dst.Valid[:0], false
	if src.Valid != nil {
		valid = resize(valid, (len(rows)+63)/64)
		nulls = gatherBits(valid, src.Valid, rows)
	}
	if dst.Valid = nil; nulls {
		dst.Valid = valid
	}
	dst.Bits = bits
	if dst == c {
		return
	}
	dst.Bytes = dst.Bytes[:0]
	if src.Type != dsdb.String {
		return
	}
	for i, b := range bits {
		if b&0xffffffff == 0 { // empty or null
			bits[i] = 0
			continue
		}
		at := uint64(len(dst.Bytes))
		dst.Bytes = append(dst.Bytes, src.Bytes[b>>32:b>>32+b&0xffffffff]...)
		bits[i] = at<<32 | b&0xffffffff
	}
}

// gatherBits writes the bits of the ascending rows into dst, which may be
// src, and reports whether one of them is clear.
func gatherBits(dst, src Bitmap, rows []uint32) (someClear bool) {
	var word uint64
	for i, row := range rows {
		if src.Get(int(row)) {
			word |= 1 << (i & 63)
		} else {
			someClear = true
		}
		if i&63 == 63 || i == len(rows)-1 {
			dst[i>>6] = word
			word = 0
		}
	}
	return someClear
}
