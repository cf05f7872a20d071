package dsdb_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dasudian/dsdb"

// floors is the floor table of ARCHITECTURE.md as data. A package may import
// packages of lower floors only, and of the world beyond the standard library
// only what its row allows.
var floors = []struct {
	floor    int
	packages string
	imports  string // path prefixes of other modules
}{
	{0, ". column internal/dedupe internal/mutant internal/vfs internal/wire", ""}, // may all import the root
	{1, "ql", "github.com/influxdata/influxql"},
	{1, "lineproto meta series wal", ""},
	{1, "segment", "github.com/apache/arrow/go/v15 github.com/klauspost/compress"},
	{2, "raftnode", "go.etcd.io/raft/v3 google.golang.org/protobuf"},
	{2, "shard", ""},
	{2, "planner", "github.com/influxdata/influxql"},
	{3, "exec", "github.com/apache/arrow/go/v15"},
	{4, "server/config", "github.com/BurntSushi/toml"},
	{4, "server/httpd", "github.com/influxdata/influxql github.com/klauspost/compress github.com/prometheus/client_golang github.com/tinylib/msgp github.com/golang-jwt/jwt"},
	{4, "server/coord server/hints server/rpc server/tasks", ""},
	{5, "server", "github.com/influxdata/influxql github.com/prometheus/client_golang golang.org/x/crypto"},
	{6, "bench", "github.com/HdrHistogram/hdrhistogram-go golang.org/x/sys"},
	{6, "internal/chaos internal/sim", ""},
	{7, "cmd/dsdbd cmd/dsdb cmd/dsdb-bench", "*"},
}

// bans are imports that the floors alone would allow: storage never imports
// the query language, and the catalogue, shards and the log never import raft.
var bans = map[string][]string{
	"ql planner influxql": {"shard", "segment", "series", "wal"},
	"go.etcd.io/raft":     {"meta", "shard", "wal"},
	"shard segment wal":   {"server/httpd"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Doc        string
}

func TestPackagesImportLowerFloorsOnly(t *testing.T) {
	floor, allowed := map[string]int{}, map[string]string{}
	for _, row := range floors {
		for _, p := range strings.Fields(row.packages) {
			floor[p], allowed[p] = row.floor, row.imports
		}
	}
	seen := map[string]bool{}
	for _, p := range list(t) {
		name := short(p.ImportPath)
		seen[name] = true
		at, ok := floor[name]
		if !ok {
			t.Errorf("package %s stands on no floor: give it a row in arch_test.go and ARCHITECTURE.md", name)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, name, imp, at, floor, allowed[name])
		}
	}
	for p := range floor {
		if !seen[p] {
			t.Errorf("arch_test.go names package %s, which does not exist", p)
		}
	}
}

func checkImport(t *testing.T, name, imp string, at int, floor map[string]int, allowed string) {
	if inModule := imp == module || strings.HasPrefix(imp, module+"/"); inModule {
		if floor[short(imp)] >= at && !(at == 0 && imp == module) {
			t.Errorf("%s (floor %d) imports %s (floor %d)", name, at, short(imp), floor[short(imp)])
		}
	} else if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && allowed != "*" {
		if !slices.ContainsFunc(strings.Fields(allowed), func(a string) bool { return imp == a || strings.HasPrefix(imp, a+"/") }) {
			t.Errorf("%s imports %s, which its row does not allow", name, imp)
		}
	}
	for what, who := range bans {
		if slices.Contains(who, name) && slices.ContainsFunc(strings.Fields(what), func(w string) bool {
			return short(imp) == w || strings.Contains(imp, "/"+w) || strings.HasPrefix(imp, w)
		}) {
			t.Errorf("%s must never import %s", name, imp)
		}
	}
}

// Every package begins with a comment that says what it is.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range list(t) {
		if len(strings.Fields(p.Doc)) < 5 {
			t.Errorf("package %s has no package comment worth reading", short(p.ImportPath))
		}
	}
}

// The page names every package, so that a newcomer finds the way.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list(t) {
		if n := short(p.ImportPath); n != "." && !regexp.MustCompile("`"+regexp.QuoteMeta(n)+"/?`").Match(page) {
			t.Errorf("ARCHITECTURE.md does not name `%s`", n)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	const most = 700
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if n := strings.Count(string(text), "\n"); n > most && !strings.Contains(string(text), "DO NOT EDIT") {
			t.Errorf("%s has %d lines; split it by verb", path, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Doc", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}
