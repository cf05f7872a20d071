package segment

import (
	"fmt"
	"strconv"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// fileFields are the columns of every segment. The reader counts on their order.
var fileFields = []arrow.Field{
	{Name: "kind", Type: arrow.PrimitiveTypes.Uint8},
	{Name: "measurement", Type: arrow.PrimitiveTypes.Uint32},
	{Name: "field", Type: arrow.PrimitiveTypes.Uint32},
	{Name: "block", Type: arrow.PrimitiveTypes.Uint32},
	{Name: "series", Type: arrow.ListOfNonNullable(arrow.PrimitiveTypes.Uint32)},
	{Name: "values", Type: arrow.PrimitiveTypes.Uint64},
	{Name: "tmin", Type: arrow.FixedWidthTypes.Timestamp_ns},
	{Name: "tmax", Type: arrow.FixedWidthTypes.Timestamp_ns},
	{Name: "data", Type: arrow.BinaryTypes.LargeBinary},
}

// Keys of the metadata of the schema.
const (
	metaFormat   = "dsdb.format"
	metaShard    = "dsdb.shard"
	metaLevel    = "dsdb.level"
	metaMinIndex = "dsdb.min_index"
	metaMaxIndex = "dsdb.max_index"
	metaSeq      = "dsdb.seq"
)

func fileSchema(h Header) *arrow.Schema {
	u := func(x uint64) string { return strconv.FormatUint(x, 10) }
	meta := arrow.NewMetadata(
		[]string{metaFormat, metaShard, metaLevel, metaMinIndex, metaMaxIndex, metaSeq},
		[]string{u(Version), u(uint64(h.Shard)), strconv.Itoa(h.Level), u(h.MinIndex), u(h.MaxIndex), u(h.Seq)})
	return arrow.NewSchema(fileFields, &meta)
}

// arrowWriter writes record batches through arrow's own file writer.
type arrowWriter struct {
	schema *arrow.Schema
	w      *ipc.FileWriter
}

func newArrowWriter(out *sink, h Header) (*arrowWriter, error) {
	schema := fileSchema(h)
	w, err := ipc.NewFileWriter(out, ipc.WithSchema(schema), ipc.WithAllocator(memory.DefaultAllocator))
	if err != nil {
		return nil, fmt.Errorf("arrow file: %w", err)
	}
	return &arrowWriter{schema, w}, nil
}

// write writes one record batch. Arrow reads the slices of b in place and keeps none.
func (a *arrowWriter) write(b *batch) error {
	n := len(b.kinds)
	series := array.NewData(arrow.PrimitiveTypes.Uint32, len(b.sids), plainBuffers(b.sids), nil, 0, 0)
	defer series.Release()
	columns := []arrow.ArrayData{
		array.NewData(fileFields[0].Type, n, plainBuffers(b.kinds), nil, 0, 0),
		array.NewData(fileFields[1].Type, n, plainBuffers(b.measurements), nil, 0, 0),
		array.NewData(fileFields[2].Type, n, plainBuffers(b.fields), nil, 0, 0),
		array.NewData(fileFields[3].Type, n, plainBuffers(b.blocks), nil, 0, 0),
		array.NewData(fileFields[4].Type, n, plainBuffers(b.sidEnds), []arrow.ArrayData{series}, 0, 0),
		array.NewData(fileFields[5].Type, n, plainBuffers(b.values), nil, 0, 0),
		array.NewData(fileFields[6].Type, n, plainBuffers(b.tmin), nil, 0, 0),
		array.NewData(fileFields[7].Type, n, plainBuffers(b.tmax), nil, 0, 0),
		array.NewData(fileFields[8].Type, n,
			append(plainBuffers(b.dataEnds), memory.NewBufferBytes(b.data)), nil, 0, 0),
	}
	arrays := make([]arrow.Array, len(columns))
	for i, c := range columns {
		arrays[i] = array.MakeFromData(c)
		c.Release()
	}
	rec := array.NewRecord(a.schema, arrays, int64(n))
	for _, c := range arrays {
		c.Release()
	}
	defer rec.Release()
	if err := a.w.Write(rec); err != nil {
		return fmt.Errorf("arrow record: %w", err)
	}
	return nil
}

// close makes arrow write the footer.
func (a *arrowWriter) close() error {
	if err := a.w.Close(); err != nil {
		return fmt.Errorf("arrow footer: %w", err)
	}
	return nil
}

// plainBuffers are the buffers of a fixed-width column, or of the offsets of
// another, without nulls.
func plainBuffers[T uint8 | uint32 | int32 | uint64 | int64](v []T) []*memory.Buffer {
	var b []byte
	if len(v) > 0 {
		b = unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
	}
	return []*memory.Buffer{nil, memory.NewBufferBytes(b)}
}
