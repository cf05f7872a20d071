package meta

import (
	"errors"
	iofs "io/fs"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// A store that is opened where a copy was restored is as it was when the copy was
// made; a copy that is missing or damaged is told of, and restores nothing.
func TestCopyIsRestored(t *testing.T) {
	fs := vfs.NewMem(1)
	for _, dir := range []string{"meta", "data"} {
		if err := fs.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := RestoreCopy(fs, "data", "again"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("without a copy: %v", err)
	}
	s, err := Open(fs, "meta")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []Command{&CreateCluster{ID: 7}, &JoinCluster{UUID: "u", Meta: true, Data: true, Addresses: Addresses{TCPAddr: "a:1"}}, &CreateDatabase{Name: "db"}} {
		if _, err := s.Apply([]dsdb.Entry{{Index: uint64(i + 1), Term: 1, Data: Encode(dsdb.ProposalID{}, c)}}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := errors.Join(s.Flush(), s.WriteCopy("data")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	d, err := RestoreCopy(fs, "data", "again")
	if err != nil || d.Index != 3 || d.Database("db") == nil {
		t.Fatalf("restored %+v, error %v", d, err)
	}
	again, err := Open(fs, "again")
	if err != nil || again.FlushedIndex() != 3 || string(again.View().AppendSnapshot(nil)) != string(s.View().AppendSnapshot(nil)) {
		t.Errorf("the store is at %d, error %v", again.FlushedIndex(), err)
	}

	b, err := vfs.ReadFile(fs, "data/"+CopyFile)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := vfs.WriteFileAtomic(fs, "data/"+CopyFile, b); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreCopy(fs, "data", "third"); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("a damaged copy: %v", err)
	}
	if _, err := fs.List("third"); err == nil {
		t.Error("a damaged copy made a folder")
	}
}
