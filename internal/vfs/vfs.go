// Package vfs is the seam between the storage packages and the file system.
// OS is the real one; Mem is one in memory that loses unsynced bytes when the
// power is cut; Faulty makes chosen operations fail. Everything that must
// survive a crash is written through it, so that tests can cut the power after
// any operation.
//
// Durability is POSIX's: bytes are durable after SyncData, a name (created,
// renamed or removed) after SyncDir of its folder.
package vfs

import "io/fs"

// FS is a file system. Paths use '/', and are absolute or relative to the
// process. Safe for concurrent use.
type FS interface {
	Open(path string) (File, error)                     // existing file, read only
	OpenReadWrite(path string) (File, error)            // existing file
	Create(path string) (File, error)                   // new or truncated, read and write, mode 0600
	Rename(from, to string) error                       // replaces to, atomically
	Remove(path string) error                           // a file or an empty folder
	RemoveAll(path string) error                        // nil if it is not there
	MkdirAll(path string) error                         // mode 0700; makes missing parents, syncs each parent folder
	List(dir string) ([]string, error)                  // names, sorted; an error wrapping fs.ErrNotExist if there is no such folder
	Stat(path string) (fs.FileInfo, error)              // error wrapping fs.ErrNotExist if it is not there
	Link(from, to string) error                         // hard link
	SyncDir(dir string) error                           // makes the names in dir durable
	Free(dir string) (free, total uint64, err error)    // bytes of the file system that holds dir
	Lock(path string) (release func() error, err error) // exclusive, between processes; creates the file
}

// File is an open file. ReadAt and WriteAt may be called concurrently.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	SyncData() error              // fdatasync
	Preallocate(size int64) error // reserves space and extends the file with zeros; ENOSPC is reported here
	Truncate(size int64) error
	Size() (int64, error)
	Map() ([]byte, func() error, error) // read-only view of the whole file and its release; a copy where there is no mmap
	Name() string
	Close() error
}
