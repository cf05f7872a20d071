package vfs

import (
	"io/fs"
	"sync/atomic"
)

// The names by which a rule of Faulty knows the operations. Files report the
// path they were opened with.
const (
	OpOpen        = "open"
	OpCreate      = "create"
	OpRead        = "read"
	OpWrite       = "write"
	OpSync        = "sync"
	OpPreallocate = "preallocate"
	OpTruncate    = "truncate"
	OpMap         = "map"
	OpRename      = "rename" // the path is the old one
	OpRemove      = "remove" // and RemoveAll
	OpLink        = "link"   // the path is the old one
	OpMkdir       = "mkdir"
	OpSyncDir     = "syncdir"
	OpList        = "list"
	OpStat        = "stat"
	OpLock        = "lock"
)

// FaultFS is a file system whose operations can be made to fail.
type FaultFS struct {
	under FS
	rule  func(op, path string) error
	ops   atomic.Int64
}

// Faulty returns under behind a rule that is asked before each operation; an
// error of the rule is the operation's, which then has no effect. The rule may
// be called concurrently, and may look at under itself, e.g. to clone a Mem as
// it is before the operation. Size, Free, Name and Close never fail.
func Faulty(under FS, rule func(op, path string) error) *FaultFS {
	return &FaultFS{under: under, rule: rule}
}

// Ops returns how many operations the rule has been asked about, the one it
// is being asked about included.
func (f *FaultFS) Ops() int64 { return f.ops.Load() }

func (f *FaultFS) ask(op, path string) error {
	f.ops.Add(1)
	return f.rule(op, path)
}

func (f *FaultFS) file(op, path string, open func(string) (File, error)) (File, error) {
	if err := f.ask(op, path); err != nil {
		return nil, err
	}
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, path: path}, nil
}

// Open opens an existing file for reading.
func (f *FaultFS) Open(path string) (File, error) { return f.file(OpOpen, path, f.under.Open) }

// OpenReadWrite opens an existing file.
func (f *FaultFS) OpenReadWrite(path string) (File, error) {
	return f.file(OpOpen, path, f.under.OpenReadWrite)
}

// Create makes or empties a file.
func (f *FaultFS) Create(path string) (File, error) { return f.file(OpCreate, path, f.under.Create) }

// Rename renames from to to.
func (f *FaultFS) Rename(from, to string) error {
	if err := f.ask(OpRename, from); err != nil {
		return err
	}
	return f.under.Rename(from, to)
}

// Remove removes a file or an empty folder.
func (f *FaultFS) Remove(path string) error {
	if err := f.ask(OpRemove, path); err != nil {
		return err
	}
	return f.under.Remove(path)
}

// RemoveAll removes a tree.
func (f *FaultFS) RemoveAll(path string) error {
	if err := f.ask(OpRemove, path); err != nil {
		return err
	}
	return f.under.RemoveAll(path)
}

// MkdirAll makes a folder and its parents.
func (f *FaultFS) MkdirAll(path string) error {
	if err := f.ask(OpMkdir, path); err != nil {
		return err
	}
	return f.under.MkdirAll(path)
}

// List returns the names in dir.
func (f *FaultFS) List(dir string) ([]string, error) {
	if err := f.ask(OpList, dir); err != nil {
		return nil, err
	}
	return f.under.List(dir)
}

// Stat describes a file.
func (f *FaultFS) Stat(path string) (fs.FileInfo, error) {
	if err := f.ask(OpStat, path); err != nil {
		return nil, err
	}
	return f.under.Stat(path)
}

// Link makes a hard link.
func (f *FaultFS) Link(from, to string) error {
	if err := f.ask(OpLink, from); err != nil {
		return err
	}
	return f.under.Link(from, to)
}

// SyncDir makes the names in dir durable.
func (f *FaultFS) SyncDir(dir string) error {
	if err := f.ask(OpSyncDir, dir); err != nil {
		return err
	}
	return f.under.SyncDir(dir)
}

// Free returns the bytes free and in total.
func (f *FaultFS) Free(dir string) (free, total uint64, err error) { return f.under.Free(dir) }

// Lock takes an exclusive lock.
func (f *FaultFS) Lock(path string) (func() error, error) {
	if err := f.ask(OpLock, path); err != nil {
		return nil, err
	}
	return f.under.Lock(path)
}

// faultFile asks its file system's rule before each operation.
type faultFile struct {
	File
	fs   *FaultFS
	path string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.ask(OpRead, f.path); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.ask(OpWrite, f.path); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) SyncData() error {
	if err := f.fs.ask(OpSync, f.path); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultFile) Preallocate(size int64) error {
	if err := f.fs.ask(OpPreallocate, f.path); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.ask(OpTruncate, f.path); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Map() ([]byte, func() error, error) {
	if err := f.fs.ask(OpMap, f.path); err != nil {
		return nil, nil, err
	}
	return f.File.Map()
}
