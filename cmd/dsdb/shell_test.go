package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server"
	"github.com/dasudian/dsdb/server/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server and a way to run dsdb against it.
type world struct {
	t    *testing.T
	addr []string // -host and -port
}

// newWorld starts a server in memory with the points of cpu and log in the database db.
func newWorld(t *testing.T) *world {
	t.Helper()
	cfg := config.Default("/node")
	cfg.HTTP.BindAddress = "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.Background())
	n, err := server.Open(ctx, cfg, server.Options{FS: vfs.NewMem(1), Logger: slog.New(slog.DiscardHandler), Version: "test",
		Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := n.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		serving.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	host, port, _ := net.SplitHostPort(n.Addr())
	w := &world{t, []string{"-host", host, "-port", port}}
	w.ok("-execute", "CREATE DATABASE db")
	w.ok("-database", "db", "-execute", "INSERT cpu,host=a usage=1.5,cores=4i 1000000000")
	w.ok("-database", "db", "-execute", "insert cpu,host=b usage=2.5 2000000000")
	w.ok("-database", "db", "-execute", `INSERT log text="two, \"quoted\"",ok=true 3000000000`)
	return w
}

// input runs dsdb with a standard input that is no terminal.
func (w *world) input(in string, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "stdin")
	if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	var out, errOut bytes.Buffer
	code = run(context.Background(), append(w.addr[:len(w.addr):len(w.addr)], args...), f, &out, &errOut)
	return code, out.String(), errOut.String()
}

func (w *world) run(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	return w.input("", args...)
}

// ok runs dsdb, which must succeed without a word on standard error.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	code, stdout, stderr := w.run(args...)
	if code != exitOK || stderr != "" {
		w.t.Fatalf("dsdb %q: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// Answers look as those of InfluxDB 0.10's shell.
func TestFormats(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ args, want string }{
		{"SHOW DATABASES", `
name: databases
---------------
name
db

`}, {"SELECT * FROM cpu", `
name: cpu
---------
time		cores	host	usage
1000000000	4	a	1.5
2000000000		b	2.5

`}, {"SELECT usage FROM cpu GROUP BY host", `
name: cpu
tags: host=a
time		usage
----		-----
1000000000	1.5

name: cpu
tags: host=b
time		usage
----		-----
2000000000	2.5

`}, {"SELECT usage FROM cpu WHERE host = 'none'", `
`}, {"SELECT usage FROM cpu LIMIT 1; SELECT text FROM log", `
name: cpu
---------
time		usage
1000000000	1.5

name: log
---------
time		text
3000000000	two, "quoted"

`}, {"-format csv SELECT * FROM cpu", `
name,time,cores,host,usage
cpu,1000000000,4,a,1.5
cpu,2000000000,,b,2.5
`}, {"-format csv SELECT usage FROM cpu GROUP BY host; SELECT text FROM log", `
name,tags,time,usage
cpu,host=a,1000000000,1.5
cpu,host=b,2000000000,2.5

name,time,text
log,3000000000,"two, ""quoted"""
`}, {"-format json SELECT usage FROM cpu LIMIT 1", `
{"results":[{"statement_id":0,"series":[{"name":"cpu","columns":["time","usage"],"values":[[1000000000,1.5]]}]}]}
`}, {"-format json -pretty SELECT usage FROM cpu LIMIT 1", `
{
    "results": [
        {
            "statement_id": 0,
            "series": [
                {
                    "name": "cpu",
                    "columns": [
                        "time",
                        "usage"
                    ],
                    "values": [
                        [
                            1000000000,
                            1.5
                        ]
                    ]
                }
            ]
        }
    ]
}
`}, {"-format line SELECT * FROM cpu", `
# DML
# CONTEXT-DATABASE: db
cpu,host=a cores=4i,usage=1.5 1000000000
cpu,host=b usage=2.5 2000000000
`}, {"-format line SELECT * FROM /./ GROUP BY *", `
# DML
# CONTEXT-DATABASE: db
cpu,host=a cores=4i,usage=1.5 1000000000
cpu,host=b usage=2.5 2000000000
log ok=true,text="two, \"quoted\"" 3000000000
`}, {"-precision rfc3339 -format csv SELECT usage FROM cpu LIMIT 1", `
name,time,usage
cpu,1970-01-01T00:00:01Z,1.5
`}, {"-precision s -format csv SELECT usage FROM cpu LIMIT 1", `
name,time,usage
cpu,1,1.5
`}, {"-precision u -format csv SELECT usage FROM cpu LIMIT 1", `
name,time,usage
cpu,1000000,1.5
`}} {
		args := []string{"-database", "db"}
		words := strings.Split(c.args, " ")
		for len(words) > 0 && words[0] != "SELECT" && words[0] != "SHOW" {
			args, words = append(args, words[0]), words[1:]
		}
		got := w.ok(append(args, "-execute", strings.Join(words, " "))...)
		if got != c.want[1:] {
			t.Errorf("%s: got\n%s\nwant%s", c.args, got, c.want)
		}
	}
}

// Large answers come in chunks and look like one.
func TestLargeAnswer(t *testing.T) {
	w := newWorld(t)
	var points strings.Builder
	for i := range 25000 {
		fmt.Fprintf(&points, "big v=%di %d\n", i, i)
	}
	if code, out, errOut := w.input(points.String(), "-import", "-path", writeFile(t, points.String()), "-database", "db"); code != exitOK {
		t.Fatal(out, errOut)
	}
	for _, format := range []string{"column", "csv", "json"} {
		got := w.ok("-database", "db", "-format", format, "-execute", "SELECT v FROM big")
		if n := strings.Count(got, "24999"); n != 2 {
			t.Errorf("%s: the last row is there %d times", format, n/2)
		}
		if n := strings.Count(got, "time"); n != 1 {
			t.Errorf("%s: %d headers", format, n)
		}
		if lines := strings.Count(got, "\n"); format != "json" && (lines < 25001 || lines > 25004) {
			t.Errorf("%s: %d lines", format, lines)
		}
	}
}

func TestErrorsAndExitCodes(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"-execute", "SELEC 1"}, exitFailed, "ERR: error parsing query: found SELEC, expected SELECT, "},
		{[]string{"-execute", "SHOW DATABASES; SHOW MEASURMENTS"}, exitFailed, "\n  SHOW DATABASES; SHOW MEASURMENTS\n                       ^\n"},
		{[]string{"-execute", "SELECT * FROM cpu"}, exitFailed, "ERR: database name required: use DATABASE first, or start dsdb with -database"},
		{[]string{"-database", "none", "-execute", "SELECT * FROM cpu"}, exitFailed, "ERR: database not found: none (SHOW DATABASES lists them)"},
		{[]string{"-database", "db", "-format", "json", "-execute", "SELECT * FROM db.none.cpu"}, exitFailed, "ERR: retention policy not found: none (SHOW RETENTION POLICIES lists them)"},
		{[]string{"-execute", "INSERT cpu v=1"}, exitFailed, "ERR: database is required: use DATABASE first, or insert into DATABASE.POLICY POINT"},
		{[]string{"-database", "db", "-execute", "INSERT cpu v="}, exitFailed, "ERR: unable to parse 'cpu v=': missing field value"},
		{[]string{"-database", "db", "-execute", "INSERT"}, exitFailed, "ERR: insert wants a point"},
		{[]string{"-database", "db", "-format", "line", "-execute", "SHOW DATABASES"}, exitFailed, "ERR: format line is for points"},
		{[]string{"-execute", "use none"}, exitFailed, "ERR: Database none doesn't exist. Run SHOW DATABASES for a list of existing databases."},
		{[]string{"-execute", "format xml"}, exitFailed, `ERR: unknown format "xml": use column, csv, json, line`},
		{[]string{"-format", "xml"}, exitUsage, `dsdb: unknown format "xml": use column, csv, json, line`},
		{[]string{"-precision", "d"}, exitUsage, `dsdb: unknown precision "d"`},
		{[]string{"-databse", "db"}, exitUsage, "dsdb: flag provided but not defined: -databse (dsdb -h lists the flags)"},
		{[]string{"SHOW DATABASES"}, exitUsage, `dsdb: unexpected argument "SHOW DATABASES"; statements go in -execute`},
		{[]string{"-host", "http://localhost"}, exitUsage, "give the name alone"},
		{[]string{"-import"}, exitUsage, "dsdb: -import wants -path FILE"},
		{[]string{"-import", "-path", "/none"}, exitFailed, "ERR: open /none: no such file or directory"},
		{[]string{"-port", closedPort(t), "-execute", "SHOW DATABASES"}, exitConnect, "connection refused\nPlease check your connection settings and ensure 'dsdbd' is running."},
	} {
		code, _, stderr := w.run(c.args...)
		if code != c.code || !strings.Contains(stderr, c.stderr) {
			t.Errorf("dsdb %q: got %d %s\nwant %d %s", c.args, code, stderr, c.code, c.stderr)
		}
	}
	if code, stdout, stderr := w.run("-h"); code != exitOK || !strings.Contains(stdout, "-precision") || stderr != "" {
		t.Errorf("-h: %d %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := w.run("-version"); code != exitOK || !strings.HasPrefix(stdout, "DSDB shell ") {
		t.Errorf("-version: %d %s", code, stdout)
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Lines of standard input are commands and statements, the latter over as many lines as they like.
func TestStandardInput(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ in, stdout, stderr string }{
		{"use db\nformat csv\nprecision s\nSELECT usage\n  FROM cpu\n  WHERE host = 'a'\nSELECT usage FROM cpu WHERE host = 'b';", `Using database db
name,time,usage
cpu,1,1.5
name,time,usage
cpu,2,2.5
`, ""},
		{"# a comment\nuse db; \n\nformat csv\nSELECT max(\nusage\n) FROM cpu\n", "Using database db\nname,time,max\ncpu,2000000000,2.5\n", ""},
		{"use db\nformat csv\nEXPLAIN\nSELECT usage FROM cpu\nexit\nnonsense", "Using database db\nname,", ""},
		{"use \"db\".autogen\nINSERT into autogen mem free=1i 5\ninsert INTO \"db\".\"autogen\" mem free=2i 6\nformat csv\nselect free from mem\nsettings",
			"Using database db\nUsing retention policy autogen\nname,time,free\nmem,5,1\nmem,6,2\nServer  ", ""},
		{"SHOW MEASUREMENTS\nSHOW DATABASES", "", "ERR: database name required"},
		{"auth", "", "ERR: auth wants NAME PASSWORD"},
		{"help", "Commands:\n  connect HOST:PORT", ""},
		{"connect 127.0.0.1:" + w.addr[3] + "\ntiming\nSHOW DATABASES\n", "Connected to http://127.0.0.1:" + w.addr[3] + " version DSDB test\nname: databases", ""},
	} {
		code, stdout, stderr := w.input(c.in)
		if want := min(len(c.stderr), 1); code != want || !strings.HasPrefix(stdout, c.stdout) || !strings.HasPrefix(stderr, c.stderr) || c.stderr == "" && stderr != "" {
			t.Errorf("%q: got %d\n%s%s\nwant %d\n%s%s", c.in, code, stdout, stderr, want, c.stdout, c.stderr)
		}
		if strings.Contains("\n"+stdout, "\n> ") {
			t.Errorf("%q: a prompt where there is no terminal: %s", c.in, stdout)
		}
	}
}

func TestEndsOpen(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT max(m) FROM (":                  true,
		"SELECT max(m) FROM (SELECT":            true,
		"SELECT max(m) FROM cpu":                false,
		`SELECT ")(" FROM "\"("`:                false,
		"SELECT v WHERE s = '('":                false,
		"EXPLAIN":                               true,
		"explain analyze":                       true,
		"CREATE CONTINUOUS QUERY q ON db BEGIN": true,
		"":                                      false,
	} {
		if got := endsOpen(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"unable to parse 'cpu': missing fields", 10},
		{"partial write: unable to parse 'a': missing fields\nunable to parse 'b': missing fields dropped=0", 2},
		{"partial write: unable to parse 'a': missing fields\nand 5 more lines dropped=0", 6},
		{"partial write: field type conflict: … dropped=3", 3},
		{"partial write: points beyond retention policy dropped=99", 10},
		{"partial write: of another kind", 1},
	} {
		if got := refused(c.text, 10); got != c.want {
			t.Errorf("%q: %d, want %d", c.text, got, c.want)
		}
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "import.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	file := writeFile(t, `# DDL
CREATE DATABASE one
CREATE DATABASE two WITH DURATION 30d NAME month
# DML
# CONTEXT-DATABASE: one
# CONTEXT-RETENTION-POLICY: autogen
cpu,host=a v=1 1
cpu,host=a v=oops 2

cpu,host=b v=3 3
cpu,host=b v="text" 4
# CONTEXT-DATABASE: two
# CONTEXT-RETENTION-POLICY: month
cpu v=4 4000000000
`)
	code, stdout, stderr := w.run("-import", "-path", file, "-precision", "s", "-pps", "100000")
	if code != exitFailed || stdout != "Processed 2 commands\nProcessed 3 inserts\nFailed 2 inserts\n" {
		t.Errorf("%d %s", code, stdout)
	}
	if !strings.Contains(stderr, "unable to parse 'cpu,host=a v=oops 2'") || !strings.Contains(stderr, "field type conflict") {
		t.Errorf("what was refused is not said: %s", stderr)
	}
	if got := w.ok("-database", "one", "-precision", "s", "-format", "csv", "-execute", "SELECT v FROM cpu; SELECT v FROM two.month.cpu"); got != "name,time,v\ncpu,1,1\ncpu,3,3\ncpu,4000000000,4\n" {
		t.Error(got)
	}
}

func TestImportCompressed(t *testing.T) {
	w := newWorld(t)
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	fmt.Fprint(g, "# DDL\nCREATE DATABASE three\n# DML\n# CONTEXT-DATABASE: three\ncpu v=1 1\n")
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got := w.ok("-import", "-compressed", "-path", writeFile(t, z.String())); got != "Processed 1 commands\nProcessed 1 inserts\nFailed 0 inserts\n" {
		t.Error(got)
	}
	if code, _, stderr := w.run("-import", "-compressed", "-path", writeFile(t, "cpu v=1 1000000000\n")); code != exitFailed || !strings.Contains(stderr, "gzip: invalid header") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestImportWithoutDatabase(t *testing.T) {
	w := newWorld(t)
	for _, text := range []string{"# DML\ncpu v=1 1\n", "\ncpu v=1 1\n"} {
		code, stdout, stderr := w.run("-import", "-path", writeFile(t, text))
		if code != exitFailed || !strings.Contains(stderr, `line 2: points before a line "# CONTEXT-DATABASE: NAME"; or give -database`) {
			t.Errorf("%q: %d %s%s", text, code, stdout, stderr)
		}
	}
	code, _, stderr := w.run("-import", "-database", "none", "-path", writeFile(t, "cpu v=1 1\n"))
	if code != exitFailed || !strings.Contains(stderr, `database not found: "none"`) {
		t.Errorf("%d %s", code, stderr)
	}
}

// A server that is busy is asked again; one that refuses is not.
func TestImportTriesAgain(t *testing.T) {
	answers := []int{503, 204, 401}
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/write" {
			w.WriteHeader(answers[asked])
			asked++
		}
	}))
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	w := &world{t, []string{"-host", host, "-port", port}}
	if got := w.ok("-import", "-database", "db", "-path", writeFile(t, "cpu v=1 1")); !strings.Contains(got, "Processed 1 inserts") {
		t.Error(got)
	}
	code, stdout, stderr := w.run("-import", "-database", "db", "-path", writeFile(t, "cpu v=1 1"))
	if code != exitFailed || !strings.Contains(stdout, "Failed 1 inserts") || !strings.Contains(stderr, "401") || asked != 3 {
		t.Errorf("%d %s%s asked %d times", code, stdout, stderr, asked)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/query" {
			fmt.Fprint(w, `{"results":[{"statement_id":0}]}`)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	w := &world{t, []string{"-host", host, "-port", port, "-execute", "SHOW DATABASES"}}
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, exitConnect, "-ssl speaks https."},
		{[]string{"-ssl"}, exitConnect, "-unsafeSsl accepts any certificate."},
		{[]string{"-ssl", "-unsafeSsl"}, exitOK, ""},
	} {
		if code, _, stderr := w.run(c.args...); code != c.code || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q: %d %s", c.args, code, stderr)
		}
	}
}

// An answer that breaks off is an error, not a short answer.
func TestBrokenAnswer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/query" {
			fmt.Fprint(w, `{"results":[{"series":[{"name":"cpu","columns":["time","v"],"values":[[1,1]`)
		}
	}))
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	w := &world{t, []string{"-host", host, "-port", port}}
	for _, format := range formats {
		code, _, stderr := w.run("-database", "db", "-format", format, "-execute", "SELECT v FROM cpu")
		if code != exitFailed || !strings.Contains(stderr, "unexpected EOF") {
			t.Errorf("%s: %d %s", format, code, stderr)
		}
	}
}

// What -format line prints, -import reads: all types, and every byte that needs escaping.
func TestExportedLinesImportAgain(t *testing.T) {
	w := newWorld(t)
	points := `a\ b\,c,t\=\ 1=x\ y\,\=z f\ 1=1i,f2=-2.5e+30,b=false,s="q\" back\\slash, =
# not a comment

last" 1
a\ b\,c,t\=\ 1=w f\ 1=9223372036854775807i,f2=1 -5
cpu v=1 0
`
	w.ok("-execute", "CREATE DATABASE copy")
	w.ok("-import", "-database", "db", "-path", writeFile(t, points))
	export := func(db string) string {
		return w.ok("-database", db, "-format", "line", "-execute", "SELECT * FROM /./")
	}
	first := export("db")
	if !strings.Contains(first, "# not a comment\n\nlast\"") {
		t.Errorf("the text of three lines is lost: %s", first)
	}
	w.ok("-import", "-path", writeFile(t, strings.Replace(first, "DATABASE: db", "DATABASE: copy", 1)))
	if again := strings.Replace(export("copy"), "DATABASE: copy", "DATABASE: db", 1); again != first {
		t.Errorf("got\n%s\nwant\n%s", again, first)
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	o, err := parseFlags(append(w.addr, "-database", "db"), os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	c, err := connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(o, c, os.Stdout, os.Stderr)
	defer s.client.http.CloseIdleConnections()
	for line, want := range map[string]string{
		"sel":                      "SELECT",
		"SELECT us":                "usage USERS USER use",
		"SELECT mean(usa":          "usage",
		"SELECT * FROM cp":         "cpu",
		"SELECT * FROM cpu WHERE ": "",
		"use d":                    "db DESC DATABASES DATABASE DURATION DEFAULT DROP DELETE distinct(",
	} {
		head, words, tail := s.words.complete(line+"|", len(line))
		if got := strings.Join(words, " "); got != want || tail != "|" || !strings.HasPrefix(line, head) {
			t.Errorf("%q: got %q, want %q (%q %q)", line, got, want, head, tail)
		}
	}
}

func TestPasswordsAreNotKept(t *testing.T) {
	for line, want := range map[string]bool{
		"auth root hunter2":                          true,
		"  AUTH root hunter2":                        true,
		"CREATE USER u WITH PASSWORD 'x'":            true,
		"set password for u = 'x'":                   true,
		"SELECT auth FROM cpu":                       false,
		"SHOW DATABASES":                             false,
		"create user u with\tpassWord 'x' WITH ALL ": true,
	} {
		if got := secret(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func decoder(text string) *json.Decoder { return json.NewDecoder(strings.NewReader(text)) }

func TestFindError(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{`{"results":[{"statement_id":0}]}`, ""},
		{`{"error":"bad"}`, "bad"},
		{`{"results":[{"statement_id":0,"series":[{"name":"error","columns":["error","x"],"values":[["error","y"]]}]},{"error":"late"},{"error":"later"}]}`, "late"},
		{`{"results":[{"error":"error"}],"x":["error","a"]}`, "error"},
		{`{"results":[{"messages":[{"level":"error","text":"t"}]}]}`, ""},
	} {
		if got, err := findError(decoder(c.doc)); err != nil || got != c.want {
			t.Errorf("%s: %q %v", c.doc, got, err)
		}
	}
	if _, err := findError(decoder(`{"results":[{"error"`)); err == nil {
		t.Error("half an answer is none")
	}
}
