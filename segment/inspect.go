package segment

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dasudian/dsdb"
)

// Names turns the numbers in a segment into what people call them. All
// functions are set; what a number does not name, they print as they like.
type Names struct {
	Measurement func(measurement uint32) string
	Field       func(measurement, field uint32) string
	Series      func(measurement uint32, id dsdb.SeriesID) string // the canonical series key
}

// columnSummary sums up the chunks of one column of a measurement.
type columnSummary struct {
	name, kind    string
	chunks, tiles int
	values        uint64
	bytes         int64
	modes         map[string]int // tiles by how they are encoded
}

// Inspect prints what a segment holds and how: its header, and for each column
// of each measurement the chunks, values, bytes, and tiles by encoding. It
// reads every directory, and so reports corruption in them.
func Inspect(r *Reader, names Names, w io.Writer) error {
	return r.Guard(func() error {
		h := r.header
		fmt.Fprintf(w, "segment %s\nformat %d, shard %d, level %d, number %d, raft indexes %d to %d\n",
			r.name, Version, h.Shard, h.Level, h.Seq, h.MinIndex, h.MaxIndex)
		fmt.Fprintf(w, "%d bytes, %d rows, %d values, %.3f bytes a value, %d record batches, %d Huffman tables\n",
			r.info.Size, r.info.Rows, r.info.Values, ratio(r.info.Size, r.info.Values), r.batches, len(r.tables))
		fmt.Fprintf(w, "%s to %s\n", printTime(r.info.MinTime), printTime(r.info.MaxTime))
		for i := range r.groups {
			if err := inspectGroup(r, &r.groups[i], names, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func printTime(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339Nano) }

func ratio(bytes int64, values uint64) float64 {
	if values == 0 {
		return 0
	}
	return float64(bytes) / float64(values)
}

func inspectGroup(r *Reader, g *group, names Names, w io.Writer) error {
	series := 0
	for i := range g.blocks {
		series += g.blocks[i].count()
	}
	fmt.Fprintf(w, "\nmeasurement %s (%d): %d series in %d blocks\n", names.Measurement(g.id), g.id, series, len(g.blocks))
	fields := append([]uint32{0}, r.Fields(g.id, nil)...)
	sums := make([]columnSummary, len(fields))
	for i, f := range fields {
		sums[i] = columnSummary{name: "time", kind: "time", modes: map[string]int{}}
		if f != 0 {
			sums[i].name = names.Field(g.id, f)
		}
	}
	var c Chunk
	for _, sid := range r.Series(g.id, nil) {
		r.Chunk(g.id, sid, &c)
		if c.err != nil {
			return c.err
		}
		sums[0].add(&c, &c.payload, &c.block.columns[0])
		for i, f := range fields[1:] {
			fc, ok := c.Field(f)
			if !ok {
				continue
			}
			if fc.dir.err != nil {
				return fc.dir.err
			}
			sums[i+1].add(&c, &fc.dir.payload, fc.dir.col)
		}
	}
	for i := range g.blocks {
		for _, col := range g.blocks[i].columns {
			at, _ := slices.BinarySearch(fields, col.field)
			sums[at].values += col.values
			sums[at].bytes += col.len
		}
	}
	return printSummaries(sums, w)
}

func (s *columnSummary) add(c *Chunk, p *payload, col *blockColumn) {
	s.chunks++
	s.tiles += len(c.tiles)
	s.kind = kindTypes[col.kind].String()
	for i := range c.tiles {
		s.modes[describeTile(p.tile(i), col.kind)]++
	}
}

func printSummaries(sums []columnSummary, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  column\ttype\tchunks\ttiles\tvalues\tbytes\tbytes/value\ttiles by encoding")
	for i := range sums {
		s := &sums[i]
		modes := slices.SortedFunc(maps.Keys(s.modes), func(a, b string) int {
			return cmp.Or(s.modes[b]-s.modes[a], strings.Compare(a, b))
		})
		for j, m := range modes {
			modes[j] = fmt.Sprintf("%s %d", m, s.modes[m])
		}
		fmt.Fprintf(t, "  %s\t%s\t%d\t%d\t%d\t%d\t%.3f\t%s\n", s.name, s.kind, s.chunks, s.tiles, s.values, s.bytes,
			ratio(s.bytes, s.values), strings.Join(modes, ", "))
	}
	return t.Flush()
}

var modeNames = map[byte]string{
	modeConst: "const", modeStride: "stride", modeFOR: "for", modeDelta: "delta", modeHuff: "huffman",
	modeHuffEscape: "huffman-escape", modeGCD: "gcd", modeRuns: "runs", modeDecimal: "decimal", modeDyadic: "dyadic", modeXOR: "xor",
	modeRaw: "raw", modeFloatConst: "const", modeDict: "dict", modeBytes: "bytes", modeCompressed: "s2",
	modeValidBits: "nulls", modeValidRuns: "nulls",
}

// describeTile names the modes of a tile, outermost first, as in "decimal+delta".
func describeTile(src []byte, kind uint8) string {
	if len(src) == 0 {
		if kind == kindTime {
			return "stride"
		}
		return "null"
	}
	name, ok := modeNames[src[0]]
	if !ok {
		return fmt.Sprintf("unknown mode %d", src[0])
	}
	r := reader{b: src[1:]}
	switch src[0] {
	case modeGCD:
		r.uvarint()
		r.varint()
	case modeDecimal:
		r.bytes(2)
		r.bytes(10 * r.uvarint())
	case modeDyadic:
		r.byte()
	default:
		return name
	}
	if r.bad || len(r.b) == 0 {
		return name
	}
	return name + "+" + describeTile(r.b, kind)
}
