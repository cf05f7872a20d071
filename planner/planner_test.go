package planner

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
)

// textCatalog is a catalogue written as lines
//
//	db.rp measurement tags=a,b field=float field=integer …
//
// Every policy has a shard per day from 2000-01-01 to 2000-01-03; shard ids
// count up over the policies in the order of the lines. The first policy of a
// database is its default.
type textCatalog struct {
	policies []string // db.rp, in order
	byName   map[string]*textMeasurement
}

type textMeasurement struct {
	tags   []string
	fields map[string]dsdb.FieldType
}

func parseCatalog(t *testing.T, text string) *textCatalog {
	c := &textCatalog{byName: make(map[string]*textMeasurement)}
	types := map[string]dsdb.FieldType{"float": dsdb.Float, "integer": dsdb.Integer,
		"unsigned": dsdb.Unsigned, "boolean": dsdb.Boolean, "string": dsdb.String}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		w := strings.Fields(line)
		if !contains(c.policies, w[0]) {
			c.policies = append(c.policies, w[0])
		}
		if len(w) == 1 {
			continue
		}
		m := &textMeasurement{fields: make(map[string]dsdb.FieldType)}
		for _, kv := range w[2:] {
			k, v, _ := strings.Cut(kv, "=")
			if k == "tags" {
				m.tags = strings.Split(v, ",")
				continue
			}
			if types[v] == dsdb.NoType {
				t.Fatalf("catalog line %q: no type %q", line, v)
			}
			m.fields[k] = types[v]
		}
		c.byName[w[0]+" "+w[1]] = m
	}
	return c
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (c *textCatalog) DefaultPolicy(db string) (string, error) {
	for _, p := range c.policies {
		if d, rp, _ := strings.Cut(p, "."); d == db {
			return rp, nil
		}
	}
	return "", dsdb.Errorf(dsdb.KindNotFound, "database not found: %s", db)
}

// in returns the policies (with their place in the list) that db and rp mean.
func (c *textCatalog) in(db, rp string) (map[string]int, error) {
	if _, err := c.DefaultPolicy(db); err != nil {
		return nil, err
	}
	out := make(map[string]int)
	for i, p := range c.policies {
		if d, r, _ := strings.Cut(p, "."); d == db && (rp == "" || r == rp) {
			out[p] = i
		}
	}
	if len(out) == 0 {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "retention policy not found: %s", rp)
	}
	return out, nil
}

func (c *textCatalog) Shards(db, rp string, r dsdb.TimeRange) ([]Shard, error) {
	ps, err := c.in(db, rp)
	const day = int64(24 * time.Hour)
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	var out []Shard
	for d := int64(0); d < 3; d++ {
		span := dsdb.TimeRange{Start: start + d*day, End: start + (d+1)*day}
		for _, i := range ps {
			if span.Overlaps(r) {
				out = append(out, Shard{ID: dsdb.ShardID(int64(i)*3 + d + 1), Range: span})
			}
		}
	}
	sortShards(out)
	return out, err
}

func (c *textCatalog) Measurements(db, rp string) ([]string, error) {
	ps, err := c.in(db, rp)
	var out []string
	for key := range c.byName {
		p, m, _ := strings.Cut(key, " ")
		if _, ok := ps[p]; ok && !contains(out, m) {
			out = append(out, m)
		}
	}
	sort.Strings(out)
	return out, err
}

func (c *textCatalog) Fields(db, rp, measurement string, _ dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	ps, err := c.in(db, rp)
	out := make(map[string]dsdb.FieldType)
	for p := range ps {
		if m := c.byName[p+" "+measurement]; m != nil {
			for f, t := range m.fields {
				out[f] = t
			}
		}
	}
	return out, err
}

func (c *textCatalog) TagKeys(db, rp, measurement string, _ dsdb.TimeRange) ([]string, error) {
	ps, err := c.in(db, rp)
	var out []string
	for p := range ps {
		if m := c.byName[p+" "+measurement]; m != nil {
			for _, k := range m.tags {
				if !contains(out, k) {
					out = append(out, k)
				}
			}
		}
	}
	sort.Strings(out)
	return out, err
}

// TestPlans runs the statements of testdata/plans: each line of a plan command is a
// statement, answered by its plan or its error.
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata/plans", func(t *testing.T, path string) {
		var c *textCatalog
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "catalog":
				c = parseCatalog(t, d.Input)
				return "ok\n"
			case "plan":
				return planAll(t, d, c)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func planAll(t *testing.T, d *datadriven.TestData, c *textCatalog) string {
	o := Options{Now: time.Date(2000, 1, 3, 12, 0, 0, 0, time.UTC).UnixNano(), DefaultDB: "db"}
	d.MaybeScanArgs(t, "db", &o.DefaultDB)
	d.MaybeScanArgs(t, "rp", &o.DefaultRP)
	var out strings.Builder
	for _, line := range strings.Split(d.Input, "\n") {
		stmts, err := ql.Parse(line, nil)
		if err != nil {
			fmt.Fprintf(&out, "%s\n", err)
			continue
		}
		p, err := Compile(stmts[0], c, o)
		switch {
		case err == nil:
			out.WriteString(p.String())
		case dsdb.KindOf(err) == dsdb.KindInternal:
			fmt.Fprintf(&out, "INTERNAL error: %s\n", err)
		default:
			fmt.Fprintf(&out, "error: %s\n", err)
		}
	}
	return out.String()
}
