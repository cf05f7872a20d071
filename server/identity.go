package server

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/wal"
)

// founder is the replica of the meta group on the node that founds a cluster,
// and its first ids.
const (
	founder     dsdb.ReplicaID = 1
	founderMeta dsdb.NodeID    = 1
	founderData dsdb.NodeID    = 2
)

// lockFolders makes the node's folders and takes their locks, so that no two
// processes ever write to one.
func (n *Node) lockFolders() error {
	for _, dir := range []string{n.cfg.Meta.Dir, n.cfg.Data.Dir, path.Join(n.cfg.Data.Dir, "shard"), n.cfg.Data.WALDir} {
		if err := n.fs.MkdirAll(dir); err != nil {
			return fmt.Errorf("folder %s: %w", dir, err)
		}
	}
	release, err := n.fs.Lock(path.Join(n.cfg.Meta.Dir, "lock"))
	if at := new(iofs.PathError); errors.As(err, &at) { // the file cannot be made or opened
		return fmt.Errorf("folder %s: %w", n.cfg.Meta.Dir, err)
	}
	if err != nil {
		return fmt.Errorf("%s is in use by another dsdbd: stop that one, or give this one other folders: %w", n.cfg.Meta.Dir, err)
	}
	n.onClose(release)
	return nil
}

// identity reads who this node is, or makes a new identity for new folders,
// that of no cluster yet. A folder that knows points but no identity has lost a
// file: it is refused.
func (n *Node) identity() (meta.Identity, error) {
	id, err := meta.ReadIdentity(n.fs, n.cfg.Meta.Dir)
	if err == nil && id.Refused != "" {
		return id, dsdb.Errorf(dsdb.KindConflict, "%s was refused before: %s", n.cfg.Meta.Dir, id.Refused)
	}
	if err == nil && id.ClusterID != 0 {
		return id, n.checkDataFolder(id)
	}
	if dsdb.KindOf(err) == dsdb.KindCorrupt {
		return id, dsdb.Errorf(dsdb.KindCorrupt, "%w: the file is damaged: move it away and have dsdbd recover make it anew from what %s knows of it", err, n.cfg.Data.Dir)
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return id, err
	}
	if err := n.lostMeta(); err != nil && !mutant.BlankMetaAccepted {
		return id, err
	}
	if id.UUID == "" {
		id.UUID = newUUID()
	}
	return id, nil
}

// settle writes the identity of a node that has become a member of a cluster.
func (n *Node) settle(id meta.Identity) error {
	if err := meta.WriteIdentity(n.fs, n.cfg.Data.Dir, id); err != nil {
		return err
	}
	return meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, id)
}

// begin counts this start, durably.
func (n *Node) begin(id meta.Identity) error {
	id.Epoch++
	n.id, n.dataID = id, id.DataID
	n.door.admitter.member.Store(&id)
	return n.makeRoom(func() error { return meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, id) })
}

// makeRoom runs a write of small files, and again if there is no space for it and the
// log can give some: it is kept for this. The log takes it again when there is more.
func (n *Node) makeRoom(write func() error) error {
	err := write()
	if !vfs.NoSpace(err) {
		return err
	}
	yield := func() (bool, error) { return wal.Yield(n.fs, n.cfg.Data.WALDir) }
	if n.wal != nil {
		yield = n.wal.Yield
	}
	if made, why := yield(); why != nil || !made {
		return errors.Join(err, why)
	}
	return write()
}

// renounce writes down that the cluster has refused the folders of this node, and
// returns why: each start counts, and one day would count more than the latest
// that the cluster has seen.
func (n *Node) renounce(why error) error {
	id := n.id
	id.Refused = why.Error()
	if err := meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, id); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// checkDataFolder makes sure that the folder of the points is this node's.
func (n *Node) checkDataFolder(id meta.Identity) error {
	got, err := meta.ReadIdentity(n.fs, n.cfg.Data.Dir)
	if dsdb.KindOf(err) == dsdb.KindCorrupt {
		return dsdb.Errorf(dsdb.KindCorrupt, "data.dir: %w: the file is damaged: if the folder belongs to the one of %s, copy that file there", err, path.Join(n.cfg.Meta.Dir, meta.IdentityFile))
	}
	if errors.Is(err, iofs.ErrNotExist) {
		return n.lostData(id)
	}
	if err != nil {
		return fmt.Errorf("data.dir: %w", err)
	}
	if got.UUID != id.UUID || got.ClusterID != id.ClusterID {
		return fmt.Errorf("%s belongs to node %s, %s to node %s: give both folders of one node", n.cfg.Meta.Dir, id.UUID, n.cfg.Data.Dir, got.UUID)
	}
	return nil
}

// randomID returns a random positive number.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return binary.LittleEndian.Uint64(b[:])>>1 | 1
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return textUUID(b)
}

// textUUID returns a UUID as text.
func textUUID(b [16]byte) string {
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// compact returns a UUID without its hyphens.
func compact(uuid string) string { return strings.ReplaceAll(uuid, "-", "") }
