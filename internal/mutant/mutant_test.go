package mutant

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Both builds have the same mutants, and each is planted somewhere.
func TestEachMutantIsPlanted(t *testing.T) {
	constants := matches(t, "mutant.go", `(?m)^\t([A-Z]\w+) += false // \w`)
	if variables := matches(t, "planted.go", `(?m)^\t([A-Z]\w+) += planted\("[a-z-]+"\)`); len(constants) < 20 || !slices.Equal(constants, variables) {
		t.Errorf("%d constants %v\n%d variables %v", len(constants), constants, len(variables), variables)
	}
	used := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && filepath.Dir(path) != "../../internal/mutant" {
			for _, name := range matches(t, path, `\bmutant\.([A-Z]\w+)`) {
				used[name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range constants {
		if !used[name] {
			t.Errorf("mutant %s is planted nowhere", name)
		}
	}
}

// matches returns what the first group of a pattern matches in a file.
func matches(t *testing.T, path, pattern string) (names []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	return names
}
