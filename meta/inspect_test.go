package meta

import (
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// A person reads in a snapshot who is in the cluster and what is where.
func TestInspect(t *testing.T) {
	d := NewData()
	for _, c := range []Command{
		&CreateCluster{ID: 77},
		&JoinCluster{UUID: "one", Meta: true, Data: true, Addresses: addresses("influx1"), Epoch: 3},
		&JoinCluster{UUID: "two", Data: true, Addresses: addresses("influx2"), Epoch: 1},
		&CreateDatabase{Name: "db"},
		&EnsureShardGroups{Database: "db", Times: []int64{0}, Now: 1},
		&RegisterFields{Database: "db", Sets: []NewFields{{Measurement: "cpu", Times: []int64{0}, Fields: []Field{{Name: "v", Type: dsdb.Float}}}}},
		&CreateUser{Name: "root", Hash: "$2a$", Admin: true},
		&CreateUser{Name: "bob", Hash: "$2a$"},
		&SetPrivilege{User: "bob", Database: "db", Privilege: ReadPrivilege},
		&DropNode{ID: 3, Kind: DataNode},
	} {
		next, v := d.Apply(Encode(dsdb.ProposalID{}, c))
		if v.Err() != nil {
			t.Fatalf("%s: %v", c.op(), v.Err())
		}
		d = next
	}
	fs := vfs.NewMem(1)
	if err := vfs.WriteFileAtomic(fs, "/snap", d.WithoutHashes().AppendSnapshot(nil)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Inspect(fs, "/snap", &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"cluster 77, as of entry 0 of term 0",
		"last ids: node 3, database 1, shard group 1, shard 2,",
		"process one: meta node 1 (active) data node 2 (active), http influx1:8086, meta influx1:8091, tcp influx1:8088, start 3",
		"process two: data node 3 (leaving), http influx2:8086",
		"replicas of the catalogue: 1@1 2@3 (learner)",
		"user \"bob\", READ on \"db\"\nuser \"root\", admin\n",
		"database \"db\", default policy \"autogen\"",
		"  policy \"autogen\": 2 replicas, duration 0s, shard duration 168h0m0s, 0 deleted time groups",
		"    time group 1 from 1969-12-29T00:00:00Z to 1970-01-05T00:00:00Z",
		"      shard 1: ",
		"      measurement \"cpu\": v float",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if d.User("root").Hash == "" {
		t.Error("the catalogue itself has lost a hash")
	}
	b := d.AppendSnapshot(nil)
	b[len(b)/2]++
	if err := vfs.WriteFileAtomic(fs, "/snap", b); err != nil {
		t.Fatal(err)
	}
	if err := Inspect(fs, "/snap", &out); dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), "/snap") {
		t.Errorf("a damaged file: %v", err)
	}
}
