package vfs

import (
	"fmt"
	"io"
	"path"
)

// TempSuffix ends the name of a file that WriteFileAtomic has not finished.
const TempSuffix = ".tmp"

// ReadFile returns the bytes of a whole file.
func ReadFile(fs FS, name string) ([]byte, error) {
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
	if n, err := f.ReadAt(b, 0); n < len(b) || err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, err)
	}
	return b, nil
}

// WriteFile makes a file of b, or replaces what a file holds, and makes its
// bytes durable; its name is not until SyncDir. If that fails the file is removed.
func WriteFile(fs FS, name string, b []byte) error {
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.SyncData()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fs.Remove(name)
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// WriteFileAtomic makes a file of b, or replaces one, durably: after a crash
// there is the old file or the new one, and perhaps one with TempSuffix. If it
// fails either of the two may be there, but after an error that NoSpace knows it is
// the old one.
func WriteFileAtomic(fs FS, name string, b []byte) error {
	if err := WriteFile(fs, name+TempSuffix, b); err != nil {
		return err
	}
	return Replace(fs, name+TempSuffix, name)
}

// Replace renames a file durably, also in the place of another of the same folder.
// If it fails either name may be there, now or after a crash: not even for lack of
// space can it be taken for something that did not happen, so NoSpace does not know
// its errors.
func Replace(fs FS, from, to string) error {
	err := fs.Rename(from, to)
	if err == nil {
		err = fs.SyncDir(path.Dir(to))
	}
	if NoSpace(err) {
		return fmt.Errorf("%s may have been replaced: %v", to, err)
	}
	return err
}
