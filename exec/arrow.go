package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
)

// A record is one Arrow IPC record batch: its length, that of its metadata, the
// metadata (a flatbuffer), the body. Its columns are given as pointers: to slices
// of numbers, bool (as bytes) or string, or to a column.Vector of known type,
// which may have nulls (a boolean one is its integers 0 and 1). The schema does
// not travel: both sides know it, and the Arrow library trusts what it says of
// its own length.

// appendRecord appends columns of one length as a record. Their memory is only read.
func appendRecord(dst []byte, cols []any) ([]byte, error) {
	arrays := make([]arrow.Array, len(cols))
	defer func() {
		for _, a := range arrays {
			if a != nil {
				a.Release()
			}
		}
	}()
	size := 1 << 10
	for i, c := range cols {
		data, err := arrowData(c)
		if err != nil {
			return nil, err
		}
		for _, b := range data.Buffers() {
			if b != nil {
				size += b.Len() + 256 // padding, description
			}
		}
		arrays[i] = array.MakeFromData(data)
		data.Release()
	}
	schema := recordSchema(cols)
	rec := array.NewRecord(schema, arrays, int64(arrays[0].Len()))
	defer rec.Release()
	out := &batchWriter{b: append(slices.Grow(dst, size), 0, 0, 0, 0)}
	at := len(dst)
	w := ipc.NewWriterWithPayloadWriter(out, ipc.WithSchema(schema), ipc.WithAllocator(memory.DefaultAllocator))
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	n := len(out.b) - at - 4
	if n > math.MaxInt32 {
		return nil, dsdb.Errorf(dsdb.KindTooLarge, "a record of %d bytes does not fit into a message", n)
	}
	binary.LittleEndian.PutUint32(out.b[at:], uint32(n))
	return out.b, nil
}

// batchWriter is an ipc.PayloadWriter that keeps the metadata of the schema,
// which comes first, and appends the record batch behind it to b.
type batchWriter struct {
	schema *memory.Buffer
	b      []byte
}

// Start implements ipc.PayloadWriter.
func (w *batchWriter) Start() error { return nil }

// Close implements ipc.PayloadWriter.
func (w *batchWriter) Close() error { return nil }

// WritePayload implements ipc.PayloadWriter.
func (w *batchWriter) WritePayload(p ipc.Payload) error {
	meta := p.Meta()
	defer meta.Release()
	if w.schema == nil {
		w.schema = memory.NewBufferBytes(meta.Bytes())
		return nil
	}
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(meta.Len()))
	w.b = append(w.b, meta.Bytes()...)
	return p.SerializeBody(w)
}

// Write implements io.Writer.
func (w *batchWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func recordSchema(cols []any) *arrow.Schema {
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		_, nullable := c.(*column.Vector)
		fields[i] = arrow.Field{Name: strconv.Itoa(i), Type: arrowType(c), Nullable: nullable}
	}
	return arrow.NewSchema(fields, nil)
}

func arrowType(col any) arrow.DataType {
	switch c := col.(type) {
	case *[]int64:
		return arrow.PrimitiveTypes.Int64
	case *[]float64:
		return arrow.PrimitiveTypes.Float64
	case *[]uint64:
		return arrow.PrimitiveTypes.Uint64
	case *[]uint32:
		return arrow.PrimitiveTypes.Uint32
	case *[]bool:
		return arrow.PrimitiveTypes.Uint8
	case *[]string:
		return arrow.BinaryTypes.String
	case *column.Vector:
		switch c.Type {
		case dsdb.Float:
			return arrow.PrimitiveTypes.Float64
		case dsdb.String:
			return arrow.BinaryTypes.String
		}
		return arrow.PrimitiveTypes.Int64
	}
	panic(fmt.Sprintf("BUG: no column of a record: %T", col))
}

// arrowData returns a column as an array over its memory.
func arrowData(col any) (arrow.ArrayData, error) {
	t := arrowType(col)
	switch c := col.(type) {
	case *[]int64:
		return plainData(t, len(*c), arrow.Int64Traits.CastToBytes(*c)), nil
	case *[]float64:
		return plainData(t, len(*c), arrow.Float64Traits.CastToBytes(*c)), nil
	case *[]uint64:
		return plainData(t, len(*c), arrow.Uint64Traits.CastToBytes(*c)), nil
	case *[]uint32:
		return plainData(t, len(*c), arrow.Uint32Traits.CastToBytes(*c)), nil
	case *[]bool:
		b := make([]byte, len(*c))
		for i, v := range *c {
			if v {
				b[i] = 1
			}
		}
		return plainData(t, len(b), b), nil
	case *[]string:
		return stringData(*c)
	}
	return vectorData(t, col.(*column.Vector)), nil
}

