package httpd

import (
	"encoding/csv"
	"slices"
	"strconv"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// csvEncoder writes InfluxDB's CSV: a header with name and tags before the
// columns, again whenever the columns change, and a blank line between statements.
type csvEncoder struct {
	out       *response
	unit      int64
	statement int // whose header was printed; -1: none
	current   int
	columns   []string
	row       []string
	w         *csv.Writer
}

// Write lets the csv.Writer append to the answer.
func (e *csvEncoder) Write(p []byte) (int, error) {
	e.out.buf = append(e.out.buf, p...)
	return len(p), e.out.spill()
}

func (e *csvEncoder) begin(statement int) { e.current = statement }

func (e *csvEncoder) frame(f *column.Frame) error {
	if e.w == nil {
		e.w = csv.NewWriter(e)
	}
	if e.statement != e.current || !slices.Equal(e.columns, f.Columns) {
		e.header(f.Columns)
	}
	e.row = append(e.row[:0], f.Name, tagText(f.Tags))
	for r := 0; r < f.Rows(); r++ {
		e.row = e.row[:2]
		for c := range f.Cols {
			e.row = append(e.row, e.text(&f.Cols[c], r))
		}
		if err := e.w.Write(e.row); err != nil {
			return err
		}
	}
	e.w.Flush()
	return e.w.Error()
}

func (e *csvEncoder) header(columns []string) {
	if e.statement >= 0 {
		e.w.Flush()
		e.out.buf = append(e.out.buf, '\n')
	}
	e.statement, e.columns = e.current, slices.Clone(columns)
	_ = e.w.Write(append([]string{"name", "tags"}, columns...)) // the next row's error is the same
}

// tagText is the tag part of a series key.
func tagText(tags dsdb.Tags) string {
	if len(tags) == 0 {
		return ""
	}
	return string(dsdb.AppendSeriesKey(nil, "", tags)[1:])
}

func (e *csvEncoder) text(v *column.Vector, i int) string {
	if v.Null(i) {
		return ""
	}
	switch v.Type {
	case dsdb.Float:
		return strconv.FormatFloat(v.Floats[i], 'f', -1, 64)
	case dsdb.Integer:
		return strconv.FormatInt(v.Ints[i], 10)
	case dsdb.Unsigned:
		return strconv.FormatUint(uint64(v.Ints[i]), 10)
	case dsdb.Boolean:
		return strconv.FormatBool(v.Ints[i] != 0)
	case dsdb.Time:
		return strconv.FormatInt(v.Ints[i]/e.unit, 10)
	}
	return string(v.Str(i))
}

func (e *csvEncoder) end(err error, _ []string) {
	if err == nil {
		return
	}
	if e.w == nil {
		e.w = csv.NewWriter(e)
	}
	_ = e.w.Write([]string{"error"})
	_ = e.w.Write([]string{err.Error()})
	e.w.Flush()
}

func (e *csvEncoder) finish() {}
