package shard

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Scripts in testdata drive one shard. The commands:
//
//	write [prepared=X]             points in line protocol, applied as one log entry
//	hint since=I [prepared=X]      points that come late, made when entry I was known
//	fence at=X                     refuses what was prepared before index X of the catalogue
//	delete [from=T] [to=T] [measurement=M] [host=H]
//	drop [measurement=M] [host=H]
//	flush, compact [full]          print the files afterwards
//	crash, reopen                  without and with the bytes that were not synced; the log is applied again
//	query M fields=(F,…) [from=T] [to=T] [desc] [need=N]
//	tiles M fields=(F,…) [desc] [need=N]    what a cursor hands out, without decoding
//	show                           measurements, their fields, series and tag keys
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, file string) {
		m := newMachine(t, 1)
		datadriven.RunTest(t, file, m.run)
		check(t, m.shard.Close())
	})
}

func (m *machine) run(t *testing.T, d *datadriven.TestData) string {
	m.t = t
	switch d.Cmd {
	case "write":
		v := m.apply(AppendPrepared(nil, dsdb.ProposalID{}, uint64(intArg(d, "prepared", 0)), batchOf(parsePoints(t, d.Input))))
		if v.Rejected > 0 {
			return fmt.Sprintf("rejected %d: %s", v.Rejected, v.Reason)
		}
		return ""
	case "hint":
		v := m.apply(AppendHints(nil, dsdb.ProposalID{}, uint64(intArg(d, "prepared", 0)), [][]byte{AppendHint(nil, uint64(intArg(d, "since", 0)), batchOf(parsePoints(t, d.Input)))}))
		superseded, deleted, err := Delivered(v)
		check(t, err)
		return strings.TrimSpace(fmt.Sprintf("superseded %d, deleted %d, rejected %d %s", superseded, deleted, v.Rejected, v.Reason))
	case "fence":
		m.apply(AppendFence(nil, dsdb.ProposalID{}, uint64(intArg(d, "at", 0))))
		return ""
	case "delete", "drop":
		m.apply(AppendDelete(nil, dsdb.ProposalID{}, parseDelete(d)))
		return ""
	case "flush":
		_, err := m.shard.Flush()
		check(t, err)
		return m.files()
	case "compact":
		_, err := m.shard.Compact(d.HasArg("full"))
		check(t, err)
		return m.files()
	case "crash":
		m.fs.(*vfs.Mem).Crash(0)
		m.open()
		return fmt.Sprintf("flushed up to entry %d of %d", m.shard.FlushedIndex(), len(m.log))
	case "reopen":
		check(t, m.shard.Close())
		m.merge = intArg(d, "merge-bytes", m.merge)
		m.open()
		return fmt.Sprintf("flushed up to entry %d of %d", m.shard.FlushedIndex(), len(m.log))
	case "query", "tiles":
		return m.query(d)
	case "show":
		return m.show()
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// files prints the shard's files by index range.
func (m *machine) files() string {
	var b strings.Builder
	for _, f := range m.shard.files {
		fmt.Fprintf(&b, "level %d: entries %d to %d, %d rows\n", f.level, f.minIndex, f.maxIndex, f.rows)
	}
	if n := len(m.shard.tombstones); n > 0 {
		fmt.Fprintf(&b, "%d tombstones\n", n)
	}
	return b.String()
}

func (m *machine) source() *Source {
	src, err := m.shard.Source()
	check(m.t, err)
	return src
}

func (m *machine) query(d *datadriven.TestData) string {
	src := m.source()
	defer src.Close()
	scan := dsdb.Scan{Measurement: d.CmdArgs[0].Key, Range: scanRange(d), Descending: d.HasArg("desc"), NeedRows: intArg(d, "need", 0)}
	for _, arg := range d.CmdArgs {
		if arg.Key == "fields" {
			scan.Fields = arg.Vals
		}
	}
	if d.Cmd == "query" {
		return strings.Join(dump(m.t, src, scan, nil), "\n")
	}
	set, err := src.Series(context.Background(), scan.Measurement, nil, nil)
	check(m.t, err)
	scan.Series = set.IDs
	cur, err := src.Scan(context.Background(), scan)
	check(m.t, err)
	defer cur.Close()
	var b strings.Builder
	for {
		tile, err := cur.Next()
		check(m.t, err)
		if tile == nil {
			return b.String()
		}
		fmt.Fprintf(&b, "%s: %d rows from %d to %d", src.view.Key(tile.Series), tile.Rows, tile.First, tile.Last)
		for i, s := range tile.Stats {
			if s.Known {
				fmt.Fprintf(&b, ", %d of %s", s.Count, scan.Fields[i])
			}
		}
		b.WriteByte('\n')
	}
}

func (m *machine) show() string {
	src := m.source()
	defer src.Close()
	var b strings.Builder
	for _, name := range src.view.Measurements() {
		fmt.Fprintf(&b, "%s tags %q fields", name, src.view.TagKeys(name))
		fields, types := src.Fields(name)
		for i := range fields {
			fmt.Fprintf(&b, " %s %s", fields[i], types[i])
		}
		b.WriteByte('\n')
		set, err := src.Series(context.Background(), name, nil, nil)
		check(m.t, err)
		for _, id := range set.IDs {
			fmt.Fprintf(&b, "  %d %s\n", id, src.view.Key(id))
		}
	}
	return b.String()
}

func scanRange(d *datadriven.TestData) dsdb.TimeRange {
	return dsdb.TimeRange{Start: int64(intArg(d, "from", -1<<40)), End: int64(intArg(d, "to", 1<<40))}
}

func intArg(d *datadriven.TestData, key string, otherwise int) int {
	for _, arg := range d.CmdArgs {
		if arg.Key == key {
			v, err := strconv.Atoi(arg.Vals[0])
			if err != nil {
				panic(err)
			}
			return v
		}
	}
	return otherwise
}

func parseDelete(d *datadriven.TestData) Delete {
	del := Delete{Range: scanRange(d), DropSeries: d.Cmd == "drop"}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "measurement":
			del.Measurements = arg.Vals
		case "host":
			del.Where = &dsdb.TagExpr{Op: dsdb.TagEqual, Key: "host", Value: arg.Vals[0]}
		}
	}
	return del
}

