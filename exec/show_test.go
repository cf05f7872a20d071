package exec

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/ql"
)

// showShard is a Source that only knows series, written as canonical keys.
type showShard struct {
	policy string // db.rp
	fields map[string]dsdb.FieldType
	keys   []string
	closed bool
}

func (s *showShard) parsed(measurement string) (ids []dsdb.SeriesID, tags []dsdb.Tags) {
	for i, k := range s.keys {
		m, t, err := dsdb.ParseSeriesKey([]byte(k))
		if err == nil && m == measurement {
			ids, tags = append(ids, dsdb.SeriesID(i+1)), append(tags, t)
		}
	}
	return ids, tags
}

func (s *showShard) Series(_ context.Context, m string, where *dsdb.TagExpr, keys []string) (*column.SeriesSet, error) {
	ids, tags := s.parsed(m)
	set := &column.SeriesSet{Keys: keys, Dict: make([][]string, len(keys)), Code: make([][]uint32, len(keys))}
	for k := range keys {
		// A value that no series of the set has may be in the dictionary.
		set.Dict[k] = []string{"", "unused"}
	}
	for i, id := range ids {
		if !where.Match(tags[i]) {
			continue
		}
		set.IDs = append(set.IDs, id)
		for k, key := range keys {
			code := uint32(0)
			if v := tags[i].Get(key); v != "" {
				code = uint32(len(set.Dict[k]))
				set.Dict[k] = append(set.Dict[k], v)
			}
			set.Code[k] = append(set.Code[k], code)
		}
	}
	return set, nil
}

func (s *showShard) Scan(context.Context, dsdb.Scan) (column.Cursor, error) {
	return nil, fmt.Errorf("SHOW must not read rows")
}

func (s *showShard) Measurements(context.Context) ([]string, error) {
	found := make(map[string]struct{})
	for _, k := range s.keys {
		m, _, _ := dsdb.ParseSeriesKey([]byte(k))
		found[m] = struct{}{}
	}
	return sortedKeys(found), nil
}

func (s *showShard) TagKeys(_ context.Context, measurement string) ([]string, error) {
	found := make(map[string]struct{})
	_, all := s.parsed(measurement)
	for _, tags := range all {
		for _, t := range tags {
			found[t.Key] = struct{}{}
		}
	}
	return sortedKeys(found), nil
}

func (s *showShard) Close() error {
	s.closed = true
	return nil
}

// showWorld is a catalogue for the planner and an environment for SHOW. Shard
// n of a policy holds day n of 2000. Shard 99 is in the catalogue but dropped.
type showWorld struct {
	shards    map[dsdb.ShardID]*showShard
	catalogue ShowCatalogue
	processes []ProcessRow
}

func (w *showWorld) Open(_ context.Context, id dsdb.ShardID) (Source, error) {
	s, ok := w.shards[id]
	if !ok {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "shard not found: %d", id)
	}
	s.closed = false
	return s, nil
}

func (w *showWorld) Catalogue(context.Context) (*ShowCatalogue, error) { return &w.catalogue, nil }
func (w *showWorld) Processes(context.Context) ([]ProcessRow, error)   { return w.processes, nil }

func (w *showWorld) DefaultPolicy(db string) (string, error) {
	if db != "db" {
		return "", dsdb.Errorf(dsdb.KindNotFound, "database not found: %s", db)
	}
	return "rp", nil
}

