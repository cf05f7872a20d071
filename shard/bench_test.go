package shard

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
)

// cpuEntry is the log entry of one point of each of n hosts with 10 integer fields.
func cpuEntry(n int, at int64) []byte {
	t := column.Table{Measurement: "cpu", MinTime: at, MaxTime: at}
	for h := range n {
		t.Keys.Append(fmt.Appendf(nil, "cpu,arch=x64,datacenter=us-east-1%c,hostname=host_%d,os=Ubuntu16.10,rack=%d,region=us-east-1", 'a'+h%3, h, h%90))
		t.Series = append(t.Series, uint32(h))
		t.Times = append(t.Times, at)
	}
	for f := range 10 {
		c := column.Column{Name: fmt.Sprintf("usage_%d", f), Type: dsdb.Integer}
		for h := range n {
			c.Bits = append(c.Bits, uint64((int64(h*7+f*31)+at/1e10)%101))
		}
		t.Columns = append(t.Columns, c)
	}
	return AppendWrite(nil, dsdb.ProposalID{}, &column.WriteBatch{Tables: []column.Table{t}})
}

func benchShard(b *testing.B) *Shard {
	s, err := Open(Options{FS: vfs.NewMem(1), Dir: "/d", ID: 1, Range: dsdb.AllTime, Logger: slog.New(slog.DiscardHandler)})
	check(b, err)
	return s
}

func mvs(b *testing.B, values int) {
	b.ReportMetric(float64(values)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mv/s")
}

// BenchmarkApply applies entries of 1000 hosts × 10 fields, decoding included.
func BenchmarkApply(b *testing.B) {
	var entries []dsdb.Entry
	for i := range 600 {
		entries = append(entries, dsdb.Entry{Index: uint64(i) + 1, Data: cpuEntry(1000, int64(i)*1e10)})
	}
	b.ReportAllocs()
	for b.Loop() {
		_, err := benchShard(b).Apply(entries)
		check(b, err)
	}
	mvs(b, 600*1000*10)
}

// BenchmarkScanMemtable reads one field of 1000 series × 600 rows.
func BenchmarkScanMemtable(b *testing.B) {
	s := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		scanAll(b, s, dsdb.Scan{Measurement: "cpu", Fields: []string{"usage_3"}, Range: dsdb.AllTime})
	}
	mvs(b, 600*1000)
}

// scanAll loads every tile of a scan over all series.
func scanAll(b *testing.B, s *Shard, scan dsdb.Scan) {
	src, err := s.Source()
	check(b, err)
	defer src.Close()
	set, err := src.Series(context.Background(), scan.Measurement, nil, nil)
	check(b, err)
	scan.Series = set.IDs
	cur, err := src.Scan(context.Background(), scan)
	check(b, err)
	defer cur.Close()
	for {
		tile, err := cur.Next()
		if err != nil {
			b.Fatal(err)
		}
		if tile == nil {
			return
		}
		if err := tile.LoadTimes(); err != nil {
			b.Fatal(err)
		}
		for i := range scan.Fields {
			if err := tile.Load(i); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// filled is a shard with 1000 series × 600 rows × 10 fields in its memtable.
func filled(b *testing.B) *Shard { return filledBy(b, func(i int) int { return i }) }

// filledBy is filled in which the i-th entry holds the rows of number order(i) in time.
func filledBy(b *testing.B, order func(i int) int) *Shard {
	s := benchShard(b)
	for i := range 600 {
		_, err := s.Apply([]dsdb.Entry{{Index: uint64(i) + 1, Data: cpuEntry(1000, int64(order(i))*1e10)}})
		check(b, err)
	}
	return s
}

// BenchmarkFlush flushes rows that came in the order of time, and those of two
// clients that overtake each other every five rows.
func BenchmarkFlush(b *testing.B) {
	for name, order := range map[string]func(int) int{
		"order=time":  func(i int) int { return i },
		"order=pairs": func(i int) int { return i/10*10 + (i+5)%10 },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				s := filledBy(b, order)
				b.StartTimer()
				_, err := s.Flush()
				check(b, err)
			}
			mvs(b, 600*1000*10)
		})
	}
}

func BenchmarkFullCompaction(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := filled(b)
		_, err := s.Flush()
		check(b, err)
		b.StartTimer()
		_, err = s.Compact(true)
		check(b, err)
	}
	mvs(b, 600*1000*10)
}

func BenchmarkScanSegment(b *testing.B) {
	s := filled(b)
	_, err := s.Flush()
	check(b, err)
	b.ReportAllocs()
	for b.Loop() {
		scanAll(b, s, dsdb.Scan{Measurement: "cpu", Fields: []string{"usage_3"}, Range: dsdb.AllTime})
	}
	mvs(b, 600*1000)
}

// BenchmarkLastPoint asks for the newest row of each of 1000 series, all 10 fields.
func BenchmarkLastPoint(b *testing.B) {
	for _, flushed := range []bool{false, true} {
		b.Run(fmt.Sprintf("flushed=%v", flushed), func(b *testing.B) {
			s := filled(b)
			if flushed {
				_, err := s.Flush()
				check(b, err)
			}
			scan := dsdb.Scan{Measurement: "cpu", Range: dsdb.AllTime, Descending: true, NeedRows: 1}
			for f := range 10 {
				scan.Fields = append(scan.Fields, fmt.Sprintf("usage_%d", f))
			}
			b.ReportAllocs()
			for b.Loop() {
				scanAll(b, s, scan)
			}
		})
	}
}