func plainData(t arrow.DataType, n int, values []byte) arrow.ArrayData {
	return array.NewData(t, n, []*memory.Buffer{nil, memory.NewBufferBytes(values)}, nil, 0, 0)
}

func stringData(v []string) (arrow.ArrayData, error) {
	n := 0
	for _, s := range v {
		n += len(s)
	}
	if n > math.MaxInt32 {
		return nil, dsdb.Errorf(dsdb.KindTooLarge, "%d bytes of strings do not fit into a message", n)
	}
	offsets, text := make([]int32, 1, len(v)+1), make([]byte, 0, n)
	for _, s := range v {
		text = append(text, s...)
		offsets = append(offsets, int32(len(text)))
	}
	return array.NewData(arrow.BinaryTypes.String, len(v), []*memory.Buffer{nil,
		memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(text)}, nil, 0, 0), nil
}

func vectorData(t arrow.DataType, v *column.Vector) arrow.ArrayData {
	buffers := []*memory.Buffer{nil}
	nulls := 0
	if v.Valid != nil {
		b := arrow.Uint64Traits.CastToBytes(v.Valid)
		buffers[0] = memory.NewBufferBytes(b[:(v.N+7)/8])
		nulls = v.N
		for i, w := range v.Valid[:words(v.N)] {
			if left := v.N - 64*i; left < 64 {
				w &= 1<<uint(left) - 1
			}
			nulls -= bits.OnesCount64(w)
		}
	}
	switch v.Type {
	case dsdb.Float:
		buffers = append(buffers, memory.NewBufferBytes(arrow.Float64Traits.CastToBytes(v.Floats[:v.N])))
	case dsdb.String:
		buffers = append(buffers, memory.NewBufferBytes(arrow.Uint32Traits.CastToBytes(v.Offsets[:v.N+1])), memory.NewBufferBytes(v.Bytes))
	default:
		buffers = append(buffers, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(v.Ints[:v.N])))
	}
	return array.NewData(t, v.N, buffers, nil, nulls, 0)
}

// readRecord reads a record into columns of the types given and returns its
// rows. The columns are in memory of their own; strings share one piece of it.
func readRecord(r *wire.Reader, cols []any) (rows int, err error) {
	b := r.Block()
	if err := r.Err(); err != nil {
		return 0, err
	}
	defer func() {
		// The Arrow library answers some malformed input by panicking.
		if p := recover(); p != nil {
			rows, err = 0, malformedRecord(p)
		}
	}()
	schema := &batchWriter{}
	w := ipc.NewWriterWithPayloadWriter(schema, ipc.WithSchema(recordSchema(cols)))
	if err := w.Close(); err != nil {
		return 0, fmt.Errorf("record: %w", err)
	}
	rd, err := ipc.NewReaderFromMessageReader(&batchMessages{schema: schema.schema, b: b},
		ipc.WithAllocator(&boundedAllocator{left: 2*len(b) + 256*len(cols)}))
	if err != nil {
		return 0, malformedRecord(err)
	}
	defer rd.Release()
	if !rd.Next() {
		return 0, malformedRecord(rd.Err())
	}
	rec := rd.Record()
	rows = int(rec.NumRows())
	for i, c := range cols {
		a := rec.Column(i)
		if a.Len() != rows {
			return 0, malformedRecord("columns differ in length")
		}
		if err := setColumn(c, a); err != nil {
			return 0, err
		}
	}
	return rows, nil
}

func malformedRecord(why any) error {
	return dsdb.Errorf(dsdb.KindInvalid, "message malformed: record: %v", why)
}

