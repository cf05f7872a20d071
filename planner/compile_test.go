package planner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
)

// FuzzCompile says that no statement that parses makes the planner panic, that
// its errors say whose fault they are, and that its plans print.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"SELECT mean(*), count(/u/) FROM /.*/, db2..cpu WHERE host =~ /a/ AND time > now() - 1h OR usage > 5 GROUP BY *, time(1m, now()) fill(linear)",
		"SELECT usage::integer + 1, ok & ok, 'a', -usage FROM cpu WHERE 'a' = host AND (time < 5 AND true) tz('Europe/Berlin')",
		"SELECT distinct(msg), percentile(u, 5) FROM cpu; SHOW TAG VALUES WITH KEY IN (a, b) WHERE value = 'x' OR a =~ /b/",
		"DELETE FROM /c/ WHERE host = 'a' AND time < now() - 1d; DROP SERIES FROM cpu WHERE host > 5",
		"SHOW SERIES EXACT CARDINALITY FROM cpu WHERE host != '' GROUP BY host; CREATE DATABASE x WITH NAME y",
		"SELECT count(distinct usage) FROM cpu GROUP BY /h/ ORDER BY time DESC LIMIT 1 SOFFSET 2",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		stmts, err := ql.Parse(text, nil)
		if err != nil {
			return
		}
		c := parseCatalog(t, "db.rp cpu tags=host,region usage=float idle=integer ok=boolean msg=string u=unsigned\n"+
			"db.rp gpu tags=host usage=integer\ndb2.rp cpu tags=host usage=float")
		for _, s := range stmts {
			p, err := Compile(s, c, Options{DefaultDB: "db", Now: 946900000000000000})
			if err != nil {
				if dsdb.KindOf(err) == dsdb.KindInternal {
					t.Errorf("%s: error without a kind: %v", s, err)
				}
				continue
			}
			if text := p.String(); !strings.HasSuffix(text, "\n") || text != fmt.Sprint(p) {
				t.Errorf("%s: prints %q", s, text)
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	c := &textCatalog{policies: []string{"db.rp"}, byName: map[string]*textMeasurement{
		"db.rp cpu": {tags: []string{"hostname", "region"}, fields: map[string]dsdb.FieldType{"usage_user": dsdb.Float}}}}
	stmts, err := ql.Parse("SELECT mean(usage_user) FROM cpu WHERE time >= '2000-01-01' AND time < '2000-01-02' GROUP BY time(1h), hostname", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(stmts[0], c, Options{DefaultDB: "db"}); err != nil {
			b.Fatal(err)
		}
	}
}
