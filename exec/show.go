package exec

import (
	"context"
	"sort"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// ShowEnv is what SHOW statements read.
type ShowEnv interface {
	// Open opens a shard as exec.Open does.
	Open(ctx context.Context, id dsdb.ShardID) (Source, error)
	// Catalogue returns the databases and users that the asker may see.
	Catalogue(ctx context.Context) (*ShowCatalogue, error)
	// Processes returns the processes of the cluster in the order of their ids.
	Processes(ctx context.Context) ([]ProcessRow, error)
	// Fields returns the fields of a measurement, as planner.Catalog's.
	Fields(db, rp, measurement string, r dsdb.TimeRange) (map[string]dsdb.FieldType, error)
}

// ShowCatalogue is the part of the cluster catalogue that SHOW prints, in output order.
type ShowCatalogue struct {
	Databases []DatabaseRow
	Users     []UserRow
	Data      []ServerRow // data nodes, by id
	Meta      []ServerRow // meta nodes, by id
}

// ServerRow is a role of a process: its id, and its addresses as configured.
type ServerRow struct {
	ID                dsdb.NodeID
	HTTPAddr, TCPAddr string
}

// ProcessRow is what SHOW CLUSTER tells about a process.
type ProcessRow struct {
	MetaID, DataID dsdb.NodeID // 0: it does not have the role
	TCPAddr        string
	Status         string // up, suspect, dead, leaving, joining
	Role           string // in the meta group: leader, voter, standby
	Shards, Leads  int    // replicas of shards, and how many of them lead
	Witnesses      int    // of shards
	Lag            uint64 // most entries that one of its replicas lacks, or has still to apply
	DiskUsed       int64  // bytes
	DiskFree       int64  // bytes
	Version        string
	Authenticated  string // how it proves itself to this node: none, shared-secret, tls, self
	LastSeen       int64  // nanoseconds; 0: never
}

// DatabaseRow is a database.
type DatabaseRow struct {
	Name     string
	Policies []PolicyRow
	Groups   []GroupRow
}

// PolicyRow is a retention policy; Duration 0 means for ever.
type PolicyRow struct {
	Name                    string
	Duration, ShardDuration time.Duration
	Replication             int
	Default                 bool
}

// GroupRow is a time group (InfluxDB: shard group) of a policy.
type GroupRow struct {
	ID     uint64
	Policy string
	Range  dsdb.TimeRange
	Expiry int64 // nanoseconds; when the policy lets it go
	Shards []ShardRow
}

// ShardRow is a shard and the data nodes that hold its replicas.
type ShardRow struct {
	ID     dsdb.ShardID
	Owners []dsdb.NodeID
}

// UserRow is a user and the rights granted, by database.
type UserRow struct {
	Name   string
	Admin  bool
	Grants []GrantRow
}

// GrantRow is a right on a database in InfluxDB's words: READ, WRITE, ALL PRIVILEGES, NO PRIVILEGES.
type GrantRow struct{ Database, Right string }

// Show executes a SHOW statement: it gathers from all shards, sorts, cuts by
// LIMIT and OFFSET. All shards are closed again when it returns.
func Show(ctx context.Context, p *planner.Show, env ShowEnv) (Result, error) {
	if p.Kind == planner.ShowCluster {
		rows, err := env.Processes(ctx)
		if err != nil {
			return nil, err
		}
		return newShowResult(p.Page, []showTable{showProcesses(rows)}), nil
	}
	if p.Kind < planner.ShowMeasurements {
		c, err := env.Catalogue(ctx)
		if err != nil {
			return nil, err
		}
		tables, err := showCatalogue(p, c)
		if err != nil {
			return nil, err
		}
		return newShowResult(p.Page, tables), nil
	}
	r := &showRun{ctx: ctx, p: p, env: env, open: make(map[dsdb.ShardID]Source)}
	tables, err := r.tables()
	if cerr := r.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return newShowResult(p.Page, tables), nil
}

// showRun is one execution over shards.
type showRun struct {
	ctx  context.Context
	p    *planner.Show
	env  ShowEnv
	open map[dsdb.ShardID]Source // nil: dropped since the plan was made
}

// shown is one measurement that targets ask for, and where it has series.
type shown struct {
	name    string
	sources []Source         // distinct
	targets []planner.Target // those that found it
}

func (r *showRun) close() error {
	var first error
	for _, s := range r.open {
		if s == nil {
			continue
		}
		if err := s.Close(); first == nil {
			first = err
		}
	}
	return first
}

// source opens a shard once; nil if it was dropped.
func (r *showRun) source(id dsdb.ShardID) (Source, error) {
	if s, ok := r.open[id]; ok {
		return s, nil
	}
	s, err := r.env.Open(r.ctx, id)
	if err != nil && dsdb.KindOf(err) != dsdb.KindNotFound {
		return nil, err
	}
	if err != nil {
		s = nil
	}
	r.open[id] = s
	return s, nil
}

// measurements returns what the targets ask for, by name.
func (r *showRun) measurements() ([]*shown, error) {
	byName := make(map[string]*shown)
	var out []*shown
	for _, t := range r.p.Targets {
		for _, shard := range t.Shards {
			if err := r.ctx.Err(); err != nil {
				return nil, err
			}
			src, err := r.source(shard.ID)
			if err != nil {
				return nil, err
			}
			if src == nil {
				continue
			}
			names, err := src.Measurements(r.ctx)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if !t.Matches(name) {
					continue
				}
				m := byName[name]
				if m == nil {
					m = &shown{name: name}
					byName[name] = m
					out = append(out, m)
				}
				m.add(src, t)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, nil
}

func (m *shown) add(src Source, t planner.Target) {
	found := false
	for _, s := range m.sources {
		found = found || s == src
	}
	if !found {
		m.sources = append(m.sources, src)
	}
	for _, o := range m.targets {
		if o.Database == t.Database && o.Policy == t.Policy {
			return
		}
	}
	m.targets = append(m.targets, t)
}

// tables answers the kinds that list what shards hold.
func (r *showRun) tables() ([]showTable, error) {
	if r.p.Nothing {
		return r.total(nil)
	}
	ms, err := r.measurements()
	if err != nil {
		return nil, err
	}
	switch r.p.Kind {
	case planner.ShowMeasurements:
		return r.listMeasurements(ms)
	case planner.ShowSeries:
		return r.listSeries(ms)
	case planner.ShowMeasurementCardinality, planner.ShowSeriesCardinality:
		if r.p.Kind == planner.ShowMeasurementCardinality || !r.p.Count {
			return r.total(ms)
		}
	}
	return r.perMeasurement(ms)
}

// perMeasurement answers the kinds with one table for each measurement that has anything.
func (r *showRun) perMeasurement(ms []*shown) ([]showTable, error) {
	var out []showTable
	for _, m := range ms {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		t, err := r.measurementTable(m)
		if err != nil {
			return nil, err
		}
		if t.rows() > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

func (r *showRun) measurementTable(m *shown) (showTable, error) {
	t := showTable{name: m.name}
	switch r.p.Kind {
	case planner.ShowTagKeys, planner.ShowTagKeyCardinality:
		keys, err := r.tagKeys(m)
		if err != nil || r.p.Kind == planner.ShowTagKeyCardinality {
			return countTable(m.name, len(keys)), err
		}
		t.addStrings("tagKey", keys)
	case planner.ShowTagValues, planner.ShowTagValuesCardinality:
		keys, values, err := r.tagValues(m)
		if err != nil || r.p.Kind == planner.ShowTagValuesCardinality {
			return countTable(m.name, countDistinct(values)), err
		}
		t.addStrings("key", keys)
		t.addStrings("value", values)
	case planner.ShowFieldKeys, planner.ShowFieldKeyCardinality:
		keys, types, err := r.fieldKeys(m)
		if err != nil || r.p.Kind == planner.ShowFieldKeyCardinality {
			return countTable(m.name, len(keys)), err
		}
		t.addStrings("fieldKey", keys)
		t.addStrings("fieldType", types)
	case planner.ShowSeriesCardinality:
		n, err := r.countSeries(m)
		return countTable(m.name, n), err
	default:
		panic("BUG: SHOW of kind " + r.p.Kind.String() + " has no table per measurement")
	}
	return t, nil
}

// countTable has one row with a count, no row if the count is 0.
func countTable(name string, n int) showTable {
	t := showTable{name: name}
	var values []int64
	if n > 0 {
		values = []int64{int64(n)}
	}
	t.addInts("count", dsdb.Integer, values)
	return t
}

func countDistinct(values []string) int {
	seen := make(map[string]struct{}, len(values))
	for _, v := range values {
		seen[v] = struct{}{}
	}
	return len(seen)
}

// newShowResult cuts the tables into frames.
func newShowResult(p planner.Page, tables []showTable) Result {
	if p.SOffset > 0 {
		tables = tables[min(p.SOffset, len(tables)):]
	}
	if p.SLimit > 0 {
		tables = tables[:min(p.SLimit, len(tables))]
	}
	res := &showResult{}
	for i := range tables {
		before := tables[i].rows()
		tables[i].cut(p.Limit, p.Offset)
		if before > 0 && tables[i].rows() == 0 {
			continue // OFFSET is past its end
		}
		res.frames = tables[i].appendFrames(res.frames)
	}
	return res
}

// showResult yields frames made before.
type showResult struct{ frames []column.Frame }

// Next implements Result.
func (r *showResult) Next(ctx context.Context) (*column.Frame, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(r.frames) == 0 {
		return nil, nil
	}
	f := &r.frames[0]
	r.frames = r.frames[1:]
	return f, nil
}

// Close implements Result.
func (r *showResult) Close() error {
	r.frames = nil
	return nil
}
