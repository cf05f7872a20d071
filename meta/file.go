package meta

import (
	"path"
	"strings"

	"github.com/dasudian/dsdb/internal/vfs"
)

// removeLeftovers removes files whose writing a crash cut short.
func removeLeftovers(fs vfs.FS, dir string, names []string) error {
	for _, name := range names {
		if strings.HasPrefix(name, snapshotPrefix) && strings.HasSuffix(name, vfs.TempSuffix) {
			if err := fs.Remove(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