// setColumn points a column to the values of an array.
func setColumn(col any, a arrow.Array) error {
	n := a.Len()
	if v, ok := col.(*column.Vector); ok {
		return setVector(v, a)
	}
	if a.NullN() != 0 {
		return malformedRecord("nulls in a column that has none")
	}
	switch c := col.(type) {
	case *[]int64:
		*c = a.(*array.Int64).Int64Values()[:n:n]
	case *[]float64:
		*c = a.(*array.Float64).Float64Values()[:n:n]
	case *[]uint64:
		*c = a.(*array.Uint64).Uint64Values()[:n:n]
	case *[]uint32:
		*c = a.(*array.Uint32).Uint32Values()[:n:n]
	case *[]bool:
		*c = make([]bool, n)
		for i, b := range a.(*array.Uint8).Uint8Values()[:n] {
			(*c)[i] = b != 0
		}
	case *[]string:
		offsets, text, err := stringParts(a.(*array.String))
		if err != nil {
			return err
		}
		all := string(text)
		*c = make([]string, n)
		for i := range *c {
			(*c)[i] = all[offsets[i]:offsets[i+1]]
		}
	}
	return nil
}

func setVector(v *column.Vector, a arrow.Array) error {
	v.N = a.Len()
	if a.NullN() != 0 {
		bitmap := a.NullBitmapBytes()
		if len(bitmap) < (v.N+7)/8 {
			return malformedRecord("a short bitmap")
		}
		v.Valid = column.NewBitmap(v.N)
		for i := range (v.N + 7) / 8 {
			v.Valid[i/8] |= uint64(bitmap[i]) << (8 * (i % 8))
		}
	}
	switch v.Type {
	case dsdb.Float:
		v.Floats = a.(*array.Float64).Float64Values()[:v.N:v.N]
	case dsdb.String:
		var err error
		v.Offsets, v.Bytes, err = stringParts(a.(*array.String))
		return err
	default:
		v.Ints = a.(*array.Int64).Int64Values()[:v.N:v.N]
	}
	return nil
}

// stringParts returns the offsets, one more than strings, and the text.
func stringParts(a *array.String) ([]uint32, []byte, error) {
	if a.Len() == 0 {
		return []uint32{0}, nil, nil
	}
	buffers := a.Data().Buffers()
	offsets := arrow.Uint32Traits.CastFromBytes(buffers[1].Bytes())
	var text []byte
	if buffers[2] != nil {
		text = buffers[2].Bytes()
	}
	if a.Data().Offset() != 0 || len(offsets) < a.Len()+1 {
		return nil, nil, malformedRecord("strings without offsets")
	}
	offsets = offsets[:a.Len()+1]
	last := uint32(0)
	for _, o := range offsets {
		if o < last || uint64(o) > uint64(len(text)) {
			return nil, nil, malformedRecord("a string outside of its column")
		}
		last = o
	}
	return offsets, text, nil
}

// batchMessages are the messages of a record: our own schema, then the batch b.
type batchMessages struct {
	schema *memory.Buffer
	b      []byte
}

// Message implements ipc.MessageReader.
func (s *batchMessages) Message() (*ipc.Message, error) {
	if s.schema != nil {
		m := ipc.NewMessage(s.schema, memory.NewBufferBytes(nil))
		s.schema = nil
		return m, nil
	}
	r := wire.NewReader(s.b)
	meta := r.Block()
	if err := r.Err(); err != nil {
		return nil, err
	}
	return ipc.NewMessage(memory.NewBufferBytes(meta), memory.NewBufferBytes(r.Rest())), nil
}

// Retain implements ipc.MessageReader; the garbage collector does the work.
func (s *batchMessages) Retain() {}

// Release implements ipc.MessageReader.
func (s *batchMessages) Release() {}

// boundedAllocator gives memory of Go's heap, so much in all, and then panics,
// which the Arrow reader makes an error of.
type boundedAllocator struct {
	memory.GoAllocator
	left int
}

func (a *boundedAllocator) take(n int) {
	if n < 0 || n > a.left {
		panic(fmt.Sprintf("wants %d bytes, %d are left", n, a.left))
	}
	a.left -= n
}

// Allocate implements memory.Allocator.
func (a *boundedAllocator) Allocate(n int) []byte {
	a.take(n)
	return a.GoAllocator.Allocate(n)
}

// Reallocate implements memory.Allocator.
func (a *boundedAllocator) Reallocate(n int, b []byte) []byte {
	a.take(n)
	return a.GoAllocator.Reallocate(n, b)
}
