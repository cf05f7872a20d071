package segment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// cpuSeries is hosts series of ten fields like TSBS cpu, a day at 10 s.
func cpuSeries(hosts int) []testSeries {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]testSeries, hosts)
	for h := range out {
		out[h] = testSeries{measurement: 1, sid: dsdb.SeriesID(h + 1), times: every(1_700_006_400e9, 10e9, 8640)}
		for f := range uint32(10) {
			out[h].cols = append(out[h].cols, FieldColumn{f + 1, ints(walk(rng, 8640))})
		}
	}
	return out
}

// gaugeSeries is series of five float fields of two decimals whose times jitter by milliseconds.
func gaugeSeries(count int) []testSeries {
	rng := rand.New(rand.NewPCG(7, 8))
	out := make([]testSeries, count)
	for s := range out {
		times := every(1_700_006_400e9, 10e9, 8640)
		for i := range times {
			times[i] += rng.Int64N(10) * 1e6
		}
		out[s] = testSeries{measurement: 1, sid: dsdb.SeriesID(s + 1), times: times}
		for f := range uint32(5) {
			v := make([]float64, len(times))
			x := 50.0
			for i := range v {
				x = min(max(x+rng.NormFloat64(), 0), 100)
				v[i] = math.Round(x*100) / 100
			}
			out[s].cols = append(out[s].cols, FieldColumn{f + 1, floats(v)})
		}
	}
	return out
}

func BenchmarkWriteGauges(b *testing.B) {
	series := gaugeSeries(20)
	values := 20 * 5 * 8640
	b.SetBytes(int64(8 * values))
	b.ReportAllocs()
	var size int64
	for b.Loop() {
		_, info := write(b, Options{Entropy: true}, series)
		size = info.Size
	}
	b.ReportMetric(float64(size)/float64(values), "B/value")
	b.ReportMetric(float64(values)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mv/s")
}

// BenchmarkWriteCPU encodes whole segments; MB/s counts eight bytes a value.
func BenchmarkWriteCPU(b *testing.B) {
	series := cpuSeries(20)
	for _, entropy := range []bool{false, true} {
		b.Run(fmt.Sprintf("entropy=%v", entropy), func(b *testing.B) {
			values := 20 * 10 * 8640
			b.ReportAllocs()
			b.SetBytes(int64(8 * values))
			var size int64
			for b.Loop() {
				_, info := write(b, Options{Entropy: entropy}, series)
				size = info.Size
			}
			b.ReportMetric(float64(size)/float64(values), "B/value")
			b.ReportMetric(float64(values)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mv/s")
		})
	}
}

// BenchmarkScanCPU decodes every value of one field of all series, by tile.
func BenchmarkScanCPU(b *testing.B) {
	series := cpuSeries(20)
	for _, entropy := range []bool{false, true} {
		b.Run(fmt.Sprintf("entropy=%v", entropy), func(b *testing.B) {
			f, _ := write(b, Options{Entropy: entropy}, series)
			r := open(b, f)
			var c Chunk
			var v column.Vector
			values := 0
			b.ReportAllocs()
			for b.Loop() {
				for s := range series {
					r.Chunk(1, dsdb.SeriesID(s+1), &c)
					fc, _ := c.Field(4)
					for i := range c.Tiles() {
						if err := fc.Decode(i, &v); err != nil {
							b.Fatal(err)
						}
						values += v.N
					}
				}
			}
			b.SetBytes(int64(8 * values / b.N))
			b.ReportMetric(float64(values)/b.Elapsed().Seconds()/1e6, "Mv/s")
		})
	}
}

// BenchmarkStatsCPU reads the statistics of every tile of one field of all series.
func BenchmarkStatsCPU(b *testing.B) {
	series := cpuSeries(20)
	f, _ := write(b, Options{Entropy: true}, series)
	r := open(b, f)
	var c Chunk
	tiles, sum := 0, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		for s := range series {
			r.Chunk(1, dsdb.SeriesID(s+1), &c)
			fc, _ := c.Field(4)
			for i := range c.Tiles() {
				sum += fc.Stats(i).Sum
				tiles++
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(tiles), "ns/tile")
}

// BenchmarkWriteSmall writes many series of three rows and one float field.
func BenchmarkWriteSmall(b *testing.B) {
	const count = 200_000
	rng := rand.New(rand.NewPCG(1, 2))
	times := make([][]int64, count)
	cols := make([][]FieldColumn, count)
	for i := range times {
		times[i] = every(1_700_000_000e9+int64(i%10)*1e9, 10e9, 3)
		v := make([]float64, 3)
		for j := range v {
			v[j] = math.Round(rng.Float64()*1e4) / 100
		}
		cols[i] = []FieldColumn{{1, floats(v)}}
	}
	var size int64
	b.ReportAllocs()
	for b.Loop() {
		w := NewWriter(&memFile{}, Header{}, Options{})
		for i := range times {
			if err := w.Add(1, dsdb.SeriesID(i+1), times[i], cols[i]); err != nil {
				b.Fatal(err)
			}
		}
		info, err := w.Finish()
		if err != nil {
			b.Fatal(err)
		}
		size = info.Size
	}
	b.ReportMetric(float64(size)/count, "B/series")
	b.ReportMetric(float64(count)*float64(b.N)/b.Elapsed().Seconds()/1e3, "kseries/s")
}

// BenchmarkChunkLookup finds series in random order among many.
func BenchmarkChunkLookup(b *testing.B) {
	var series []testSeries
	for i := range 100_000 {
		series = append(series, testSeries{1, dsdb.SeriesID(2*i + 1), every(1e18, 1e10, 3), []FieldColumn{{1, ints([]int64{1, 5, 2})}}})
	}
	f, _ := write(b, Options{}, series)
	r := open(b, f)
	var c Chunk
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % len(series)
		if !r.Chunk(1, series[i].sid, &c) {
			b.Fatal("not found")
		}
	}
}

// BenchmarkOpenTiny opens a file of one series with seven rows.
func BenchmarkOpenTiny(b *testing.B) {
	f, _ := write(b, Options{}, []testSeries{{1, 1, every(1e18, 60e9, 7), []FieldColumn{{1, ints(every(0, 3, 7))}}}})
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(f)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkWriteTiny writes such a file.
func BenchmarkWriteTiny(b *testing.B) {
	series := []testSeries{{1, 1, every(1e18, 60e9, 7), []FieldColumn{{1, ints(every(0, 3, 7))}}}}
	b.ReportAllocs()
	for b.Loop() {
		write(b, Options{}, series)
	}
}
