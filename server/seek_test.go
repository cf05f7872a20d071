package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/config"
)

// moved halts the machines and gives all of them addresses of their own.
func moved(t *testing.T, nodes []*machine) {
	t.Helper()
	for _, m := range nodes {
		m.halt()
		m.cfg.HTTP.BindAddress, m.cfg.Meta.BindAddress, m.cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	}
}

// comeBack starts the machines, which must find each other and what they held.
func comeBack(t *testing.T, nodes []*machine) {
	t.Helper()
	for _, m := range nodes {
		m.launch()
	}
	for _, m := range nodes {
		m.ready()
	}
	servers := agree(t, nodes...)
	for _, m := range nodes {
		if strings.Count(servers, m.cfg.Meta.BindAddress) != 2 {
			t.Errorf("%s is not there in both roles:\n%s", m.cfg.Meta.BindAddress, servers)
		}
		m.expect("db", "SELECT v FROM m", "m time=1 v=1")
	}
}

// filled starts three nodes with a point on all of them.
func filled(t *testing.T) []*machine {
	t.Helper()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m v=1 1")
	return nodes
}

// C14: a whole cluster comes back at other addresses, with the new list.
func TestC14AllAddressesChange(t *testing.T) {
	t.Parallel()
	nodes := filled(t)
	moved(t, nodes)
	for _, m := range nodes {
		joins(nodes...)(&m.cfg)
	}
	comeBack(t, nodes)
	if !slices.ContainsFunc(nodes, func(m *machine) bool {
		return strings.Contains(m.log.String(), "found a node of the cluster at another address")
	}) {
		t.Error("no log tells how they found each other")
	}
}

// It is enough that one of them is told where the others are: these hear of each
// other from it.
func TestC14OneNodeKnowsTheNewAddresses(t *testing.T) {
	t.Parallel()
	nodes := filled(t)
	moved(t, nodes)
	for _, m := range nodes {
		m.cfg.Meta.Join = ""
	}
	joins(nodes...)(&nodes[2].cfg)
	comeBack(t, nodes)
}

// The machines come back at each other's addresses, as after a lottery of leases.
func TestC14AddressesAreExchanged(t *testing.T) {
	t.Parallel()
	nodes := filled(t)
	first := nodes[0].cfg
	take := func(c *config.Config, from config.Config) {
		c.HTTP.BindAddress, c.Meta.BindAddress, c.Meta.HTTPBindAddress = from.HTTP.BindAddress, from.Meta.BindAddress, from.Meta.HTTPBindAddress
	}
	for i, m := range nodes {
		m.halt()
		if i+1 < len(nodes) {
			take(&m.cfg, nodes[i+1].cfg)
		} else {
			take(&m.cfg, first)
		}
	}
	comeBack(t, nodes)
}

// A node that is told an address of another cluster takes nobody there for one of
// its own, and goes on looking.
func TestOtherClustersAreNoHint(t *testing.T) {
	t.Parallel()
	nodes := filled(t)
	moved(t, nodes)
	stranger := newMachine(t).start()
	nodes[0].cfg.Meta.Join = ""
	nodes[0].launch()
	eventually(t, "it waits", func() bool { return strings.Contains(nodes[0].log.String(), "1/3 are reachable") })
	seen := nodes[0].cfg.Meta.HTTPBindAddress
	nodes[0].halt()
	joins(stranger)(&nodes[0].cfg)
	nodes[0].refused("but " + stranger.cfg.Meta.HTTPBindAddress)
	if strings.Contains(stranger.mustQuery("", "SHOW SERVERS"), seen) {
		t.Error("it has joined")
	}
}

// A node that was dropped and is sent nothing more of the catalogue, not even
// that, learns it from those who refuse it, and tells everybody who asks it.
func TestNodeThatIsNotSentItsDropLearnsOfIt(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m v=1 1")
	settled(t, nodes, 3)
	lost, id := nodes[2].node, nodes[2].node.id
	if err := lost.host.Detach(t.Context(), dsdb.MetaGroup); err != nil {
		t.Fatal(err)
	}
	nodes[0].mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE; DROP META SERVER %d", id.DataID, id.MetaID))
	why := fmt.Sprintf("node %d was dropped from the cluster", id.MetaID)
	eventually(t, "it learns why it is refused", func() bool { return strings.Contains(fmt.Sprint(lost.Ready(t.Context())), why) })
	_, err := nodes[2].query("db", "SELECT v FROM m")
	wantError(t, err, dsdb.KindUnavailable, why)
	_, err = nodes[2].query("", "CREATE DATABASE other")
	wantError(t, err, dsdb.KindUnavailable, why)
	wantError(t, nodes[2].write("db", "m v=2 2"), dsdb.KindUnavailable, why)
}
