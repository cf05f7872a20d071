package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/lineproto"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/server/httpd"
)

// The way of a point through a node that is alone, without HTTP and with a disk
// that costs nothing.
func BenchmarkWriteOnePoint(b *testing.B) {
	c := open(b, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu,host=a usage=1 10")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var p lineproto.Parser
		var batch column.WriteBatch
		for pb.Next() {
			if _, err := p.Parse(&batch, []byte("cpu,host=a usage=1 10"), lineproto.Options{}); err != nil {
				b.Fatal(err)
			}
			if err := c.node.Write(context.Background(), &httpd.WriteRequest{Database: "db", Batch: &batch}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A statement over one point: the cost of beginning and ending one.
func BenchmarkQueryOnePoint(b *testing.B) {
	c := open(b, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu,host=a usage=1 10")
	statements, err := ql.Parse("SELECT usage FROM cpu", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		res, err := c.node.Execute(context.Background(), &httpd.QueryRequest{Statement: statements[0], Database: "db", ChunkRows: 1000})
		if err != nil {
			b.Fatal(err)
		}
		if err := eachRow(context.Background(), res, func(*column.Frame, int) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// A measurement goes that has points in 200 shards of three replicas: each of them
// takes a deletion and a fence.
func BenchmarkDropMeasurement(b *testing.B) {
	nodes := openCluster(b, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	var lines strings.Builder
	for week := range 200 {
		fmt.Fprintf(&lines, "m v=1 %d\n", week*7*24*int(time.Hour))
	}
	for b.Loop() {
		b.StopTimer()
		nodes[0].mustWrite("db", lines.String())
		b.StartTimer()
		nodes[0].mustQuery("db", "DROP MEASUREMENT m")
	}
}
