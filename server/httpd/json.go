package httpd

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// jsonEncoder writes InfluxDB's JSON. Whole: one document, in which the frames
// of one series are joined. Chunked: one document per frame, each held back
// until it is known whether another follows, because it says so ("partial").
type jsonEncoder struct {
	out    *response
	format format
	doc    []byte // of pretty: the document so far

	statement  int
	results    int  // statements begun
	series     int  // of this statement, or of this document if chunked
	openSeries bool // the values of a series are open: its last frame was Partial
	joined     bool // the last frame continued a series
	held       bool // chunked: a frame is in the buffer, without its end
	date       dateCache
}

func (e *jsonEncoder) begin(statement int) {
	e.statement, e.series = statement, 0
	if e.format.chunked {
		return
	}
	b := e.out.buf
	if e.results == 0 {
		b = append(b, `{"results":[`...)
	} else {
		b = append(b, ',')
	}
	e.results++
	e.out.buf = e.appendID(b)
}

func (e *jsonEncoder) appendID(b []byte) []byte {
	return strconv.AppendInt(append(b, `{"statement_id":`...), int64(e.statement), 10)
}

func (e *jsonEncoder) frame(f *column.Frame) error {
	if e.format.chunked {
		if e.held {
			e.out.buf = append(e.out.buf, `],"partial":true}]}`...)
			e.endDocument()
		}
		e.out.buf = e.appendID(append(e.out.buf, `{"results":[`...))
		e.series, e.held = 0, true
	}
	b := e.out.buf
	e.joined = e.openSeries
	if e.joined {
		b = append(b, ',')
	} else {
		b = e.appendSeriesHead(b, f)
	}
	e.out.buf = b
	if err := e.appendRows(f); err != nil {
		return err
	}
	e.openSeries = f.Partial && !e.format.chunked
	if !e.openSeries {
		e.closeSeries(f)
	}
	return e.spill()
}

func (e *jsonEncoder) appendSeriesHead(b []byte, f *column.Frame) []byte {
	if e.series == 0 {
		b = append(b, `,"series":[{`...)
	} else {
		b = append(b, `,{`...)
	}
	e.series++
	if f.Name != "" {
		b = appendJSONString(append(b, `"name":`...), f.Name)
		b = append(b, ',')
	}
	if len(f.Tags) > 0 {
		b = append(b, `"tags":{`...)
		for i, t := range f.Tags {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendJSONString(b, t.Key), ':')
			b = appendJSONString(b, t.Value)
		}
		b = append(b, `},`...)
	}
	b = append(b, `"columns":[`...)
	for i, c := range f.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONString(b, c)
	}
	b = append(b, ']')
	if f.Rows() > 0 || f.Partial {
		b = append(b, `,"values":[`...)
	}
	return b
}

func (e *jsonEncoder) closeSeries(f *column.Frame) {
	b := e.out.buf
	if f.Rows() > 0 || f.Partial {
		b = append(b, ']')
	}
	if f.Partial || e.joined { // of a joined series it is not true, but InfluxDB 1.0 to 1.6 say so and comparisons with them hold
		b = append(b, `,"partial":true`...)
	}
	e.out.buf = append(b, '}')
}

func (e *jsonEncoder) appendRows(f *column.Frame) error {
	n := f.Rows()
	b := e.out.buf
	for r := 0; r < n; r++ {
		if r > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for c := range f.Cols {
			if c > 0 {
				b = append(b, ',')
			}
			b = e.appendValue(b, &f.Cols[c], r, f.Zone)
		}
		b = append(b, ']')
		if len(b) >= flushBytes && !e.format.chunked && !e.format.pretty {
			e.out.buf = b
			if err := e.out.send(); err != nil {
				return err
			}
			b = e.out.buf
		}
	}
	e.out.buf = b
	return nil
}

func (e *jsonEncoder) appendValue(b []byte, v *column.Vector, i int, zone *time.Location) []byte {
	if v.Null(i) {
		return append(b, "null"...)
	}
	switch v.Type {
	case dsdb.Float:
		return appendJSONFloat(b, v.Floats[i])
	case dsdb.Integer:
		return strconv.AppendInt(b, v.Ints[i], 10)
	case dsdb.Unsigned:
		return strconv.AppendUint(b, uint64(v.Ints[i]), 10)
	case dsdb.Boolean:
		return strconv.AppendBool(b, v.Ints[i] != 0)
	case dsdb.Time:
		if e.format.unit > 0 {
			return strconv.AppendInt(b, v.Ints[i]/e.format.unit, 10)
		}
		if b = append(b, '"'); zone != nil {
			b = time.Unix(0, v.Ints[i]).In(zone).AppendFormat(b, time.RFC3339Nano)
		} else {
			b = e.date.append(b, v.Ints[i])
		}
		return append(b, '"')
	}
	return appendJSONString(b, v.Str(i))
}

