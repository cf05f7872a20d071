package lineproto_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/lineproto"
)

// dump prints a batch as sorted facts, one row a line.
func dump(b *column.WriteBatch) string {
	var s strings.Builder
	for ti := range b.Tables {
		t := &b.Tables[ti]
		for r := range t.Rows() {
			fmt.Fprintf(&s, "%s", t.Keys.At(int(t.Series[r])))
			for ci := range t.Columns {
				c := &t.Columns[ci]
				if c.Valid.Get(r) {
					fmt.Fprintf(&s, " %s=%s", c.Name, show(c, r))
				}
			}
			fmt.Fprintf(&s, " @%d\n", t.Times[r])
		}
	}
	return s.String()
}

func show(c *column.Column, r int) string {
	switch c.Type {
	case dsdb.String:
		return fmt.Sprintf("%q", c.Str(r))
	case dsdb.Float:
		return fmt.Sprintf("%v", math.Float64frombits(c.Bits[r]))
	case dsdb.Integer:
		return fmt.Sprintf("%di", int64(c.Bits[r]))
	case dsdb.Unsigned:
		return fmt.Sprintf("%du", c.Bits[r])
	}
	return fmt.Sprint(c.Bits[r] != 0)
}

// The scripts in testdata read as prose: a body, and what is stored and said.
// parse takes precision=, now= and unsigned.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		var p lineproto.Parser
		var b column.WriteBatch
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			o := lineproto.Options{Now: 1_500_000_000_123_456_789, Unsigned: d.HasArg("unsigned")}
			if d.HasArg("precision") {
				var s string
				var err error
				d.ScanArgs(t, "precision", &s)
				if o.Precision, err = lineproto.ParsePrecision(s); err != nil {
					return err.Error()
				}
			}
			r, err := p.Parse(&b, []byte(d.Input), o)
			if err != nil {
				return err.Error()
			}
			out := dump(&b)
			for _, e := range r.Bad {
				out += fmt.Sprintf("%d:%d: %s\n", e.Line, e.Column, e.Text)
			}
			if r.Dropped > 0 {
				out += fmt.Sprintf("dropped %d: %s\n", r.Dropped, r.Reason)
			}
			return out
		})
	})
}
