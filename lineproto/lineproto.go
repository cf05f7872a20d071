// Package lineproto turns a body of InfluxDB line protocol into a
// column.WriteBatch in one pass. It is the hot path of ingest: it knows the
// grammar, escapes and error texts of InfluxDB 1.x, and must not know shards,
// the catalogue, HTTP or the log.
//
// A line takes one of two ways. fastLine handles what agents send all day: it
// predicts the series prefix and each field name from what followed last time,
// compares bytes, and parses the value in place. Whatever it does not
// expect it hands, from the start of the line, to slowLine, which implements
// the whole grammar and words the errors. Both end in the same commit, so that
// a line that fails leaves nothing behind.
//
// The two ways must agree; the fuzz test compares both with InfluxDB's own parser.
package lineproto

import (
	"fmt"
	"strings"
)

// Precision is the unit of the timestamps of a body, in nanoseconds. The zero
// value means nanoseconds.
type Precision int64

// The units that /write knows.
const (
	Nanosecond  Precision = 1
	Microsecond           = 1000 * Nanosecond
	Millisecond           = 1000 * Microsecond
	Second                = 1000 * Millisecond
	Minute                = 60 * Second
	Hour                  = 60 * Minute
)

// ParsePrecision reads the precision parameter of /write; "" means
// nanoseconds. The error has the words of InfluxDB 1.8.
func ParsePrecision(s string) (Precision, error) {
	switch s {
	case "", "n", "ns":
		return Nanosecond, nil
	case "u", "us", "µ", "µs":
		return Microsecond, nil
	case "ms":
		return Millisecond, nil
	case "s":
		return Second, nil
	case "m":
		return Minute, nil
	case "h":
		return Hour, nil
	}
	return 0, fmt.Errorf("invalid precision %q (use n, u, ms, s, m or h)", s)
}

// Options say how a body is to be read. The zero value reads nanoseconds,
// refuses unsigned integers and gives points without a time the time 0.
type Options struct {
	Now       int64 // for points without a time, in nanoseconds; cut down to Precision
	Precision Precision
	Unsigned  bool // accept 1u, which InfluxDB 1.x answers with "invalid number" by default
	MaxErrors int  // how many bad lines are kept in the Report; 0: DefaultMaxErrors
}

// Limits on what a Report keeps, so that a body of a million bad lines costs
// no more than a body of a hundred.
const (
	DefaultMaxErrors = 100
	maxErrorLine     = 128 << 10 // a longer line is cut in its error text
	maxErrorBytes    = 1 << 20   // of all texts of one body
)

// LineError is one line that could not be parsed.
type LineError struct {
	Line   int    // of the body, from 1
	Column int    // byte of that line where reading stopped, from 1
	Text   string // unable to parse '<line>': <reason>
}

func (e LineError) Error() string { return e.Text }

// Report says what became of a body. Bad lines are those that are no line
// protocol. Dropped points were well formed, but InfluxDB forbids what they
// hold: a tag named time, or no field but one named time. Clients learn of
// both, in different words.
type Report struct {
	Lines    int // neither blank nor comment
	Points   int // rows of the batch
	BadLines int
	Bad      []LineError // the first of BadLines
	Dropped  int
	Reason   string // of the first dropped point
}

// Text joins the errors of the bad lines as InfluxDB does, one a line; "" if
// there are none. If not all were kept a last line tells how many more there are.
func (r *Report) Text() string {
	var b strings.Builder
	for i, e := range r.Bad {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Text)
	}
	if more := r.BadLines - len(r.Bad); more > 0 {
		fmt.Fprintf(&b, "\nand %d more lines", more)
	}
	return b.String()
}
