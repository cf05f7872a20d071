package lineproto_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/lineproto"
)

var cpuFields = []string{
	"usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait",
	"usage_irq", "usage_softirq", "usage_steal", "usage_guest", "usage_guest_nice",
}

// cpuBodies makes bodies of 5000 lines shaped as TSBS cpu-only: all hosts at
// one time, then all hosts ten seconds later.
func cpuBodies(hosts, bodies int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, bodies)
	for n := range bodies * 5000 {
		host := n % hosts
		b := &out[n/5000]
		*b = fmt.Appendf(*b, "cpu,hostname=host_%d,region=eu-west-1,datacenter=eu-west-1b,rack=%d,os=Ubuntu16.10,arch=x64,team=NYC,service=%d,service_version=0,service_environment=production ",
			host, host%100, host%20)
		for i, f := range cpuFields {
			if i > 0 {
				*b = append(*b, ',')
			}
			*b = fmt.Appendf(*b, "%s=%di", f, rnd.IntN(101))
		}
		*b = fmt.Appendf(*b, " %d\n", 1451606400000000000+int64(n/hosts)*1e10)
	}
	return out
}

func benchmarkParse(b *testing.B, bodies [][]byte, values int) {
	var p lineproto.Parser
	var batch column.WriteBatch
	bytes := 0
	for _, body := range bodies {
		bytes += len(body)
		if r, err := p.Parse(&batch, body, lineproto.Options{}); err != nil || r.BadLines > 0 {
			b.Fatal(r.Text(), err)
		}
	}
	b.SetBytes(int64(bytes / len(bodies)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p.Parse(&batch, bodies[i%len(bodies)], lineproto.Options{})
	}
	b.ReportMetric(float64(b.N)*float64(values)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
}

func BenchmarkParseCPU(b *testing.B) {
	for _, hosts := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			benchmarkParse(b, cpuBodies(hosts, 8), 50_000)
		})
	}
}

// Every line names a series that was never seen before, or not for a million lines.
func BenchmarkParseMillionSeries(b *testing.B) {
	bodies := make([][]byte, 200)
	for n := range 1_000_000 {
		b := &bodies[n/5000]
		*b = fmt.Appendf(*b, "m,id=s%d v=%d 1451606400000000000\n", n, n%1000)
	}
	benchmarkParse(b, bodies, 5000)
}
