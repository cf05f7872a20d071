package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// TestProposalTwiceHasOneEffect: a second copy of an entry in the log changes
// nothing and gets the first one's verdict, also after a restart from a snapshot.
func TestProposalTwiceHasOneEffect(t *testing.T) {
	fs := vfs.NewMem(1)
	s, err := Open(fs, "meta")
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(10)
	apply := func(seq uint64, c Command) dsdb.Verdict {
		t.Helper()
		index++
		id := dsdb.ProposalID{Node: 2, Epoch: 3, Seq: seq}
		v, err := s.Apply([]dsdb.Entry{{Index: index, Term: 1, Data: Encode(id, c)}})
		if err != nil {
			t.Fatal(err)
		}
		return v[0]
	}
	commands := []Command{&CreateCluster{ID: 7}, join("a"), join("b"), &DropUser{Name: "nobody"}, &CreateDatabase{Name: "db"}, &DropDatabase{Name: "db"}}
	first := make([]dsdb.Verdict, len(commands))
	for i, c := range commands {
		first[i] = apply(uint64(i+1), c)
	}
	check := func(when string) {
		t.Helper()
		for i, c := range commands {
			before := *s.View()
			if v := apply(uint64(i+1), c); fmt.Sprint(v) != fmt.Sprint(first[i]) {
				t.Errorf("%s: %s again: %+v, not %+v", when, c.op(), v, first[i])
			}
			after := *s.View()
			before.Index = after.Index
			if !bytes.Equal(before.AppendSnapshot(nil), after.AppendSnapshot(nil)) {
				t.Errorf("%s: %s again changed something", when, c.op())
			}
		}
	}
	check("at once")
	if first[1].Value == nil || first[3].Err() == nil {
		t.Fatalf("verdicts %+v are to have a value and a refusal", first)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(fs, "meta"); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	if v := apply(7, &CreateDatabase{Name: "db"}); v.Err() != nil || s.View().Database("db") == nil {
		t.Errorf("the next proposal: %+v", v)
	}
	if v := apply(7+2000, &DropDatabase{Name: "db"}); v.Err() != nil {
		t.Errorf("a later proposal: %+v", v)
	}
	if v := apply(1, &CreateDatabase{Name: "db"}); v.Kind != dsdb.KindTimeout || s.View().Database("db") != nil {
		t.Errorf("a proposal from below the window: %+v", v)
	}
}

// TestSnapshotOfAnotherVersionIsRefused: it is not taken for damage, and damage
// is not taken for it.
func TestSnapshotOfAnotherVersionIsRefused(t *testing.T) {
	b := NewData().AppendSnapshot(nil)
	b[len(snapshotMagic)]++
	if _, err := DecodeSnapshot("x", b); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("damaged: %v", err)
	}
	b = binary.LittleEndian.AppendUint32(b[:len(b)-4], checksum(b[:len(b)-4]))
	if _, err := DecodeSnapshot("x", b); dsdb.KindOf(err) != dsdb.KindInvalid {
		t.Errorf("newer: %v", err)
	}
}
