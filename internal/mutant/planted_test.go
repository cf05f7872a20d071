//go:build mutants

package mutant

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var only = flag.String("mutant", "", "plant this one alone")

// limit is how long a test may take; one that takes longer has found nothing.
const limit = 2 * time.Minute

// What the tests of a package want besides: the tag that they are built with,
// and flags, so that they do not wait long for what a mutant keeps from happening,
// or run enough seeds for it to happen.
var (
	tags  = map[string]string{"internal/chaos": "upgrade"}
	flags = map[string]string{"server": "-patience=20s", "internal/sim": "-seeds=60 -stores=40"}
)

// TestMutants plants one bug after the other and has it found by the test that
// is named for it, which must pass without. It prints the table.
func TestMutants(t *testing.T) {
	todo := slices.DeleteFunc(slices.Clone(hunts), func(h hunt) bool { return *only != "" && h.mutant != *only })
	if len(todo) == 0 {
		t.Fatalf("there is no mutant %s", *only)
	}
	bins := map[string]string{}
	for _, pkg := range packages(todo) {
		bins[pkg] = build(t, pkg)
		passes(t, bins[pkg], pkg, todo)
	}
	took := make([]time.Duration, len(todo))
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, h := range todo {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			began := time.Now()
			if out, err := run(bins[h.pkg], h.pkg, h.test, h.mutant); !found(out, err) {
				t.Errorf("mutant %s is not found by ./%s %s: %v\n%s", h.mutant, h.pkg, h.test, err, tail(out))
			}
			took[i] = time.Since(began)
		})
	}
	all.Wait()
	sizes := planted(t)
	table := fmt.Sprintf("%-31s %5s %8s  %s\n", "mutant", "lines", "found in", "by")
	for i, h := range todo {
		table += fmt.Sprintf("%-31s %5d %7.2fs  ./%s %s\n", h.mutant, sizes[name(h.mutant)], took[i].Seconds(), h.pkg, h.test)
	}
	t.Logf("%d hunts for %d mutants\n%s", len(todo), len(Names), table)
}

// packages returns the packages of hunts, each once, in their order.
func packages(todo []hunt) (list []string) {
	for _, h := range todo {
		if !slices.Contains(list, h.pkg) {
			list = append(list, h.pkg)
		}
	}
	return list
}

// passes makes sure that the tests of a package which hunt pass without a mutant.
func passes(t *testing.T, bin, pkg string, todo []hunt) {
	var tests []string
	for _, h := range todo {
		if h.pkg == pkg && !slices.Contains(tests, h.test) {
			tests = append(tests, h.test)
		}
	}
	out, err := run(bin, pkg, strings.Join(tests, "|"), "")
	for _, test := range tests {
		if !strings.Contains(out, "--- PASS: "+test+" ") {
			t.Fatalf("./%s %s does not pass without a mutant: %v\n%s", pkg, test, err, tail(out))
		}
	}
}

// found reports whether a test has failed, by itself.
func found(out string, err error) bool {
	return err != nil && !strings.Contains(out, "panic: test timed out") && regexp.MustCompile(`(?m)^(--- FAIL|panic: )`).MatchString(out)
}

// build compiles the tests of a package with all mutants in them.
func build(t *testing.T, pkg string) string {
	bin := filepath.Join(t.TempDir(), "tests")
	out, err := exec.Command("go", "test", "-tags", strings.Trim(Tag+","+tags[pkg], ","), "-c", "-o", bin, "../../"+pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// run runs the tests that a pattern names, with a mutant.
func run(bin, pkg, tests, mutant string) (string, error) {
	args := append([]string{"-test.v", "-test.timeout=" + fmt.Sprint(limit), "-test.run=^(" + tests + ")$"}, strings.Fields(flags[pkg])...)
	cmd := exec.Command(bin, args...)
	cmd.Dir = filepath.Join("../..", pkg)
	cmd.Env = append(os.Environ(), "DSDB_MUTANT="+mutant)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
