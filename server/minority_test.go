package server

import (
	"fmt"
	"testing"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/rpc"
)

// Once a drop is answered, no node takes points for what was dropped: they would
// be acknowledged and gone.
func TestEveryNodeKnowsOfADropThatIsAnswered(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	for i := range 12 {
		m := nodes[i%3]
		m.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
		m.mustWrite("db", fmt.Sprintf("m v=%d 1", i))
		id := m.node.meta.View().GroupFor("db", "", 1).Shards[0].ID
		m.mustQuery("", []string{"DROP DATABASE db", fmt.Sprintf("DROP SHARD %d; DROP DATABASE db", id)}[i%2])
		for j, other := range nodes {
			if !other.node.meta.View().ShardDropped(id) {
				t.Errorf("round %d: node %d would take points of shard %d", i, j, id)
			}
		}
	}
}

// In an upgrade node by node, older programs ask for the catalogue without saying
// what it is to include: they are answered as before.
func TestOlderProgramsAskForTheCatalogue(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	for _, body := range [][]byte{nil, appendNumber(nil, 1)} {
		b, err := c.node.serveCatalogue(t.Context(), rpc.Process{}, body)
		if err != nil {
			t.Fatal(err)
		}
		if index, err := decodeNumber(b); err != nil || index != c.node.meta.View().Index {
			t.Errorf("%v: %d %v", body, index, err)
		}
	}
	if _, err := c.node.serveCatalogue(t.Context(), rpc.Process{}, []byte("what?")); err == nil {
		t.Error("a body that is no number is taken for one")
	}
}
