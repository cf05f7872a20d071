package server

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
)

// catalog answers the planner from a session's version of the catalogue and,
// for what only stored series can tell, from the shards.
type catalog struct {
	ctx context.Context // of the statement
	*session
}

// policies returns the named policy, or all of them if rp is "".
func policies(view *meta.Data, db, rp string) ([]*meta.RetentionPolicy, error) {
	d := view.Database(db)
	if d == nil {
		return nil, errNoDatabase(db)
	}
	if rp == "" {
		return d.Policies, nil
	}
	p, err := view.Policy(db, rp)
	if err != nil {
		return nil, err
	}
	return []*meta.RetentionPolicy{p}, nil
}

// errNoDatabase is the error of /query; that of /write quotes the name.
func errNoDatabase(db string) error {
	return dsdb.Errorf(dsdb.KindNotFound, "database not found: %s", db)
}

// DefaultPolicy implements planner.Catalog.
func (c *catalog) DefaultPolicy(db string) (string, error) {
	d := c.view.Database(db)
	if d == nil {
		return "", errNoDatabase(db)
	}
	return d.DefaultPolicy, nil
}

// Shards implements planner.Catalog.
func (c *catalog) Shards(db, rp string, r dsdb.TimeRange) ([]planner.Shard, error) {
	policies, err := policies(c.view, db, rp)
	if err != nil {
		return nil, err
	}
	var out []planner.Shard
	for _, p := range policies {
		for _, g := range p.GroupsIn(r) {
			for _, s := range g.Shards {
				if mutant.LocalShardsOnly {
					if _, err := c.n.shards.get(s.ID); err != nil {
						continue
					}
				}
				if !c.n.shards.unborn(s) {
					out = append(out, planner.Shard{ID: s.ID, Range: g.Range})
				}
			}
		}
	}
	if len(policies) > 1 {
		slices.SortStableFunc(out, func(a, b planner.Shard) int {
			switch {
			case a.Range.Start < b.Range.Start:
				return -1
			case a.Range.Start > b.Range.Start:
				return 1
			}
			return 0
		})
	}
	return out, nil
}

// Measurements implements planner.Catalog.
func (c *catalog) Measurements(db, rp string) ([]string, error) {
	shards, err := c.Shards(db, rp, dsdb.AllTime)
	if err != nil {
		return nil, err
	}
	sources, err := c.sources(shards)
	if err != nil {
		return nil, err
	}
	return exec.Measurements(c.ctx, sources)
}

// Fields implements planner.Catalog.
func (c *catalog) Fields(db, rp, measurement string, r dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	return fields(c.view, db, rp, measurement, r)
}

func fields(view *meta.Data, db, rp, measurement string, r dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	policies, err := policies(view, db, rp)
	if err != nil {
		return nil, err
	}
	out := map[string]dsdb.FieldType{}
	for _, p := range policies {
		for _, g := range p.GroupsIn(r) {
			for _, f := range g.Fields(measurement) {
				out[f.Name] = wider(out[f.Name], f.Type)
			}
		}
	}
	return out, nil
}

// wider returns the type to which values of both types are converted. The
// field types are numbered so that the smaller one wins: float, integer,
// unsigned; but a string wins over a boolean.
func wider(a, b dsdb.FieldType) dsdb.FieldType {
	switch {
	case a == dsdb.NoType:
		return b
	case a == dsdb.Boolean && b == dsdb.String || a == dsdb.String && b == dsdb.Boolean:
		return dsdb.String
	}
	return min(a, b)
}

// TagKeys implements planner.Catalog.
func (c *catalog) TagKeys(db, rp, measurement string, r dsdb.TimeRange) ([]string, error) {
	shards, err := c.Shards(db, rp, r)
	if err != nil {
		return nil, err
	}
	sources, err := c.sources(shards)
	if err != nil {
		return nil, err
	}
	return exec.TagKeys(c.ctx, sources, measurement)
}

// sources opens shards. One that was dropped meanwhile is left out.
func (c *catalog) sources(list []planner.Shard) ([]exec.Source, error) {
	c.prepare(c.ctx, list)
	var out []exec.Source
	for _, ps := range list {
		src, err := c.open(c.ctx, ps.ID)
		if dsdb.KindOf(err) == dsdb.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, src)
	}
	return out, nil
}
