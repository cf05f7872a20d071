package mutant

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is how many lines of the program one mutant may take.
const maxLines = 10

// Both builds have the same mutants. Each is planted somewhere, in a few lines,
// and hunted, those that the design names among them.
func TestEachMutantIsPlantedAndHunted(t *testing.T) {
	constants := names(t, "mutant.go", `(?m)^\t([A-Z]\w+) += false // \w`)
	variables := names(t, "planted.go", `(?m)^\t([A-Z]\w+) += plant\("[a-z0-9-]+"\)`)
	if len(constants) < 20 || !slices.Equal(constants, variables) {
		t.Errorf("%d constants %v\n%d variables %v", len(constants), constants, len(variables), variables)
	}
	lines := planted(t)
	for _, name := range constants {
		if n := lines[name]; n == 0 || n > maxLines {
			t.Errorf("mutant %s takes %d lines of the program, want 1 to %d", name, n, maxLines)
		}
	}
	hunted := map[string]bool{}
	for _, h := range hunts {
		hunted[name(h.mutant)] = true
	}
	for _, n := range constants {
		if !hunted[n] {
			t.Errorf("mutant %s is not hunted", n)
		}
	}
	if len(hunted) > len(constants) {
		t.Errorf("%d mutants are hunted, and there are %d", len(hunted), len(constants))
	}
	for _, n := range gate {
		if !hunted[name(n)] {
			t.Errorf("mutant %s of the gate is not hunted", n)
		}
	}
}

// For each of the pains of other clusters there is a test with its number in its
// name, which is known to fail without what we do about it.
func TestEachPainIsHunted(t *testing.T) {
	for _, n := range pains {
		number := regexp.MustCompile(fmt.Sprintf(`^Test(S\d+)?C%d[A-Z]`, n))
		if !slices.ContainsFunc(hunts, func(h hunt) bool { return number.MatchString(h.test) }) {
			t.Errorf("no mutant is hunted by a test of C%d", n)
		}
	}
}

// name returns the name of the constant of a mutant.
func name(mutant string) string { return identifiers[mutant] }

// identifiers are the constants by the names of the mutants.
var identifiers = func() map[string]string {
	text, _ := os.ReadFile("planted.go") // what is missing then is missed by every test
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z]\w+) += plant\("([a-z0-9-]+)"\)`).FindAllStringSubmatch(string(text), -1) {
		out[m[2]] = m[1]
	}
	return out
}()

// planted returns how many lines of the program each mutant takes.
func planted(t *testing.T) map[string]int {
	t.Helper()
	lines := map[string]int{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "../../internal/mutant" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "mutant.") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, 0)
		if err != nil {
			return err
		}
		count(file, files, lines)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// count adds up the lines of a file that belong to mutants: all of a statement
// that is there for one, else the line in which it is named.
func count(file *ast.File, files *token.FileSet, lines map[string]int) {
	span := func(n ast.Node) int { return files.Position(n.End()).Line - files.Position(n.Pos()).Line + 1 }
	whole := map[ast.Node]int{} // lines of the statement for whose sake a mutant is named
	ast.Inspect(file, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.IfStmt:
			if first := leftmost(s.Cond); isMutant(first) {
				whole[first] = span(s)
			}
		case *ast.ForStmt:
			if first := leftmost(s.Cond); isMutant(first) {
				whole[first] = span(s)
			}
		case *ast.CaseClause:
			if len(s.List) == 1 && isMutant(leftmost(s.List[0])) {
				whole[leftmost(s.List[0])] = span(s)
			}
		}
		if isMutant(n) {
			lines[n.(*ast.SelectorExpr).Sel.Name] += max(1, whole[n])
		}
		return true
	})
}

// leftmost returns what decides first in a condition.
func leftmost(e ast.Expr) ast.Expr {
	for {
		b, ok := e.(*ast.BinaryExpr)
		if !ok {
			return e
		}
		e = b.X
	}
}

func isMutant(n ast.Node) bool {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "mutant"
}

// names returns what the first group of a pattern matches in a file.
func names(t *testing.T, path, pattern string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	return found
}
