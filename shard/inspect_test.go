package shard

import (
	"errors"
	iofs "io/fs"
	"path"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Names knows what is in the folder's files: not what is only in memory, and
// not what was dropped.
func TestNamesOfFiles(t *testing.T) {
	m := newMachine(t, 1)
	if _, err := Names(m.fs, m.dir); !errors.Is(err, iofs.ErrNotExist) {
		t.Fatalf("a folder without a manifest: %v", err)
	}
	one := []field{{"v", dsdb.Float, "1"}}
	m.write([]point{{"cpu", dsdb.Tags{{Key: "host", Value: "a b"}}, 1, one}, {"mem", nil, 1, one}})
	m.delete(Delete{Measurements: []string{"mem"}, Range: testRange, DropSeries: true})
	m.flush()
	m.write([]point{{"disk", nil, 1, []field{{"used", dsdb.Integer, "1"}}}})
	names, err := Names(m.fs, m.dir)
	check(t, err)
	for _, c := range []struct{ got, want string }{
		{names.Measurement(1), "cpu"}, {names.Measurement(2), "#2"}, {names.Measurement(3), "#3"},
		{names.Field(1, 1), "v"}, {names.Field(3, 2), "#2"},
		{names.Series(1, 1), `cpu,host=a\ b`}, {names.Series(2, 2), "#2"}, {names.Series(3, 3), "#3"}, {names.Series(1, 0), "#0"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	m.flush()
	names, err = Names(m.fs, m.dir)
	check(t, err)
	if got := names.Measurement(3) + " " + names.Field(3, 2) + " " + names.Series(3, 3); got != "disk used disk" {
		t.Errorf("after the flush: %s", got)
	}
}

// A lost index file is an error that is not taken for a lone segment.
func TestNamesWithoutIndexFile(t *testing.T) {
	m := newMachine(t, 1)
	m.write([]point{{"cpu", nil, 1, []field{{"v", dsdb.Float, "1"}}}})
	m.flush()
	names, err := m.fs.List(m.dir)
	check(t, err)
	for _, name := range names {
		if path.Ext(name) == indexSuffix {
			check(t, m.fs.Remove(path.Join(m.dir, name)))
		}
	}
	if _, err := Names(m.fs, m.dir); err == nil || errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Names(vfs.NewMem(1), "/none"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
