package vfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// fileOp is one change of a file's content that is not yet durable, with what
// is needed to take it back.
type fileOp struct {
	off              int64
	data             []byte // what was written; nil for a change of size alone
	old              []byte // what stood at off before, as far as the file reached
	oldSize, newSize int64
}

// write puts p at off and remembers how to take it back.
func (n *memNode) write(p []byte, off int64) {
	size := int64(len(n.data))
	end := off + int64(len(p))
	op := fileOp{off: off, data: slices.Clone(p), oldSize: size, newSize: max(size, end)}
	if off < size {
		op.old = slices.Clone(n.data[off:min(end, size)])
	}
	n.pending = append(n.pending, op)
	n.setSize(op.newSize)
	copy(n.data[off:], p)
}

// resize cuts the file or extends it with zeros.
func (n *memNode) resize(size int64) {
	old := int64(len(n.data))
	if size == old {
		return
	}
	op := fileOp{off: size, oldSize: old, newSize: size}
	if size < old {
		op.old = slices.Clone(n.data[size:])
	}
	n.pending = append(n.pending, op)
	n.setSize(size)
}

// setSize changes the length of data; bytes that appear are zero.
func (n *memNode) setSize(size int64) {
	old := int64(len(n.data))
	if size <= old {
		clear(n.data[size:])
		n.data = n.data[:size]
		return
	}
	n.data = slices.Grow(n.data, int(size-old))[:size]
	clear(n.data[old:])
}

// undo takes back all pending changes, the newest first.
func (n *memNode) undo() {
	for _, op := range slices.Backward(n.pending) {
		n.setSize(op.oldSize)
		copy(n.data[min(op.off, op.oldSize):], op.old)
	}
}

// memFile is an open file of a Mem.
type memFile struct {
	fs     *Mem
	node   *memNode
	path   string
	write  bool
	epoch  uint64
	closed bool // guarded by fs.mu
}

func (f *memFile) usable(op string) error {
	switch {
	case f.closed:
		return pathError(op, f.path, fs.ErrClosed)
	case f.epoch != f.fs.epoch:
		return pathError(op, f.path, errCrashed)
	}
	return nil
}

func (f *memFile) writable(op string) error {
	if !f.write {
		return pathError(op, f.path, syscall.EBADF)
	}
	return f.usable(op)
}

// reserve reports ENOSPC if the file cannot grow to size.
func (f *memFile) reserve(op string, size int64) error {
	grow := size - int64(len(f.node.data))
	if f.fs.capacity > 0 && grow > 0 && f.fs.used()+grow > f.fs.capacity {
		return pathError(op, f.path, syscall.ENOSPC)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.path, syscall.EINVAL)
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("write"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.path, syscall.EINVAL)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.reserve("write", off+int64(len(p))); err != nil {
		return 0, err
	}
	f.node.write(p, off)
	return len(p), nil
}

func (f *memFile) SyncData() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("fdatasync"); err != nil {
		return err
	}
	f.node.pending = nil
	return nil
}

func (f *memFile) Preallocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("fallocate"); err != nil {
		return err
	}
	if err := f.reserve("fallocate", size); err != nil {
		return err
	}
	f.node.resize(max(size, int64(len(f.node.data))))
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.path, syscall.EINVAL)
	}
	if err := f.reserve("truncate", size); err != nil {
		return err
	}
	f.node.resize(size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return int64(len(f.node.data)), f.usable("stat")
}

// Map returns a copy of the content.
func (f *memFile) Map() ([]byte, func() error, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.usable("mmap"); err != nil {
		return nil, nil, err
	}
	return slices.Clone(f.node.data), func() error { return nil }, nil
}

func (f *memFile) Name() string { return f.path }

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.path, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
