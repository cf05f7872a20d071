package planner

import (
	"github.com/influxdata/influxql"
)

// measurements compiles SHOW MEASUREMENTS. Without ON db.rp it lists all
// policies of the database, each name once.
func (s *showCompiler) measurements(st *influxql.ShowMeasurementsStatement) (*Show, error) {
	if influxql.HasTimeExpr(st.Condition) {
		return nil, invalid("SHOW MEASUREMENTS doesn't support time in WHERE clause")
	}
	if st.WildcardDatabase && !st.WildcardRetentionPolicy {
		if st.RetentionPolicy != "" {
			return nil, invalid("query 'SHOW MEASUREMENTS ON *.rp' not supported. use 'ON *.*' or specify a database")
		}
		return nil, invalid("query 'SHOW MEASUREMENTS ON *' not supported. use 'ON *.*' or specify a database")
	}
	if st.WildcardDatabase || st.WildcardRetentionPolicy {
		return nil, unsupported("SHOW MEASUREMENTS ON with a wildcard")
	}
	m := &influxql.Measurement{RetentionPolicy: st.RetentionPolicy}
	if from, ok := st.Source.(*influxql.Measurement); ok {
		m.Name, m.Regex = from.Name, from.Regex
	}
	p, err := s.listing(ShowMeasurements, clauses{
		database: st.Database, sources: influxql.Sources{m}, condition: st.Condition,
		page: Page{Limit: st.Limit, Offset: st.Offset},
	})
	if err != nil {
		return nil, err
	}
	p.Scoped = st.RetentionPolicy != ""
	return p, nil
}
