package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// A node with lost folders is refused at its old address, and takes its own
// place when told to.
func TestWipedFoldersAreRefused(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	lost := nodes[2].node.id.MetaID
	stranger := newMachine(t, joins(nodes[0]))
	stranger.replace = lost
	stranger.refused(fmt.Sprintf("node %d, which is to be replaced, runs", lost))
	nodes[2].halt()
	empty := newMachine(t)
	empty.cfg = nodes[2].cfg
	empty.refused(fmt.Sprintf("belongs to node %d", lost), fmt.Sprintf("--replace %d", lost))
	empty.replace = lost
	empty.start()
	if servers := agree(t, nodes[0], nodes[1], empty); strings.Count(servers, empty.cfg.Meta.BindAddress) != 2 {
		t.Errorf("%s should be there with both roles:\n%s", empty.cfg.Meta.BindAddress, servers)
	}
	old := nodes[2]
	old.cfg.Meta.BindAddress, old.cfg.Meta.HTTPBindAddress, old.cfg.HTTP.BindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	old.refused("was replaced by")
}

// A node that was a cluster of its own does not pretend to have joined another.
func TestFoldersOfAnotherClusterAreRefused(t *testing.T) {
	t.Parallel()
	first, second := newMachine(t).start(), newMachine(t).start()
	second.halt()
	joins(first)(&second.cfg)
	second.refused(fmt.Sprintf("are of cluster %d, but %s", second.node.id.ClusterID, first.cfg.Meta.HTTPBindAddress), "move the folders away")
	second.cfg.Meta.Join = ""
	second.start()
}

// A node that lost its log, but not who it is, must not vote a second time.
func TestLostLogIsRefused(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[1].halt()
	if err := nodes[1].fs.RemoveAll("/node/wal"); err != nil {
		t.Fatal(err)
	}
	nodes[1].refused("lost the log", fmt.Sprintf("--replace %d", nodes[1].node.id.MetaID))
}

// Copies of a node's folders are refused: beside the node, and, as a backup that
// was restored, when the node has been started since. The others go on without.
func TestS13CopiedFoldersAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newMachine(t).start()
	m := newMachine(t, joins(first))
	m.fs = vfs.OS()
	at := func(c *config.Config, name string) {
		c.Meta.Dir, c.Data.Dir, c.Data.WALDir = dir+"/"+name+"/meta", dir+"/"+name+"/data", dir+"/"+name+"/wal"
	}
	at(&m.cfg, "original")
	m.start()
	third := newMachine(t, joins(first)).start()
	allVote(t, first, m, third)
	m.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	m.mustWrite("db", "m v=1 0")
	settled(t, []*machine{first, m, third}, 3)
	m.halt()
	copied := func(name string) *machine {
		t.Helper()
		if err := os.CopyFS(dir+"/"+name, os.DirFS(dir+"/original")); err != nil {
			t.Fatal(err)
		}
		c := newMachine(t)
		c.fs = vfs.OS()
		at(&c.cfg, name)
		return c
	}
	clone, old, restored := copied("clone"), copied("old"), copied("restored")
	restored.cfg.HTTP.BindAddress, restored.cfg.Meta.BindAddress, restored.cfg.Meta.HTTPBindAddress = m.cfg.HTTP.BindAddress, m.cfg.Meta.BindAddress, m.cfg.Meta.HTTPBindAddress
	m.start()
	clone.refused("the folders of this one are a copy")
	copied("live").refused("the folders of this one are a copy")                                  // though its start counts as a later one
	if cluster := first.mustQuery("", "SHOW CLUSTER"); strings.Count(cluster, "status=up") != 3 { // whose folders were copied is as before
		t.Errorf("%s\n%s", cluster, first.log)
	}
	m.mustWrite("db", "m v=1 9")
	m.halt()
	m.start()
	m.halt()
	for range 3 { // each start counts
		clone.refused("was refused before", "the folders of this one are a copy")
		old.refused("are an older copy", "--replace")
		restored.refused("are an older copy", "--replace")
	}
	for _, o := range []*machine{first, third} {
		o.mustWrite("db", fmt.Sprintf("m v=1 %d", o.node.id.MetaID))
		if strings.Contains(o.log.String(), "panic") {
			t.Errorf("%s", o.log)
		}
	}
	m.start()
	m.expect("db", "SELECT count(v) FROM m", "m time=0 count=4")
}

// A damaged identity file is said to be one, and with what helps: which does.
func TestDamagedIdentityIsMended(t *testing.T) {
	disk, cfg := vfs.NewMem(1), quietConfig()
	c := open(t, disk, cfg)
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m v=1 1")
	c.close()
	mine, copied := path.Join(cfg.Meta.Dir, meta.IdentityFile), path.Join(cfg.Data.Dir, meta.IdentityFile)
	whole, err := vfs.ReadFile(disk, mine)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(name string, words string) {
		t.Helper()
		for _, bad := range [][]byte{nil, whole[:len(whole)/2], bytes.Replace(whole, []byte("id"), []byte("ib"), 1)} {
			if err := vfs.WriteFileAtomic(disk, name, bad); err != nil {
				t.Fatal(err)
			}
			_, err := tryOpen(t, disk, cfg)
			wantError(t, err, dsdb.KindCorrupt, name)
			wantError(t, err, dsdb.KindCorrupt, words)
		}
	}
	damage(copied, "copy that file there")
	if err := vfs.WriteFileAtomic(disk, copied, whole); err != nil {
		t.Fatal(err)
	}
	damage(mine, "dsdbd recover")
	if err := errors.Join(disk.Remove(mine), Recover(cfg, disk)); err != nil {
		t.Fatal(err)
	}
	c = open(t, disk, cfg)
	c.expect("db", "SELECT v FROM m", "m time=1 v=1")
	c.close()
}