func (w *showWorld) Shards(db, rp string, r dsdb.TimeRange) ([]planner.Shard, error) {
	out := []planner.Shard{{ID: 99, Range: dsdb.AllTime}}
	for id, s := range w.shards {
		day := time.Date(2000, 1, int(id), 0, 0, 0, 0, time.UTC)
		span := dsdb.TimeRange{Start: day.UnixNano(), End: day.AddDate(0, 0, 1).UnixNano()}
		if d, p, _ := strings.Cut(s.policy, "."); d == db && (rp == "" || rp == p) && span.Overlaps(r) {
			out = append(out, planner.Shard{ID: id, Range: span})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

func (w *showWorld) Measurements(string, string) ([]string, error)              { return nil, nil }
func (w *showWorld) TagKeys(_, _, _ string, _ dsdb.TimeRange) ([]string, error) { return nil, nil }

func (w *showWorld) Fields(db, rp, measurement string, _ dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	out := make(map[string]dsdb.FieldType)
	for _, s := range w.shards {
		if ids, _ := s.parsed(measurement); len(ids) > 0 && (rp == "" || s.policy == db+"."+rp) {
			for f, t := range s.fields {
				out[f] = t
			}
		}
	}
	return out, nil
}

// TestShow runs SHOW statements from their text to their answer.
func TestShow(t *testing.T) {
	w := &showWorld{shards: make(map[dsdb.ShardID]*showShard)}
	datadriven.RunTest(t, "testdata/show/show.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "shard":
			return w.addShard(t, d)
		case "catalogue":
			w.catalogue, w.processes = exampleCatalogue(), exampleProcesses
			return "ok\n"
		case "show":
			return w.run(t, d.Input)
		}
		t.Fatalf("unknown command %q", d.Cmd)
		return ""
	})
}

func (w *showWorld) addShard(t *testing.T, d *datadriven.TestData) string {
	s := &showShard{policy: "db.rp", fields: make(map[string]dsdb.FieldType), keys: strings.Split(d.Input, "\n")}
	var id int
	d.ScanArgs(t, "id", &id)
	d.MaybeScanArgs(t, "policy", &s.policy)
	var integer string
	d.MaybeScanArgs(t, "integer", &integer)
	s.fields["value"] = dsdb.Float
	if integer != "" {
		s.fields[integer] = dsdb.Integer
	}
	w.shards[dsdb.ShardID(id)] = s
	return "ok\n"
}

func exampleCatalogue() ShowCatalogue {
	day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	return ShowCatalogue{
		Databases: []DatabaseRow{
			{Name: "db", Policies: []PolicyRow{
				{Name: "rp", ShardDuration: 7 * 24 * time.Hour, Replication: 3, Default: true},
				{Name: "short", Duration: 2 * time.Hour, ShardDuration: time.Hour, Replication: 1},
			}, Groups: []GroupRow{{
				ID: 4, Policy: "rp", Expiry: day.AddDate(0, 0, 8).UnixNano(),
				Range:  dsdb.TimeRange{Start: day.UnixNano(), End: day.AddDate(0, 0, 7).UnixNano()},
				Shards: []ShardRow{{ID: 5, Owners: []dsdb.NodeID{2, 5, 6}}, {ID: 6}},
			}}},
			{Name: "empty"},
		},
		Users: []UserRow{{Name: "root", Admin: true},
			{Name: "bob", Grants: []GrantRow{{"db", "READ"}, {"empty", "ALL PRIVILEGES"}}}},
		Data: []ServerRow{{2, "influx1:8088", "influx1:8088"}, {5, "influx3:8088", "influx3:8088"}},
		Meta: []ServerRow{{1, "influx1:8091", "influx1:8088"}, {3, "influx3:8091", "influx3:8088"}},
	}
}

var exampleProcesses = []ProcessRow{{MetaID: 1, DataID: 2, TCPAddr: "influx1:8088", Status: "up", Role: "leader", Shards: 4, Leads: 2,
	DiskUsed: 1000, DiskFree: 2000, Version: "1.0.0", Authenticated: "self", LastSeen: 1e18},
	{DataID: 5, TCPAddr: "influx3:8088", Status: "dead", Role: "standby", Lag: 7, Authenticated: "none"}}

func (w *showWorld) run(t *testing.T, input string) string {
	var out strings.Builder
	for _, line := range strings.Split(input, "\n") {
		fmt.Fprintf(&out, "> %s\n", line)
		stmts, err := ql.Parse(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		stmt := stmts[0]
		plan, err := planner.Compile(stmt, w, planner.Options{DefaultDB: "db"})
		if err != nil {
			t.Fatal(err)
		}
		res, err := Show(context.Background(), plan.(*planner.Show), w)
		if err != nil {
			fmt.Fprintf(&out, "error: %s\n", err)
			continue
		}
		text := frameText(t, res)
		if far := w.far(t, plan.(*planner.Show)); far != text {
			t.Errorf("%s: with shards on other nodes\n%s\nnot\n%s", line, far, text)
		}
		out.WriteString(text)
	}
	return out.String()
}

// farEnv is a showWorld whose shards lie on other nodes.
type farEnv struct {
	*showWorld
	c *cluster
}

func (e *farEnv) Open(ctx context.Context, id dsdb.ShardID) (Source, error) { return e.c.open(ctx, id) }

func (w *showWorld) far(t *testing.T, p *planner.Show) string {
	c := &cluster{node: map[dsdb.ShardID]int{99: 1}}
	for id := range w.shards {
		c.node[id] = 1 + int(id)%2
	}
	c.start(context.Background(), w.Open)
	res, err := Show(context.Background(), p, &farEnv{w, c})
	if err := errors.Join(err, c.close()); err != nil {
		t.Fatal(err)
	}
	return frameText(t, res)
}

// frameText prints an answer: per frame its name, its columns, its rows.
func frameText(t *testing.T, res Result) string {
	var out strings.Builder
	defer res.Close()
	for {
		f, err := res.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			return out.String()
		}
		fmt.Fprintf(&out, "%s: %s\n", strconv.Quote(f.Name), strings.Join(f.Columns, ", "))
		for i := 0; i < f.Rows(); i++ {
			cells := make([]string, len(f.Cols))
			for c := range f.Cols {
				cells[c] = cellText(&f.Cols[c], i)
			}
			out.WriteString("  " + strings.Join(cells, " | ") + "\n")
		}
	}
}

func cellText(v *column.Vector, i int) string {
	switch v.Type {
	case dsdb.String:
		return string(v.Str(i))
	case dsdb.Boolean:
		return strconv.FormatBool(v.Ints[i] != 0)
	}
	return strconv.FormatInt(v.Ints[i], 10)
}

// TestShowClosesShards says that no shard stays open, and that a dropped one is passed over.
func TestShowClosesShards(t *testing.T) {
	w := &showWorld{shards: map[dsdb.ShardID]*showShard{1: {policy: "db.rp", keys: []string{"cpu,host=a"}}}}
	shards, _ := w.Shards("db", "", dsdb.AllTime)
	p := &planner.Show{Kind: planner.ShowSeries, Targets: []planner.Target{{Database: "db", Shards: shards}}}
	if _, err := Show(context.Background(), p, w); err != nil {
		t.Fatal(err)
	}
	if !w.shards[1].closed {
		t.Error("shard 1 was left open")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Show(ctx, p, w); err == nil {
		t.Error("a canceled SHOW succeeded")
	}
}

// TestShowFramesAreBounded says that a long list comes in frames of one series.
func TestShowFramesAreBounded(t *testing.T) {
	s := &showShard{policy: "db.rp"}
	for i := 0; i < 2*showFrameRows+1; i++ {
		s.keys = append(s.keys, fmt.Sprintf("cpu,host=%06d", i))
	}
	w := &showWorld{shards: map[dsdb.ShardID]*showShard{1: s}}
	shards, _ := w.Shards("db", "", dsdb.AllTime)
	p := &planner.Show{Kind: planner.ShowSeries, Targets: []planner.Target{{Database: "db", Shards: shards}}}
	res, err := Show(context.Background(), p, w)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		f, err := res.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			break
		}
		got = append(got, fmt.Sprintf("%d %t %s", f.Rows(), f.Partial, f.Cols[0].Str(0)))
	}
	want := []string{"10000 true cpu,host=000000", "10000 true cpu,host=010000", "1 false cpu,host=020000"}
	if strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("frames %q, want %q", got, want)
	}
}