func (e *jsonEncoder) end(err error, messages []string) {
	b := e.out.buf
	if e.format.chunked && !e.held {
		b = e.appendID(append(b, `{"results":[`...))
	}
	if e.openSeries { // the statement failed in the middle of a series
		b = append(b, `]}`...)
		e.openSeries = false
	}
	if !e.format.chunked && e.series > 0 || e.format.chunked && e.held {
		b = append(b, ']')
	}
	if len(messages) > 0 {
		b = append(b, `,"messages":[`...)
		for i, m := range messages {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendJSONString(append(b, `{"level":"warning","text":`...), m), '}')
		}
		b = append(b, ']')
	}
	if err != nil {
		b = appendJSONString(append(b, `,"error":`...), err.Error())
	}
	e.out.buf = append(b, '}')
	if e.format.chunked {
		e.out.buf = append(e.out.buf, `]}`...)
		e.held = false
		e.endDocument()
		return
	}
	_ = e.spill() // the error is kept for the next write
}

// spill moves what is complete out of the buffer. Between frames of a chunked
// document nothing is: its end depends on what follows.
func (e *jsonEncoder) spill() error {
	switch {
	case e.format.chunked:
		return e.out.err
	case e.format.pretty:
		e.doc = append(e.doc, e.out.buf...)
		e.out.buf = e.out.buf[:0]
		return e.out.fits(indented * len(e.doc))
	}
	return e.out.spill()
}

// indented is how many times as long a document may get by indenting it.
const indented = 8

// endDocument ends one document with a newline and, if chunked, sends it.
func (e *jsonEncoder) endDocument() {
	if e.format.pretty {
		doc := append(e.doc, e.out.buf...)
		var ind bytes.Buffer
		if json.Indent(&ind, doc, "", "    ") == nil {
			doc = ind.Bytes()
		}
		e.out.buf = append(e.out.buf[:0], doc...)
		e.doc = e.doc[:0]
	}
	e.out.buf = append(e.out.buf, '\n')
	if e.format.chunked {
		e.out.flush()
	}
}

func (e *jsonEncoder) finish() {
	if e.format.chunked {
		return
	}
	e.out.buf = append(e.out.buf, `]}`...)
	e.endDocument()
}

// appendJSONFloat formats as encoding/json does; JSON has no NaN and no infinity: null.
func appendJSONFloat(b []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 && (f != 0 || !math.Signbit(f)) {
		return strconv.AppendInt(b, int64(f), 10)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		b = strconv.AppendFloat(b, f, 'e', -1, 64)
		if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' { // e-09 to e-9
			b[n-2] = b[n-1]
			b = b[:n-1]
		}
		return b
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendJSONString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			b = append(append(b, s[start:i]...), `\ufffd`...)
		} else {
			b = appendEscape(append(b, s[start:i]...), c)
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// dateCache formats times as RFC 3339 in UTC with as many decimals as needed,
// keeping the text of the last day.
type dateCache struct {
	day  int64 // days since the epoch, +1 so that the zero value is empty
	text [11]byte
}

const nanosPerDay = 24 * int64(time.Hour)

func (c *dateCache) append(b []byte, t int64) []byte {
	day := t / nanosPerDay
	rest := t - day*nanosPerDay
	if rest < 0 {
		day, rest = day-1, rest+nanosPerDay
	}
	if c.day != day+1 || day == -1 {
		time.Unix(day*86400, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T")
		c.day = day + 1
	}
	b = append(b, c.text[:]...)
	sec := rest / int64(time.Second)
	b = append2(b, sec/3600, ':')
	b = append2(b, sec/60%60, ':')
	b = append(b, byte('0'+sec%60/10), byte('0'+sec%60%10))
	if frac := rest % int64(time.Second); frac != 0 {
		b = append(b, '.')
		for d := int64(time.Second) / 10; frac != 0; d /= 10 {
			b = append(b, byte('0'+frac/d))
			frac %= d
		}
	}
	return append(b, 'Z')
}

func append2(b []byte, n int64, sep byte) []byte {
	return append(b, byte('0'+n/10), byte('0'+n%10), sep)
}
