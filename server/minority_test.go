package server

import (
	"fmt"
	"testing"
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
