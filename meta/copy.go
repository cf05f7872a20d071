package meta

import (
	"fmt"
	"path"

	"github.com/dasudian/dsdb/internal/vfs"
)

// CopyFile is the name, in the folder of the points, of the copy of the catalogue
// that says what they are, should the folder of the catalogue be lost.
const CopyFile = "catalogue.snap"

// WriteCopy writes a copy of the catalogue into dir, durably and atomically, in
// place of the one before.
func (s *Store) WriteCopy(dir string) error {
	s.files.Lock()
	defer s.files.Unlock()
	if err := vfs.WriteFileAtomic(s.fs, path.Join(dir, CopyFile), s.View().AppendSnapshot(nil)); err != nil {
		return fmt.Errorf("meta: write copy: %w", err)
	}
	return nil
}

// ReadCopy returns the catalogue of the copy in dir. The error wraps fs.ErrNotExist if
// there is none, and has KindCorrupt if it is not what was written.
func ReadCopy(fs vfs.FS, dir string) (*Data, error) {
	d, _, err := readCopy(fs, dir)
	return d, err
}

// readCopy is ReadCopy, with the bytes of the copy.
func readCopy(fs vfs.FS, dir string) (*Data, []byte, error) {
	name := path.Join(dir, CopyFile)
	b, err := vfs.ReadFile(fs, name)
	if err != nil {
		return nil, nil, fmt.Errorf("meta: read copy: %w", err)
	}
	d, err := DecodeSnapshot(name, b)
	return d, b, err
}

// RestoreCopy makes dir the folder of a Store from the copy in from, and returns
// the catalogue, with the errors of ReadCopy.
func RestoreCopy(fs vfs.FS, from, dir string) (*Data, error) {
	d, b, err := readCopy(fs, from)
	if err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("meta: restore copy: %w", err)
	}
	if err := vfs.WriteFileAtomic(fs, path.Join(dir, snapshotName(d.Index)), b); err != nil {
		return nil, fmt.Errorf("meta: restore copy: %w", err)
	}
	return d, nil
}
