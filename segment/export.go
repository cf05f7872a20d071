package segment

import (
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// exportRows is the number of rows at which a record of an export ends.
const exportRows = 1 << 16

// exporter turns a segment back into rows.
type exporter struct {
	r       *Reader
	names   Names
	columns []exportColumn
	byName  map[exportColumn]int
	rec     *array.RecordBuilder
	rows    int // in rec
	w       *ipc.Writer
	chunk   Chunk
	times   []int64
	vec     column.Vector
}

// exportColumn is a column of the export: the fields of this name and type of all measurements.
type exportColumn struct {
	name string
	typ  dsdb.FieldType
}

// ExportArrow writes the rows of a segment, decoded, as an Arrow IPC stream with
// the columns measurement, series (the canonical key), time, and one nullable
// column for each name and type of field; fields of one name and several types
// are told apart by ":" and the type. Rows are sorted by measurement, series and
// time as numbered in the file.
func ExportArrow(r *Reader, names Names, w io.Writer) error {
	return exportArrow(r, names, w, memory.DefaultAllocator)
}

func exportArrow(r *Reader, names Names, w io.Writer, mem memory.Allocator) error {
	return r.Guard(func() error {
		e := &exporter{r: r, names: names, byName: map[exportColumn]int{}}
		e.findColumns()
		schema := e.schema()
		e.w = ipc.NewWriter(w, ipc.WithSchema(schema), ipc.WithAllocator(mem))
		e.rec = array.NewRecordBuilder(mem, schema)
		defer e.rec.Release()
		for _, m := range r.Measurements() {
			if err := e.measurement(m); err != nil {
				return err
			}
		}
		if err := e.flush(); err != nil {
			return err
		}
		if err := e.w.Close(); err != nil {
			return fmt.Errorf("segment %s: export: %w", r.name, err)
		}
		return nil
	})
}

func (e *exporter) findColumns() {
	for i := range e.r.groups {
		g := &e.r.groups[i]
		for b := range g.blocks {
			for _, c := range g.blocks[b].columns[1:] {
				key := exportColumn{e.names.Field(g.id, c.field), kindTypes[c.kind]}
				if _, ok := e.byName[key]; !ok {
					e.byName[key] = len(e.columns)
					e.columns = append(e.columns, key)
				}
			}
		}
	}
}

func (e *exporter) schema() *arrow.Schema {
	fields := []arrow.Field{
		{Name: "measurement", Type: arrow.BinaryTypes.String},
		{Name: "series", Type: arrow.BinaryTypes.String},
		{Name: "time", Type: arrow.FixedWidthTypes.Timestamp_ns},
	}
	types := map[dsdb.FieldType]arrow.DataType{
		dsdb.Float: arrow.PrimitiveTypes.Float64, dsdb.Integer: arrow.PrimitiveTypes.Int64,
		dsdb.Unsigned: arrow.PrimitiveTypes.Uint64, dsdb.Boolean: arrow.FixedWidthTypes.Boolean,
		dsdb.String: arrow.BinaryTypes.String,
	}
	for _, c := range e.columns {
		name := c.name
		same := func(o exportColumn) bool { return o.name == c.name && o.typ != c.typ }
		if slices.ContainsFunc(e.columns, same) {
			name += ":" + c.typ.String()
		}
		fields = append(fields, arrow.Field{Name: name, Type: types[c.typ], Nullable: true})
	}
	return arrow.NewSchema(fields, nil)
}

func (e *exporter) measurement(m uint32) error {
	name := e.names.Measurement(m)
	fields := e.r.Fields(m, nil)
	for _, sid := range e.r.Series(m, nil) {
		e.r.Chunk(m, sid, &e.chunk)
		key := e.names.Series(m, sid)
		for i := range e.chunk.Tiles() {
			if err := e.tile(i, name, key, m, fields); err != nil {
				return err
			}
			if e.rows >= exportRows {
				if err := e.flush(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tile appends the rows of one tile.
func (e *exporter) tile(i int, measurement, key string, m uint32, fields []uint32) error {
	var err error
	if e.times, err = e.chunk.Times(i, e.times); err != nil {
		return err
	}
	for _, t := range e.times {
		e.rec.Field(0).(*array.StringBuilder).Append(measurement)
		e.rec.Field(1).(*array.StringBuilder).Append(key)
		e.rec.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(t))
	}
	e.chunk.used = 0 // the fields of the tile before are not needed any more
	for _, f := range fields {
		fc, ok := e.chunk.Field(f)
		if !ok {
			continue
		}
		if err := fc.Decode(i, &e.vec); err != nil {
			return err
		}
		at := e.byName[exportColumn{e.names.Field(m, f), fc.Type}]
		appendVector(e.rec.Field(3+at), &e.vec)
	}
	e.rows += len(e.times)
	for at := range e.columns {
		b := e.rec.Field(3 + at)
		for b.Len() < e.rows {
			b.AppendNull()
		}
	}
	return nil
}

// appendVector appends the rows of v to the builder of a column of its type.
func appendVector(b array.Builder, v *column.Vector) {
	for i := range v.N {
		if v.Null(i) {
			b.AppendNull()
			continue
		}
		switch b := b.(type) {
		case *array.Float64Builder:
			b.Append(v.Floats[i])
		case *array.Int64Builder:
			b.Append(v.Ints[i])
		case *array.Uint64Builder:
			b.Append(uint64(v.Ints[i]))
		case *array.BooleanBuilder:
			b.Append(v.Ints[i] != 0)
		case *array.StringBuilder:
			b.Append(string(v.Str(i)))
		}
	}
}

// flush writes the rows so far as a record.
func (e *exporter) flush() error {
	if e.rows == 0 {
		return nil
	}
	rec := e.rec.NewRecord()
	defer rec.Release()
	e.rows = 0
	if err := e.w.Write(rec); err != nil {
		return fmt.Errorf("segment %s: export: %w", e.r.name, err)
	}
	return nil
}
