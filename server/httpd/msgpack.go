package httpd

import (
	"encoding/binary"

	"github.com/tinylib/msgp/msgp"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// msgpackEncoder writes the JSON shape as MessagePack. Times are extension
// type 5 (8 bytes of seconds, 4 of nanoseconds, big endian) unless an epoch is
// asked for. MessagePack states lengths first, so the series of a statement are
// collected before they are sent; chunked gives one document per frame.
type msgpackEncoder struct {
	out     *response
	unit    int64
	chunked bool

	statement int
	results   []byte // whole: encoded statements
	count     int
	series    [][]byte // of this statement: heads and rows, without the count of rows
	rows      []int    // of each series
	heads     [][]byte
	open      bool // the last frame was Partial
	size      int  // bytes collected
}

const timeExtension = 5

func (e *msgpackEncoder) begin(statement int) {
	e.statement, e.series, e.rows, e.heads, e.open = statement, nil, nil, nil, false
}

func (e *msgpackEncoder) frame(f *column.Frame) error {
	if e.chunked && len(e.series) > 0 {
		e.document(nil, nil, true)
	}
	if !e.open {
		head := e.appendHead(nil, f)
		e.size += len(head)
		e.heads = append(e.heads, head)
		e.series = append(e.series, nil)
		e.rows = append(e.rows, 0)
	}
	k := len(e.series) - 1
	b := e.series[k]
	before := len(b)
	for r := 0; r < f.Rows(); r++ {
		b = msgp.AppendArrayHeader(b, uint32(len(f.Cols)))
		for c := range f.Cols {
			b = e.appendValue(b, &f.Cols[c], r)
		}
	}
	e.series[k] = b
	e.rows[k] += f.Rows()
	e.open = f.Partial && !e.chunked
	if e.chunked {
		return e.out.err
	}
	e.size += len(b) - before
	return e.out.fits(2 * e.size) // it is copied into the result
}

// appendHead appends a series as a map up to the key "values".
func (e *msgpackEncoder) appendHead(b []byte, f *column.Frame) []byte {
	n := uint32(2)
	if f.Name != "" {
		n++
	}
	if len(f.Tags) > 0 {
		n++
	}
	partial := e.chunked && f.Partial
	if partial {
		n++
	}
	b = msgp.AppendMapHeader(b, n)
	if f.Name != "" {
		b = msgp.AppendString(msgp.AppendString(b, "name"), f.Name)
	}
	if len(f.Tags) > 0 {
		b = msgp.AppendMapHeader(msgp.AppendString(b, "tags"), uint32(len(f.Tags)))
		for _, t := range f.Tags {
			b = msgp.AppendString(msgp.AppendString(b, t.Key), t.Value)
		}
	}
	b = msgp.AppendArrayHeader(msgp.AppendString(b, "columns"), uint32(len(f.Columns)))
	for _, c := range f.Columns {
		b = msgp.AppendString(b, c)
	}
	if partial {
		b = msgp.AppendBool(msgp.AppendString(b, "partial"), true)
	}
	return msgp.AppendString(b, "values")
}

func (e *msgpackEncoder) appendValue(b []byte, v *column.Vector, i int) []byte {
	if v.Null(i) {
		return msgp.AppendNil(b)
	}
	switch v.Type {
	case dsdb.Float:
		return msgp.AppendFloat64(b, v.Floats[i])
	case dsdb.Integer:
		return msgp.AppendInt64(b, v.Ints[i])
	case dsdb.Unsigned:
		return msgp.AppendUint64(b, uint64(v.Ints[i]))
	case dsdb.Boolean:
		return msgp.AppendBool(b, v.Ints[i] != 0)
	case dsdb.Time:
		if e.unit > 0 {
			return msgp.AppendInt64(b, v.Ints[i]/e.unit)
		}
		return appendTimeExtension(b, v.Ints[i])
	}
	return msgp.AppendStringFromBytes(b, v.Str(i))
}

func appendTimeExtension(b []byte, t int64) []byte {
	sec, ns := t/1e9, t%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	b = append(b, 0xc7, 12, timeExtension) // ext 8
	b = binary.BigEndian.AppendUint64(b, uint64(sec))
	return binary.BigEndian.AppendUint32(b, uint32(ns))
}

func (e *msgpackEncoder) end(err error, messages []string) {
	if e.chunked {
		e.document(err, messages, false)
		return
	}
	e.results = e.appendResult(e.results, err, messages, false)
	e.count++
}

// document sends one whole answer that holds what was collected of the statement.
func (e *msgpackEncoder) document(err error, messages []string, partial bool) {
	b := msgp.AppendMapHeader(e.out.buf, 1)
	b = msgp.AppendArrayHeader(msgp.AppendString(b, "results"), 1)
	e.out.buf = e.appendResult(b, err, messages, partial)
	e.out.flush()
	e.series, e.rows, e.heads = nil, nil, nil
}

func (e *msgpackEncoder) appendResult(b []byte, err error, messages []string, partial bool) []byte {
	n := uint32(1)
	for _, has := range []bool{len(e.series) > 0, len(messages) > 0, err != nil, partial} {
		if has {
			n++
		}
	}
	b = msgp.AppendMapHeader(b, n)
	b = msgp.AppendInt(msgp.AppendString(b, "statement_id"), e.statement)
	if len(e.series) > 0 {
		b = msgp.AppendArrayHeader(msgp.AppendString(b, "series"), uint32(len(e.series)))
		for i, s := range e.series {
			b = msgp.AppendArrayHeader(append(b, e.heads[i]...), uint32(e.rows[i]))
			b = append(b, s...)
		}
	}
	if len(messages) > 0 {
		b = msgp.AppendArrayHeader(msgp.AppendString(b, "messages"), uint32(len(messages)))
		for _, m := range messages {
			b = msgp.AppendMapHeader(b, 2)
			b = msgp.AppendString(msgp.AppendString(b, "level"), "warning")
			b = msgp.AppendString(msgp.AppendString(b, "text"), m)
		}
	}
	if err != nil {
		b = msgp.AppendString(msgp.AppendString(b, "error"), err.Error())
	}
	if partial {
		b = msgp.AppendBool(msgp.AppendString(b, "partial"), true)
	}
	return b
}

func (e *msgpackEncoder) finish() {
	if e.chunked {
		return
	}
	b := msgp.AppendMapHeader(e.out.buf, 1)
	b = msgp.AppendArrayHeader(msgp.AppendString(b, "results"), uint32(e.count))
	e.out.buf = append(b, e.results...)
}
