package server

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/wal"
)

// A folder of a node can be empty because it is lost, or because its disk is not
// mounted. Nothing tells the one from the other; so a node that has started before
// does not start without what it had, and says which folder it misses and what helps
// in either case.

// lostMeta reports, of a node whose folder of the catalogue does not say who it is,
// what else is left of it; nil if nothing is: then it is new.
func (n *Node) lostMeta() error {
	left, err := n.leftBehind()
	if err != nil || len(left) == 0 {
		return err
	}
	c := n.cfg
	text := fmt.Sprintf("%s holds data, but %s has no %s: is its disk mounted, and is meta.dir the folder that belongs to it? ", left[0], c.Meta.Dir, meta.IdentityFile)
	if n.recoverable() {
		return fmt.Errorf("%sIf it is lost, have dsdbd recover make %s anew from what %s knows of it, or move all data away to start anew", text, c.Meta.Dir, c.Data.Dir)
	}
	return fmt.Errorf("%sNor does %s say who this node was: if both are lost, restore the folders from a copy, or move what is left away (%s); one of several nodes then takes its own place, and gets everything from the others, with -join and --replace, which wants the id that SHOW SERVERS has for it",
		text, c.Data.Dir, strings.Join(left, ", "))
}

// recoverable reports whether Recover can make the folder of the catalogue anew.
func (n *Node) recoverable() bool {
	if _, err := n.fs.Stat(path.Join(n.cfg.Data.Dir, meta.CopyFile)); err != nil {
		return false
	}
	_, err := meta.ReadIdentity(n.fs, n.cfg.Data.Dir)
	if errors.Is(err, iofs.ErrNotExist) {
		_, err = n.logOwner()
	}
	return err == nil
}

// leftBehind lists what there is only where a node has run.
func (n *Node) leftBehind() (left []string, err error) {
	for _, dir := range []string{path.Join(n.cfg.Data.Dir, "shard"), n.cfg.Data.WALDir, n.catalogueDir()} {
		names, err := n.fs.List(dir)
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return nil, err
		}
		if len(names) > 0 {
			left = append(left, dir)
		}
	}
	if _, err := n.fs.Stat(path.Join(n.cfg.Data.Dir, meta.CopyFile)); err == nil && len(left) == 0 {
		left = append(left, n.cfg.Data.Dir)
	}
	return left, nil
}

// errPointsLost is that the folder of the points is empty, though the node is not new.
var errPointsLost = errors.New("none of its points")

// lostData reports that the folder of the points does not say whose they are.
func (n *Node) lostData(id meta.Identity) error {
	dir := n.cfg.Data.Dir
	held, err := holdsPoints(n.fs, dir)
	if err != nil {
		return err
	}
	if held {
		return fmt.Errorf("data.dir: %s has no %s: is it the folder that belongs to %s, and is its disk mounted? If only that file is lost, have dsdbd recover make %[4]s anew",
			dir, meta.IdentityFile, n.cfg.Meta.Dir, path.Join(dir, meta.IdentityFile))
	}
	way := fmt.Sprintf("If they are lost for good, dsdbd recover -accept-loss has node %d go on without: copies come from the other nodes, as far as these have some", id.Peer())
	if n.logGone(id) && !n.lastOne(id) {
		way = fmt.Sprintf("If they are lost for good, and %s too, which is empty: %s", n.cfg.Data.WALDir, takeOwnPlace(id))
	}
	return fmt.Errorf("data.dir: %s is empty: it has no %s, and %w, though node %d has started before. If its disk is not mounted, mount it and start again. %s",
		dir, meta.IdentityFile, errPointsLost, id.Peer(), way)
}

// holdsPoints reports whether a folder is that of the points of some node.
func holdsPoints(fs vfs.FS, dir string) (bool, error) {
	if _, err := fs.Stat(path.Join(dir, meta.CopyFile)); err == nil {
		return true, nil
	}
	names, err := fs.List(path.Join(dir, "shard"))
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	return len(names) > 0, err
}

// logGone reports whether the folder of the log has none, though there was one.
func (n *Node) logGone(id meta.Identity) bool {
	there, err := wal.Exists(n.fs, n.cfg.Data.WALDir)
	return id.Begun && err == nil && !there
}

// lastOne reports whether this node's replica of the catalogue is the only one, as
// far as the folder of the catalogue knows.
func (n *Node) lastOne(id meta.Identity) bool {
	store, err := meta.Open(n.fs, n.catalogueDir())
	if err != nil {
		return false
	}
	view := store.View()
	return len(view.MetaReplicas) == 0 || len(view.MetaReplicas) == 1 && view.MetaReplicas[0].ID == id.Replica
}

// lostLog is the error of a node whose log is gone. One of several must not vote a
// second time; one that is alone would answer without what it has acknowledged last.
func (n *Node) lostLog(id meta.Identity) error {
	dir := n.cfg.Data.WALDir
	if n.lastOne(id) {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s has lost the log of this node, with what was not flushed into files yet. If its disk is not mounted, mount it and start again. If it is lost for good, dsdbd recover -accept-loss has the node go on with what is in its files", dir)
	}
	return dsdb.Errorf(dsdb.KindCorrupt, "%s has lost the log of this node, with votes and writes that others count on. If its disk is not mounted, mount it and start again. If it is lost for good, %s", dir, takeOwnPlace(id))
}

// takeOwnPlace says how a node comes back whose folders are of no use any more.
func takeOwnPlace(id meta.Identity) string {
	return fmt.Sprintf("move the node's folders away and start it with -join and --replace %d: it gets everything from the others", id.Peer())
}
