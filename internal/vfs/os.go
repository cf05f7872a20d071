package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// NoSpace reports whether err means that the file system, or the quota of its
// user, is exhausted: a condition that may pass, unlike other failed writes.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// OS returns the file system of the operating system. It holds no state.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Open(path string) (File, error)          { return openFile(path, os.O_RDONLY) }
func (osFS) OpenReadWrite(path string) (File, error) { return openFile(path, os.O_RDWR) }
func (osFS) Create(path string) (File, error) {
	return openFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}
func (osFS) Rename(from, to string) error           { return os.Rename(from, to) }
func (osFS) Remove(path string) error               { return os.Remove(path) }
func (osFS) RemoveAll(path string) error            { return os.RemoveAll(path) }
func (osFS) Stat(path string) (fs.FileInfo, error)  { return os.Stat(path) }
func (osFS) Link(from, to string) error             { return os.Link(from, to) }
func (osFS) Lock(path string) (func() error, error) { return lockFile(path) }
func openFile(path string, flag int) (*osFile, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (o osFS) MkdirAll(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

func (osFS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osFS) Free(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	err = retry(func() error { return syscall.Statfs(dir, &s) })
	if err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	used := s.Blocks - s.Bfree // what is reserved for root is neither used nor free, as df has it
	return s.Bavail * uint64(s.Bsize), (used + s.Bavail) * uint64(s.Bsize), nil
}

// lockFile takes an exclusive flock without waiting. The kernel drops it when
// the process ends, however it ends.
func lockFile(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = retry(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is locked by another process: %w", path, err)
	}
	return f.Close, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// osFile is an os.File with the calls that package os does not have.
type osFile struct{ f *os.File }

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }
func (o *osFile) Truncate(size int64) error                { return o.f.Truncate(size) }
func (o *osFile) Name() string                             { return o.f.Name() }
func (o *osFile) Close() error                             { return o.f.Close() }

// control runs call on the descriptor while it is sure to stay open.
func (o *osFile) control(op string, call func(fd int) error) error {
	conn, err := o.f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = conn.Control(func(fd uintptr) {
		callErr = retry(func() error { return call(int(fd)) })
	})
	if err == nil {
		err = callErr
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: err}
	}
	return nil
}

func (o *osFile) SyncData() error { return o.control("fdatasync", syscall.Fdatasync) }

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Preallocate reserves the blocks of [0, size). Mode 0 of fallocate extends the
// file too. Where the file system cannot reserve, zeros are written behind the end.
func (o *osFile) Preallocate(size int64) error {
	if size <= 0 {
		return nil
	}
	err := o.control("fallocate", func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return o.writeZeros(size)
	}
	return err
}

func (o *osFile) writeZeros(size int64) error {
	end, err := o.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for end < size {
		n, err := o.f.WriteAt(zeros[:min(size-end, int64(len(zeros)))], end)
		if err != nil {
			return err
		}
		end += int64(n)
	}
	return nil
}

func (o *osFile) Map() ([]byte, func() error, error) {
	size, err := o.Size()
	if err != nil {
		return nil, nil, err
	}
	if size == 0 {
		return nil, func() error { return nil }, nil
	}
	if size != int64(int(size)) {
		return nil, nil, &fs.PathError{Op: "mmap", Path: o.f.Name(), Err: io.ErrShortBuffer}
	}
	var data []byte
	err = o.control("mmap", func(fd int) (err error) {
		data, err = syscall.Mmap(fd, 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return data, func() error { return syscall.Munmap(data) }, nil
}
