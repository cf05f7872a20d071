package exec

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// showFrameRows bounds the rows of one frame of a SHOW.
const showFrameRows = 10000

// showTable is one series of the answer of a SHOW before it is cut into frames.
type showTable struct {
	name string
	cols []showColumn
}

// showColumn holds strings if typ is String, else ints (booleans are 0 and 1).
type showColumn struct {
	name string
	typ  dsdb.FieldType
	strs []string
	ints []int64
}

func (t *showTable) addStrings(name string, values []string) {
	t.cols = append(t.cols, showColumn{name: name, typ: dsdb.String, strs: values})
}

func (t *showTable) addInts(name string, typ dsdb.FieldType, values []int64) {
	t.cols = append(t.cols, showColumn{name: name, typ: typ, ints: values})
}

func (c *showColumn) rows() int { return len(c.strs) + len(c.ints) }

func (t *showTable) rows() int { return t.cols[0].rows() }

// cut drops the rows that LIMIT and OFFSET leave out.
func (t *showTable) cut(limit, offset int) {
	n := t.rows()
	from := min(offset, n)
	to := n
	if limit > 0 {
		to = min(from+limit, n)
	}
	for i := range t.cols {
		t.cols[i] = t.cols[i].slice(from, to)
	}
}

func (c *showColumn) slice(from, to int) showColumn {
	out := showColumn{name: c.name, typ: c.typ}
	if c.typ == dsdb.String {
		out.strs = c.strs[from:to]
	} else {
		out.ints = c.ints[from:to]
	}
	return out
}

// vector copies strings, and aliases ints.
func (c *showColumn) vector() column.Vector {
	v := column.Vector{Type: c.typ, N: c.rows(), Ints: c.ints}
	if c.typ != dsdb.String {
		return v
	}
	v.Offsets = make([]uint32, 1, len(c.strs)+1)
	for _, s := range c.strs {
		v.Bytes = append(v.Bytes, s...)
		v.Offsets = append(v.Offsets, uint32(len(v.Bytes)))
	}
	return v
}

// appendFrames appends the table as frames; one without rows if it has none.
func (t *showTable) appendFrames(dst []column.Frame) []column.Frame {
	names := make([]string, len(t.cols))
	for i := range t.cols {
		names[i] = t.cols[i].name
	}
	n := t.rows()
	for from := 0; from == 0 || from < n; from += showFrameRows {
		to := min(from+showFrameRows, n)
		f := column.Frame{Name: t.name, Columns: names, Partial: to < n}
		for i := range t.cols {
			part := t.cols[i].slice(from, to)
			f.Cols = append(f.Cols, part.vector())
		}
		dst = append(dst, f)
	}
	return dst
}
