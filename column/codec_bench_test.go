package column_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// cpuBatch is 5000 rows of TSBS cpu-only: ten integers from 0 to 100, hosts in
// turn, ten seconds from turn to turn.
func cpuBatch(hosts int) *column.WriteBatch {
	t := column.Table{Measurement: "cpu", MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	for h := range min(hosts, 5000) {
		t.Keys.Append(fmt.Appendf(nil, "cpu,arch=x64,datacenter=eu-west-1b,hostname=host_%d,os=Ubuntu16.10,rack=%d,region=eu-west-1,service=%d,service_environment=production,service_version=0,team=NYC", h, h%100, h%20))
	}
	for r := range 5000 {
		at := 1451606400000000000 + int64(r/hosts)*1e10
		t.Series, t.Times = append(t.Series, uint32(r%hosts)), append(t.Times, at)
		t.MinTime, t.MaxTime = min(t.MinTime, at), max(t.MaxTime, at)
	}
	for f := range 10 {
		c := column.Column{Name: fmt.Sprintf("usage_%d", f), Type: dsdb.Integer}
		for r := range 5000 {
			c.Bits = append(c.Bits, mix(uint64(f), r)%101)
		}
		t.Columns = append(t.Columns, c)
	}
	return &column.WriteBatch{Tables: []column.Table{t}}
}

// floatBatch is cpuBatch with values of two decimals.
func floatBatch() *column.WriteBatch {
	b := cpuBatch(1000)
	for i := range b.Tables[0].Columns {
		c := &b.Tables[0].Columns[i]
		c.Type = dsdb.Float
		for r, v := range c.Bits {
			c.Bits[r] = math.Float64bits(float64(mix(v, r)%10000) / 100)
		}
	}
	return b
}

func benchBatches(b *testing.B, run func(b *testing.B, batch *column.WriteBatch)) {
	for _, hosts := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) { run(b, cpuBatch(hosts)) })
	}
	b.Run("floats", func(b *testing.B) { run(b, floatBatch()) })
	b.Run("point", func(b *testing.B) { run(b, pointBatch()) })
}

// pointBatch is one point of one field, as most writes under load are.
func pointBatch() *column.WriteBatch {
	t := column.Table{Measurement: "cpu", Series: []uint32{0}, Times: []int64{1451606400000000000}}
	t.Keys.Append([]byte("cpu,host=host_1"))
	t.Columns = []column.Column{{Name: "usage", Type: dsdb.Float, Bits: []uint64{math.Float64bits(12.25)}}}
	return &column.WriteBatch{Tables: []column.Table{t}}
}

// values counts those of a batch without nulls.
func values(b *column.WriteBatch) float64 {
	return float64(b.Tables[0].Rows() * len(b.Tables[0].Columns))
}

func BenchmarkAppend(b *testing.B) {
	benchBatches(b, func(b *testing.B, batch *column.WriteBatch) {
		dst := batch.Append(nil)
		b.ReportAllocs()
		for b.Loop() {
			dst = batch.Append(dst[:0])
		}
		b.ReportMetric(float64(b.N)*values(batch)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
		b.ReportMetric(float64(len(dst))/values(batch), "B/value")
	})
}

func BenchmarkDecode(b *testing.B) {
	benchBatches(b, func(b *testing.B, batch *column.WriteBatch) {
		src := batch.Append(nil)
		var got column.WriteBatch
		b.ReportAllocs()
		for b.Loop() {
			if err := got.Decode(src); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*values(batch)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
	})
}

func BenchmarkSplit(b *testing.B) {
	batch := cpuBatch(1000)
	var p column.Partitioner
	b.ReportAllocs()
	for b.Loop() {
		p.Split(batch, 4, func(_, key int, _ int64) int { return key & 3 })
	}
	b.ReportMetric(float64(b.N)*50_000/b.Elapsed().Seconds()/1e6, "Mvalues/s")
}
