package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/wal"
)

// Unidentified returns what of a node's folders Recover is to make anew, since it does
// not say whose it is; "" if Recover has nothing to do.
func Unidentified(cfg config.Config, fs vfs.FS) string {
	if _, err := fs.Stat(path.Join(cfg.Meta.Dir, meta.IdentityFile)); err != nil {
		return cfg.Meta.Dir
	}
	file := path.Join(cfg.Data.Dir, meta.IdentityFile)
	if held, _ := holdsPoints(fs, cfg.Data.Dir); held { // if it cannot be read, whoever starts the node is told why
		if _, err := fs.Stat(file); err != nil {
			return file
		}
	}
	return ""
}

// Recover makes anew what says whose the folders of a node are, where one of them has
// lost it. The node must not run.
//
// The folder of the catalogue, if it is lost, is made from what the folder of the points
// has of it: who the node is, which the log tells too, and a copy of the catalogue.
// What has changed since is in the log. The node's next start is refused by the others
// if they have seen a later one than the copy has: then all of its folders are old. The
// folder of the points lacks no more than the file that the other folder has, too.
func Recover(cfg config.Config, fs vfs.FS) (err error) {
	n := &Node{cfg: cfg, fs: fs}
	if err := n.lockFolders(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.undo()) }()
	id, err := meta.ReadIdentity(fs, cfg.Meta.Dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return n.recoverMeta()
	}
	if lost := Unidentified(cfg, fs); lost == "" || err != nil || id.ClusterID == 0 {
		return fmt.Errorf("%s has a %s: it is not lost, and is left as it is", cfg.Meta.Dir, meta.IdentityFile)
	}
	return n.recoverData(id)
}

// recoverMeta makes the folder of the catalogue anew.
func (n *Node) recoverMeta() error {
	dir := n.cfg.Data.Dir
	id, err := meta.ReadIdentity(n.fs, dir)
	if errors.Is(err, iofs.ErrNotExist) {
		id, err = n.logOwner()
	}
	if err != nil {
		return fmt.Errorf("%s does not say whose it is: %w", dir, err)
	}
	d, err := meta.RestoreCopy(n.fs, dir, n.catalogueDir())
	if err != nil {
		return err
	}
	self, found := d.Process(id.UUID)
	replica, has := d.MetaReplica(self)
	if !found || !has || d.ClusterID != id.ClusterID {
		return fmt.Errorf("the catalogue in %s does not know node %s, whose folder that is", dir, id.UUID)
	}
	id.MetaID, id.DataID, id.Replica = self.MetaID, self.DataID, replica.ID
	id.Epoch, id.Begun = self.Epoch, true
	return n.settle(id)
}

// logOwner returns as much of who the node is as its log says.
func (n *Node) logOwner() (id meta.Identity, err error) {
	cluster, node, err := wal.Owner(n.fs, n.cfg.Data.WALDir)
	if err != nil {
		return id, err
	}
	id.ClusterID, id.UUID = binary.LittleEndian.Uint64(cluster[:]), textUUID(node)
	return id, nil
}

// recoverData has the folder of the points say again whose it is.
func (n *Node) recoverData(id meta.Identity) error {
	dir := n.cfg.Data.Dir
	d, err := meta.ReadCopy(n.fs, dir)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if err == nil && d.ClusterID != id.ClusterID {
		return fmt.Errorf("%s belongs to a node of cluster %d, %s to one of cluster %d: give both folders of one node", dir, d.ClusterID, n.cfg.Meta.Dir, id.ClusterID)
	}
	return meta.WriteIdentity(n.fs, dir, id)
}