// parsePoints reads lines without escapes or spaces in values.
func parsePoints(t *testing.T, input string) (points []point) {
	for line := range strings.Lines(input) {
		parts := strings.Fields(line)
		m, tags, err := dsdb.ParseSeriesKey([]byte(parts[0]))
		check(t, err)
		p := point{measurement: m, tags: tags}
		p.time, err = strconv.ParseInt(parts[2], 10, 64)
		check(t, err)
		for kv := range strings.SplitSeq(parts[1], ",") {
			name, value, _ := strings.Cut(kv, "=")
			f := field{name, dsdb.Float, value}
			switch {
			case value == "true" || value == "false":
				f.typ = dsdb.Boolean
			case strings.HasPrefix(value, `"`):
				f.typ = dsdb.String
			case strings.HasSuffix(value, "i"):
				f.typ = dsdb.Integer
			case strings.HasSuffix(value, "u"):
				f.typ = dsdb.Unsigned
			}
			p.fields = append(p.fields, f)
		}
		points = append(points, p)
	}
	return points
}

// Opening a shard of a past time group reads its manifest and nothing else.
func TestOpenReadsTheManifestOnly(t *testing.T) {
	m := newMachine(t, 1)
	m.write(randomPoints(m.r, &m.clock))
	m.flush()
	check(t, m.shard.Close())
	mem := m.fs
	var opened []string
	m.fs = vfs.Faulty(mem, func(op, file string) error {
		if op == vfs.OpOpen {
			opened = append(opened, path.Base(file))
		}
		return nil
	})
	m.open()
	if fmt.Sprint(opened) != "[MANIFEST]" {
		t.Fatalf("opened %v", opened)
	}
	if s := m.shard.Stats(); s.Series != len(m.twin.series) {
		t.Fatalf("%d series, want %d", s.Series, len(m.twin.series))
	}
	compare(t, m.r, m.shard, m.twin)
	check(t, m.shard.Close())
}
