package meta

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/dasudian/dsdb/internal/vfs"
)

// tmpSuffix marks a file that is being written; Open removes what a crash left.
const tmpSuffix = ".tmp"

// writeFile writes dir/name so that after a crash there is the old file or the new one.
func writeFile(fs vfs.FS, dir, name string, b []byte) error {
	tmp := path.Join(dir, name+tmpSuffix)
	f, err := fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(tmp, path.Join(dir, name)); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// readFile returns the bytes of a file.
func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, err)
	}
	return b, nil
}

// removeLeftovers removes files whose writing a crash cut short.
func removeLeftovers(fs vfs.FS, dir string, names []string) error {
	for _, name := range names {
		if strings.HasPrefix(name, snapshotPrefix) && strings.HasSuffix(name, tmpSuffix) {
			if err := fs.Remove(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
