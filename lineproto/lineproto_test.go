package lineproto_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

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

func TestOne(t *testing.T) {
	var p lineproto.Parser
	var b column.WriteBatch
	r, err := p.Parse(&b, []byte("cpu,b=1,a=2 f=1,g=2i,s=\"a\\\"b\",t=t 5\ncpu,a=2,b=1 f=-2.5e3,g=3i\nm v\n"), lineproto.Options{})
	t.Log(dump(&b), r, err)
}
