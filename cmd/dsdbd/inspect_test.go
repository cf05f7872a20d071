package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/dasudian/dsdb"
)

// What a client wrote is in the flushed segment: inspect says what, and the
// Arrow export has the very rows that a query returns.
func TestInspectSegment(t *testing.T) {
	home := t.TempDir()
	d := start(t, home, "DSDB_DATA_CACHE_SNAPSHOT_MEMORY_SIZE=1")
	d.query("", "CREATE DATABASE db")
	d.write("db", points())
	var want []string
	for _, m := range []string{"cpu", "log"} {
		for _, s := range d.query("db", "SELECT * FROM "+m+" GROUP BY *") {
			want = append(want, rowsOfQuery(s)...)
		}
	}
	path := waitForSegment(t, filepath.Join(home, ".dsdb", "data", "shard", "1"))
	d.stop(syscall.SIGTERM)

	code, text, stderr := dsdbd(t, nil, "inspect", "segment", path)
	if code != 0 || stderr != "" {
		t.Fatalf("inspect: %d %s", code, stderr)
	}
	for _, want := range []string{"segment " + path, "shard 1, level 0", "2100 rows", "measurement cpu (1): 2 series", "measurement log (2): 1 series",
		"  usage ", "  cores ", "  text ", "float", "integer", "string"} {
		if !strings.Contains(text, want) {
			t.Errorf("inspect says nothing of %q:\n%s", want, text)
		}
	}

	out := filepath.Join(t.TempDir(), "rows.arrow")
	if code, _, stderr := dsdbd(t, nil, "inspect", "segment", "-arrow", out, path); code != 0 || stderr != "" {
		t.Fatalf("export: %d %s", code, stderr)
	}
	got := rowsOfArrow(t, out)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the export has %d rows that are not the %d of the query:\n%s\n%s", len(got), len(want), got[0], want[0])
	}
}

// A segment file away from its shard is readable; numbers stand for the names.
func TestInspectLoneSegment(t *testing.T) {
	home := t.TempDir()
	d := start(t, home, "DSDB_DATA_CACHE_SNAPSHOT_MEMORY_SIZE=1")
	d.query("", "CREATE DATABASE db")
	d.write("db", "cpu usage=1 1")
	path := waitForSegment(t, filepath.Join(home, ".dsdb", "data", "shard", "1"))
	d.stop(syscall.SIGTERM)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lone := filepath.Join(t.TempDir(), "lone.seg")
	if err := os.WriteFile(lone, file, 0o600); err != nil {
		t.Fatal(err)
	}
	code, text, stderr := dsdbd(t, nil, "inspect", "segment", lone)
	if code != 0 || !strings.Contains(stderr, "no manifest beside") || !strings.Contains(text, "measurement #1 (1)") {
		t.Errorf("%d %s\n%s", code, stderr, text)
	}
	if err := os.WriteFile(lone, file[:len(file)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := dsdbd(t, nil, "inspect", "segment", lone); code != 1 || !strings.Contains(stderr, "lone.seg") {
		t.Errorf("half a file: %d %s", code, stderr)
	}
}

func TestInspectLog(t *testing.T) {
	home := t.TempDir()
	d := start(t, home)
	d.query("", "CREATE DATABASE db")
	d.write("db", "cpu usage=1 1")
	d.stop(syscall.SIGTERM)
	files, err := filepath.Glob(filepath.Join(home, ".dsdb", "wal", "wal-*.seg"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	code, text, stderr := dsdbd(t, nil, "inspect", "wal", files[0])
	if code != 0 || !strings.Contains(text, "create  group 1 replica") || !strings.Contains(text, "clean-shutdown") || strings.Contains(text, "DAMAGED") {
		t.Errorf("%d %s\n%s", code, stderr, text)
	}
}

// points are 1000 rows of each of two series, and 100 of a third, some without some fields.
func points() string {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "cpu,host=a usage=%d.%d,cores=%di %d\n", i, i%10, i*i, i*1000)
		fmt.Fprintf(&b, "cpu,host=b\\ c,zone=x usage=%g %d\n", float64(i)/7, i*1000+i%3)
		if i%10 == 0 {
			fmt.Fprintf(&b, "log text=\"line %d\\\"\",ok=%t %d\n", i, i%20 == 0, i)
		}
	}
	return b.String()
}

func waitForSegment(t *testing.T, dir string) string {
	t.Helper()
	for range 6000 {
		files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); err == nil && len(files) == 1 {
			return files[0]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing was flushed to %s", dir)
	return ""
}

// row prints a row: its series, time, and the fields that are not null, by name.
func row(key, time string, fields []string) string {
	slices.Sort(fields)
	return key + " " + strings.Join(fields, ",") + " " + time
}

func rowsOfQuery(s series) (out []string) {
	var tags dsdb.Tags
	for k, v := range s.Tags {
		if v != "" {
			tags = append(tags, dsdb.Tag{Key: k, Value: v})
		}
	}
	slices.SortFunc(tags, func(a, b dsdb.Tag) int { return strings.Compare(a.Key, b.Key) })
	key := string(dsdb.AppendSeriesKey(nil, s.Name, tags))
	for _, values := range s.Values {
		var fields []string
		for i, v := range values[1:] {
			if v != nil {
				fields = append(fields, fmt.Sprintf("%s=%v", s.Columns[i+1], v))
			}
		}
		out = append(out, row(key, string(values[0].(json.Number)), fields))
	}
	return out
}

func rowsOfArrow(t *testing.T, path string) (out []string) {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ipc.NewReader(f, ipc.WithAllocator(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	for r.Next() {
		rec := r.Record()
		for i := range int(rec.NumRows()) {
			var fields []string
			for c := 3; c < int(rec.NumCols()); c++ {
				if !rec.Column(c).IsNull(i) {
					fields = append(fields, fmt.Sprintf("%s=%s", rec.ColumnName(c), rec.Column(c).ValueStr(i)))
				}
			}
			key := rec.Column(1).(*array.String).Value(i)
			at := rec.Column(2).(*array.Timestamp).Value(i)
			out = append(out, row(key, fmt.Sprint(int64(arrow.Timestamp(at))), fields))
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// What GET /snapshot answers is read by inspect, as is the file that the daemon leaves.
func TestInspectMeta(t *testing.T) {
	home := t.TempDir()
	d := start(t, home)
	d.query("", "CREATE DATABASE db")
	rs, err := http.Get(d.base + "/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Body.Close()
	b, err := io.ReadAll(rs.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := filepath.Join(home, "answer.snap")
	if err := os.WriteFile(answer, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.stop(syscall.SIGTERM)
	files, err := filepath.Glob(filepath.Join(home, ".dsdb", "meta", "catalogue", "*.snap"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range append(files, answer) {
		code, text, stderr := dsdbd(t, nil, "inspect", "meta", file)
		if code != 0 || stderr != "" || !strings.Contains(text, "meta node 1 (active) data node 2 (active)") {
			t.Errorf("%s: %d %s\n%s", file, code, stderr, text)
		}
		if file == answer && !strings.Contains(text, `database "db", default policy "autogen"`) {
			t.Errorf("the database is not in\n%s", text)
		}
	}
}
