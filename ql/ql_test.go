package ql

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return // a corpus
		}
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			statements, err := Parse(td.Input, nil)
			if err != nil {
				return err.Error() + "\n"
			}
			var b strings.Builder
			for _, s := range statements {
				b.WriteString(s.String() + "\n")
			}
			if len(statements) == 0 {
				return "no statement\n"
			}
			return b.String()
		})
	})
}

func TestParameters(t *testing.T) {
	for _, c := range []struct{ text, params, want string }{
		{`SELECT v FROM m WHERE v > $x`, `{"x": 2}`, `SELECT v FROM m WHERE v > 2`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": 2.5}`, `SELECT v FROM m WHERE v > 2.5`},
		{`SELECT v FROM m WHERE v = $x`, `{"x": true}`, `SELECT v FROM m WHERE v = true`},
		{`SELECT v FROM m WHERE host = $x`, `{"x": "o'b"}`, `SELECT v FROM m WHERE host = 'o\'b'`},
		{`SELECT v FROM m WHERE host = $x`, `{"x": {"string": "a"}}`, `SELECT v FROM m WHERE host = 'a'`},
		{`SELECT v FROM m WHERE host =~ $x`, `{"x": {"regex": "^a/"}}`, `SELECT v FROM m WHERE host =~ /^a\//`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": {"integer": 9223372036854775807}}`, `SELECT v FROM m WHERE v > 9223372036854775807`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": {"float": 3}}`, `SELECT v FROM m WHERE v > 3.0`},
		{`SELECT mean(v) FROM m WHERE time > now() - $x GROUP BY time($x)`, `{"x": {"duration": "1h"}}`,
			`SELECT mean(v) FROM m WHERE time > now() - 1h GROUP BY time(1h)`},
		{`SELECT $f FROM $m`, `{"f": {"identifier": "v w"}, "m": {"ident": "m"}}`, `SELECT "v w" FROM m`},
		{`SELECT v FROM m WHERE v > $y`, `{"x": 2}`, `error parsing query: missing parameter: y`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": [1]}`, `error parsing query: missing parameter: unable to bind parameter with type []interface {}`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": {"duration": "1x"}}`, `error parsing query: invalid duration`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": {"colour": "red"}}`, `error parsing query: missing parameter: unknown bind object type: colour`},
		{`SELECT v FROM m WHERE v > $x`, `{"x": {"integer": 1, "float": 1}}`, `error parsing query: missing parameter: bound object parameter value must have exactly one entry`},
		// The value is a string, whatever it holds.
		{`SELECT v FROM m WHERE host = $x`, `{"x": "a' OR 'b' = 'b"}`, `SELECT v FROM m WHERE host = 'a\' OR \'b\' = \'b'`},
	} {
		dec := json.NewDecoder(strings.NewReader(c.params))
		dec.UseNumber()
		var params map[string]any
		if err := dec.Decode(&params); err != nil {
			t.Fatal(err)
		}
		statements, err := Parse(c.text, params)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = statements[0].String()
		}
		if got != c.want {
			t.Errorf("%s with %s:\n got %s\nwant %s", c.text, c.params, got, c.want)
		}
	}
}

// TestLimits: what lies just within a bound parses, what lies just outside is refused.
func TestLimits(t *testing.T) {
	in := func(n int, before, middle, after string) string {
		return strings.Repeat(before, n) + middle + strings.Repeat(after, n)
	}
	for _, c := range []struct {
		name          string
		within, above string
		refusal       string
	}{
		{"length", "SELECT v FROM m --" + strings.Repeat("x", MaxText-18), "SELECT v FROM m --" + strings.Repeat("x", MaxText-17), "text of 1048577 bytes exceeds 1048576"},
		{"statements", strings.Repeat("SHOW USERS;", 100), strings.Repeat("SHOW USERS;", 101), "more than 100 statements at line 1, char 1101"},
		{"parentheses", "SELECT " + in(100, "(", "v", ")") + " FROM m", "SELECT " + in(101, "(", "v", ")") + " FROM m", "expression nested deeper than 100"},
		{"condition", "SELECT v FROM m WHERE " + in(100, "(", "v > 1", ")"), "SELECT v FROM m WHERE " + in(101, "(", "v > 1", ")"), "expression nested deeper than 100"},
		{"signs", "SELECT " + in(100, "-(", "v", ")") + " FROM m", "SELECT " + in(101, "-(", "v", ")") + " FROM m", "expression nested deeper than 100"},
		{"calls", "SELECT " + in(100, "abs(", "v", ")") + " FROM m", "SELECT " + in(101, "abs(", "v", ")") + " FROM m", "expression nested deeper than 100"},
		{"subqueries", in(100, "SELECT v FROM (", "SELECT v FROM m", ")"), in(101, "SELECT v FROM (", "SELECT v FROM m", ")"), "subqueries nested deeper than 100"},
		{"operators", "SELECT v" + strings.Repeat("+v", 10_000) + " FROM m", "SELECT v" + strings.Repeat("+v", 10_001) + " FROM m", "more than 10000 operators in an expression"},
		{"stack", "SELECT v FROM m", "SELECT " + in(500_000, "(", "v", ")") + " FROM m", "500000 parentheses exceed 20000"},
		{"regex", "SHOW SERIES WHERE a =~ /" + strings.Repeat("x", 1024) + "/", "SHOW SERIES WHERE a =~ /" + strings.Repeat("x", 1025) + "/", "regular expression of 1025 bytes exceeds 1024"},
		{"regex source", "SELECT v FROM /" + strings.Repeat("x", 1024) + "/", "SELECT v FROM /" + strings.Repeat("x", 1025) + "/", "regular expression of 1025 bytes exceeds 1024"},
		{"delete", "DELETE FROM m", "DELETE FROM m WHERE a =~ /" + strings.Repeat("x", 1025) + "/", "regular expression of 1025 bytes exceeds 1024"},
		{"tag values", `SHOW TAG VALUES WITH KEY =~ /x/`, `SHOW TAG VALUES WITH KEY =~ /` + strings.Repeat("x", 1025) + "/", "regular expression of 1025 bytes exceeds 1024"},
		{"continuous query", "SHOW USERS", "CREATE CONTINUOUS QUERY q ON d BEGIN SELECT mean(v) INTO n FROM m WHERE " + in(101, "(", "v > 1", ")") + " GROUP BY time(1h) END", "expression nested deeper than 100"},
		{"explain", "EXPLAIN SELECT v FROM m", "EXPLAIN SELECT v FROM /" + strings.Repeat("x", 1025) + "/", "regular expression of 1025 bytes exceeds 1024"},
	} {
		if _, err := Parse(c.within, nil); err != nil {
			t.Errorf("%s: within the bound: %.200v", c.name, err)
		}
		_, err := Parse(c.above, nil)
		if err == nil || err.Error() != "error parsing query: "+c.refusal || dsdb.KindOf(err) != dsdb.KindInvalid {
			t.Errorf("%s: beyond the bound: %.200v", c.name, err)
		}
	}
}

func TestPosition(t *testing.T) {
	_, err := Parse("SHOW DATABASES;\n  SELECT 'é' FRM m", nil)
	if line, char, ok := Position(err); line != 2 || char != 14 || !ok {
		t.Errorf("%v: line %d, char %d, %v", err, line, char, ok)
	}
	_, err = Parse(" \n DROP SUBSCRIPTION \"name\" ON  ", nil)
	if line, char, ok := Position(err); line != 1 || char != 29 || !ok {
		t.Errorf("%v: line %d, char %d, %v", err, line, char, ok)
	}
	_, err = Parse("SELECT v FROM m WHERE v > $x", nil)
	if _, _, ok := Position(err); ok {
		t.Errorf("%v has a position", err)
	}
}

func TestSanitize(t *testing.T) {
	for text, want := range map[string]string{
		`CREATE USER ann WITH PASSWORD 'secret' WITH ALL PRIVILEGES`:                                 `CREATE USER ann WITH PASSWORD [REDACTED] WITH ALL PRIVILEGES`,
		`set password for "ann" = 'secret'; show users`:                                              `set password for "ann" = [REDACTED]; show users`,
		`SET PASSWORD FOR "a=\"b" ='two words'`:                                                      `SET PASSWORD FOR "a=\"b" =[REDACTED]`,
		`create user a with /* ' */ password 'it\'s "so"'; x`:                                        `create user a with /* ' */ password [REDACTED]; x`,
		"create user a with -- c\npassword'p'":                                                       "create user a with -- c\npassword[REDACTED]",
		`CREATE USER a WITH PASSWORD secret; SHOW USERS`:                                             `CREATE USER a WITH PASSWORD [REDACTED]; SHOW USERS`,
		`CREATE USER a WITH PASSWORD 'not closed; SHOW USERS`:                                        `CREATE USER a WITH PASSWORD [REDACTED]`,
		`CREATE USER a WITH PASSWORD 'p'; CREATE USER b WITH PASSWORD 'q'; SET PASSWORD FOR b = 'r'`: `CREATE USER a WITH PASSWORD [REDACTED]; CREATE USER b WITH PASSWORD [REDACTED]; SET PASSWORD FOR b = [REDACTED]`,
		`SHOW DATABASES`: `SHOW DATABASES`,
	} {
		if got := Sanitize(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
	if got := Sanitize(strings.Repeat("é", MaxText)); len(got) > MaxText {
		t.Errorf("%d bytes for the log", len(got))
	}
}

func TestPrivileges(t *testing.T) {
	for text, want := range map[string]influxql.ExecutionPrivilege{
		`SELECT v FROM m`:             {Admin: false, Name: "", Privilege: influxql.ReadPrivilege},
		`DROP DATABASE IF EXISTS db0`: {Admin: true, Name: "", Privilege: influxql.AllPrivileges},
	} {
		statements, err := Parse(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Privileges(statements[0])
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v, error %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`SELECT mean("a b"), -x::float * 2 FROM "db"."rp"./m.*/, (SELECT * FROM m) WHERE t =~ /x/ AND time > '2016-01-01' GROUP BY time(1h, 5m), * fill(previous) ORDER BY time DESC LIMIT 1 SLIMIT 2 tz('UTC')`,
		`CREATE DATABASE IF NOT EXISTS db WITH DURATION 1h REPLICATION 2 SHARD DURATION 1h NAME rp; DROP DATABASE IF EXISTS db`,
		`CREATE CONTINUOUS QUERY q ON d RESAMPLE EVERY 1h FOR 2h BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1h) END`,
		`EXPLAIN ANALYZE SELECT $p FROM m; SHOW TAG VALUES WITH KEY IN (a, b); KILL QUERY 3 ON "h"`,
		`SHOW FIELD KEY EXACT CARDINALITY ON d FROM m WHERE a = $r GROUP BY b; DELETE FROM m WHERE time < 1; DROP SERIES FROM /x/`,
		`GRANT ALL PRIVILEGES TO u; SET PASSWORD FOR u = 'x'; ALTER RETENTION POLICY p ON d DURATION INF DEFAULT -- end`,
		"SELECT -$p, +(-1), -'x', - -1, -$r, -9223372036854775808 FROM m /* open",
	} {
		f.Add(text)
	}
	params := map[string]any{"p": json.Number("5"), "r": map[string]any{"regex": "a|b"}, "d": map[string]any{"duration": "1h"}}
	f.Fuzz(func(t *testing.T, text string) {
		statements, err := Parse(text, params)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindInvalid || len(statements) != 0 {
				t.Fatalf("%d statements, error %v", len(statements), err)
			}
			Position(err)
		}
		for _, s := range statements {
			_ = s.String()
			if _, err := Privileges(s); err != nil {
				continue // e.g. SELECT from nothing that is a measurement
			}
		}
		Sanitize(text)
	})
}

func BenchmarkParse(b *testing.B) {
	const text = `SELECT mean(usage_user) FROM cpu WHERE (host = 'host_1' OR host = 'host_2') AND time >= '2016-01-01T00:00:00Z' AND time < '2016-01-01T12:00:00Z' GROUP BY time(1m), host fill(none)`
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
