package lineproto_test

import (
	"bytes"
	"fmt"
	"math"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/influxdb1-client/models"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/lineproto"
)

// differs names why a body is read otherwise than by InfluxDB's parser, on
// purpose; "" if both must agree.
func differs(body []byte) string {
	switch {
	case bytes.IndexByte(body, '\r') >= 0:
		return "CRLF ends a line here; there the CR is part of the last value and an error"
	case bytes.Contains(body, []byte("#")):
		return "a comment ends at the newline; there quotes in it may carry it on over the next line"
	}
	return ""
}

// lineDiffers does the same for the words about one line.
func lineDiffers(line, reason string) string {
	switch {
	case strings.Contains(reason, "missing field key"):
		return "an empty field key is an error wherever it stands; there only after a space or comma"
	}
	return ""
}

const oracleNow = 1257894000123456789

// oracle reads body with InfluxDB's parser: rows as dump prints them, and the
// joined errors. fault is set if a point parses but its fields cannot be read.
func oracle(body []byte, precision string) (rows []string, text string, fault bool) {
	points, err := models.ParsePointsWithPrecision(bytes.Clone(body), time.Unix(0, oracleNow).UTC(), precision)
	if err != nil {
		text = err.Error()
	}
	for _, p := range points {
		fields, err := p.Fields()
		if err != nil {
			return nil, "", true
		}
		measurement, tags := models.ParseKeyBytes(p.Key())
		row, use := oracleRow(strings.ReplaceAll(string(measurement), `\=`, "="), tags, fields, p.UnixNano())
		if use {
			rows = append(rows, row)
		}
	}
	return rows, text, false
}

// oracleRow prints a point; use is false if InfluxDB's storage would drop it.
func oracleRow(measurement string, tags models.Tags, fields models.Fields, at int64) (row string, use bool) {
	var own dsdb.Tags
	for _, t := range tags {
		if string(t.Key) == "time" {
			return "", false
		}
		own = append(own, dsdb.Tag{Key: string(t.Key), Value: string(t.Value)})
	}
	sort.Slice(own, func(i, j int) bool { return own[i].Key < own[j].Key })
	delete(fields, "time")
	var out []string
	for k, v := range fields {
		switch v := v.(type) {
		case string:
			out = append(out, fmt.Sprintf(" %s=%q", k, v))
		case int64:
			out = append(out, fmt.Sprintf(" %s=%di", k, v))
		default:
			out = append(out, fmt.Sprintf(" %s=%v", k, v))
		}
	}
	sort.Strings(out)
	return fmt.Sprintf("%s%s @%d", dsdb.AppendSeriesKey(nil, measurement, own), strings.Join(out, ""), at), len(fields) > 0
}

// ours prints the rows of a batch as oracle does. A row with one name in two
// types has no counterpart there: clash.
func ours(b *column.WriteBatch) (rows []string, clash bool) {
	for ti := range b.Tables {
		t := &b.Tables[ti]
		for r := range t.Rows() {
			var out []string
			seen := map[string]bool{}
			for ci := range t.Columns {
				if c := &t.Columns[ci]; c.Valid.Get(r) {
					clash = clash || seen[c.Name]
					seen[c.Name] = true
					out = append(out, fmt.Sprintf(" %s=%s", c.Name, show(c, r)))
				}
			}
			sort.Strings(out)
			rows = append(rows, fmt.Sprintf("%s%s @%d", t.Keys.At(int(t.Series[r])), strings.Join(out, ""), t.Times[r]))
		}
	}
	return rows, clash
}

func FuzzParse(f *testing.F) {
	for _, c := range edgeCases {
		if len(c.line) < 1000 {
			f.Add([]byte(c.line), uint8(0))
		}
	}
	for i, s := range []string{
		"cpu,host=a usage=1i,idle=2i 100\ncpu,host=b usage=3i,idle=4i 100\ncpu,host=a usage=5i,idle=6i 200\n",
		"cpu,host=a usage=1i,idle=2i 100\ncpu,host=b usage=3,idle=4i\ncpu,host=a idle=5i\nmem x=\"a\nb\",y=t\nmem x=\"c\\\"\"\n",
		"m,b=1,a=2 f=1\nm,a=2,b=1 f=1,f=2\n\n  \nm v=-0\nm v=1e3,w=.5e-3 -5\nm v=12345678901234567890.123",
		"m\\,x,t\\ a=b\\=c f\\=g=1,\"h=2 1451606400000000000\nm\\,x,t\\ a=b\\=c f\\=g=1,\"h=2 1451606401000000000\n",
		"m f=\"a\"b\nm f=\"a\\\\\",g=\"\\n\\\"\" 1\nm t=true,u=F 99\nm,time=x f=1\nm time=1\nm time=1,a=2",
		" m=1i,x=2i\"3\n4 v=5i\nm=1i,x=2i\"3\n4 v=5i\n",
		"m abcdefghij=1,klmnopqrstuvwxyzabc=2\nm abXdefghij=1,klmnopqrstXvwxyzabc=2\nm abcdefghiX=1,klmnopqrstuvwxyzXbc=3\n",
		" ==c f\\=g=1,\"h=2 1451606400000000000\nm f=1,g=2 =2\",h14\n",
		"m f=1 9223372036854775806\nm f=1 9223372036854775807\nm f=1 -9223372036854775806\nm f=9223372036854775808i\n",
	} {
		f.Add([]byte(s), uint8(i))
	}
	precisions := []string{"n", "u", "ms", "s", "m", "h"}
	var p lineproto.Parser
	var b column.WriteBatch
	f.Fuzz(func(t *testing.T, body []byte, unit uint8) {
		name := precisions[int(unit)%len(precisions)]
		precision, err := lineproto.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		opt := lineproto.Options{Now: oracleNow, Precision: precision, MaxErrors: math.MaxInt}
		// Twice: predictions of the first time must not change what is read.
		r, err := p.Parse(&b, body, opt)
		if err != nil {
			t.Fatal(err)
		}
		first, clash := ours(&b)
		if r, err = p.Parse(&b, body, opt); err != nil {
			t.Fatal(err)
		}
		second, _ := ours(&b)
		sort.Strings(first)
		sort.Strings(second)
		if strings.Join(first, "\n") != strings.Join(second, "\n") {
			t.Fatalf("first  %q\nsecond %q", first, second)
		}
		if r.Points != len(first) || r.Lines != r.Points+r.BadLines+r.Dropped || len(r.Bad) != r.BadLines {
			t.Fatalf("%d rows, report %+v", len(first), r)
		}
		if clash || differs(body) != "" {
			return
		}
		for _, bad := range r.Bad {
			if lineDiffers("", bad.Text) != "" {
				return
			}
		}
		want, text, fault := oracle(body, name)
		if fault {
			return
		}
		sort.Strings(want)
		if strings.Join(first, "\n") != strings.Join(want, "\n") || r.Text() != text {
			t.Fatalf("body %q\nrows  %q\nwant  %q\nerror %q\nwant  %q", body, first, want, r.Text(), text)
		}
	})
}
