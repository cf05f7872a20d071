package server

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// Identified reports whether the folder of the catalogue of a node says who it is,
// so that Recover has nothing to do.
func Identified(cfg config.Config, fs vfs.FS) bool {
	_, err := fs.Stat(path.Join(cfg.Meta.Dir, meta.IdentityFile))
	return err == nil
}

// Recover makes the folder of the catalogue of a node anew, which has been lost,
// from what the folder of the points has of it: who the node is, and a copy of the
// catalogue. What has changed since is in the log. The node must not run. Its next
// start is refused by the others if they have seen a later one than the copy has:
// then all of its folders are old.
func Recover(cfg config.Config, fs vfs.FS) (err error) {
	n := &Node{cfg: cfg, fs: fs}
	if err := n.lockFolders(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.undo()) }()
	if _, err := meta.ReadIdentity(fs, cfg.Meta.Dir); !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("%s has a %s: it is not lost, and is left as it is", cfg.Meta.Dir, meta.IdentityFile)
	}
	id, err := meta.ReadIdentity(fs, cfg.Data.Dir)
	if err != nil {
		return fmt.Errorf("%s does not say whose it is: %w", cfg.Data.Dir, err)
	}
	d, err := meta.RestoreCopy(fs, cfg.Data.Dir, n.catalogueDir())
	if err != nil {
		return err
	}
	self, found := d.Process(id.UUID)
	replica, has := d.MetaReplica(self)
	if !found || !has || d.ClusterID != id.ClusterID {
		return fmt.Errorf("the catalogue in %s does not know node %s, whose folder that is", cfg.Data.Dir, id.UUID)
	}
	id.MetaID, id.DataID, id.Replica = self.MetaID, self.DataID, replica.ID
	id.Epoch, id.Begun = self.Epoch, true
	return meta.WriteIdentity(fs, cfg.Meta.Dir, id)
}
