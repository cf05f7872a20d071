package vfs

import (
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that knows what would survive a power cut. It
// is deterministic: the same calls on the same seed give the same bytes, and
// times of files are zero. Absolute and relative paths name the same files.
//
// What is durable follows the strictest reading of POSIX as ext4 does it: the
// bytes and the size of a file after SyncData; a name after SyncDir of its
// folder, where the operations on the names of one folder become durable in
// their order, and a rename between folders does so in both at once.
type Mem struct {
	mu       sync.RWMutex
	root     *memNode
	rng      *rand.Rand
	capacity int64 // bytes that files may take; 0: no limit
	nextID   uint64
	nextOp   uint64
	epoch    uint64 // number of crashes; files opened before the last one are dead
	locks    map[string]bool
}

// memNode is a file or a folder. A file may have several names.
type memNode struct {
	id      uint64
	dir     bool
	data    []byte              // of a file: as processes see it
	pending []fileOp            // of a file: changes since the last SyncData, in order
	names   map[string]*memNode // of a folder: as processes see it
	durable map[string]*memNode // of a folder: as of its last SyncDir
	log     []*nameOp           // of a folder: changes since then, in order
}

// nameOp is one atomic change of names. It lies in the log of each folder it touches.
type nameOp struct {
	seq     uint64
	changes []nameChange
}

// nameChange makes name in dir stand for node, or for nothing if node is nil.
type nameChange struct {
	dir  *memNode
	name string
	node *memNode
}

var errCrashed = errors.New("file was open when the power was cut")

// NewMem returns an empty file system. The seed decides what of the unsynced
// state survives a Crash.
func NewMem(seed uint64) *Mem {
	m := &Mem{rng: rand.New(rand.NewPCG(seed, seed)), locks: map[string]bool{}}
	m.root = m.newNode(true)
	return m
}

func (m *Mem) newNode(dir bool) *memNode {
	m.nextID++
	n := &memNode{id: m.nextID, dir: dir}
	if dir {
		n.names, n.durable = map[string]*memNode{}, map[string]*memNode{}
	}
	return n
}

// SetCapacity limits the bytes that all files together may take; 0 lifts the limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// clean returns the canonical form of a path: "" is the root.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func pathError(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// find returns the node at p.
func (m *Mem) find(op, p string) (*memNode, error) {
	n := m.root
	if c := clean(p); c != "" {
		for part := range strings.SplitSeq(c, "/") {
			if !n.dir {
				return nil, pathError(op, p, syscall.ENOTDIR)
			}
			if n = n.names[part]; n == nil {
				return nil, pathError(op, p, fs.ErrNotExist)
			}
		}
	}
	return n, nil
}

// findParent returns the folder of p and the last element of p.
func (m *Mem) findParent(op, p string) (*memNode, string, error) {
	c := clean(p)
	if c == "" {
		return nil, "", pathError(op, p, syscall.EBUSY)
	}
	dir, err := m.find(op, path.Dir("/"+c))
	if err == nil && !dir.dir {
		err = pathError(op, p, syscall.ENOTDIR)
	}
	return dir, path.Base(c), err
}

// change applies changes as one operation that is not yet durable.
func (m *Mem) change(changes ...nameChange) {
	m.nextOp++
	op := &nameOp{seq: m.nextOp, changes: changes}
	for _, c := range changes {
		if c.node == nil {
			delete(c.dir.names, c.name)
		} else {
			c.dir.names[c.name] = c.node
		}
		if n := len(c.dir.log); n == 0 || c.dir.log[n-1] != op {
			c.dir.log = append(c.dir.log, op)
		}
	}
}

// commit makes the changes of dir up to seq durable, and those of other
// folders that come along with a rename.
func commit(dir *memNode, seq uint64) {
	for len(dir.log) > 0 && dir.log[0].seq <= seq {
		op := dir.log[0]
		dir.log = dir.log[1:]
		for _, c := range op.changes {
			switch {
			case c.dir != dir:
				commit(c.dir, op.seq)
			case c.node == nil:
				delete(dir.durable, c.name)
			default:
				dir.durable[c.name] = c.node
			}
		}
	}
}

// Open opens an existing file for reading.
func (m *Mem) Open(p string) (File, error) { return m.open(p, false) }

// OpenReadWrite opens an existing file.
func (m *Mem) OpenReadWrite(p string) (File, error) { return m.open(p, true) }

func (m *Mem) open(p string, write bool) (File, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find("open", p)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, pathError("open", p, syscall.EISDIR)
	}
	return &memFile{fs: m, node: n, path: p, write: write, epoch: m.epoch}, nil
}

// Create makes a file, or empties the one that is there.
func (m *Mem) Create(p string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.findParent("create", p)
	if err != nil {
		return nil, err
	}
	n := dir.names[name]
	switch {
	case n == nil:
		n = m.newNode(false)
		m.change(nameChange{dir, name, n})
	case n.dir:
		return nil, pathError("create", p, syscall.EISDIR)
	default:
		n.resize(0)
	}
	return &memFile{fs: m, node: n, path: p, write: true, epoch: m.epoch}, nil
}

// Rename renames from to to, which it replaces.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fromDir, fromName, err := m.findParent("rename", from)
	if err != nil {
		return err
	}
	node := fromDir.names[fromName]
	if node == nil {
		return pathError("rename", from, fs.ErrNotExist)
	}
	toDir, toName, err := m.findParent("rename", to)
	if err != nil {
		return err
	}
	if node.dir && (toDir == node || strings.HasPrefix(clean(to), clean(from)+"/")) {
		return pathError("rename", to, syscall.EINVAL)
	}
	switch old := toDir.names[toName]; {
	case old == nil:
	case old == node:
		return nil
	case old.dir && !node.dir:
		return pathError("rename", to, fs.ErrExist)
	case !old.dir && node.dir:
		return pathError("rename", to, syscall.ENOTDIR)
	case old.dir && len(old.names) > 0:
		return pathError("rename", to, syscall.ENOTEMPTY)
	}
	m.change(nameChange{fromDir, fromName, nil}, nameChange{toDir, toName, node})
	return nil
}

// Remove removes a file or an empty folder.
func (m *Mem) Remove(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.findParent("remove", p)
	if err != nil {
		return err
	}
	n := dir.names[name]
	if n == nil {
		return pathError("remove", p, fs.ErrNotExist)
	}
	if len(n.names) > 0 {
		return pathError("remove", p, syscall.ENOTEMPTY)
	}
	m.change(nameChange{dir, name, nil})
	return nil
}

// RemoveAll removes a tree, the leaves first; a power cut may leave parts of it.
func (m *Mem) RemoveAll(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.findParent("remove", p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir.names[name] != nil {
		m.removeTree(dir, name)
	}
	return nil
}

func (m *Mem) removeTree(dir *memNode, name string) {
	n := dir.names[name]
	for _, child := range sortedNames(n.names) {
		m.removeTree(n, child)
	}
	m.change(nameChange{dir, name, nil})
}

func sortedNames(names map[string]*memNode) []string {
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// MkdirAll makes a folder and its missing parents; their names are durable after it.
func (m *Mem) MkdirAll(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := clean(p)
	if c == "" {
		return nil
	}
	n := m.root
	for part := range strings.SplitSeq(c, "/") {
		next := n.names[part]
		if next == nil {
			next = m.newNode(true)
			m.change(nameChange{n, part, next})
			commit(n, math.MaxUint64)
		}
		if !next.dir {
			return pathError("mkdir", p, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// List returns the names in dir, sorted.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find("open", dir)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, pathError("readdir", dir, syscall.ENOTDIR)
	}
	return sortedNames(n.names), nil
}

// Stat describes a file or a folder.
func (m *Mem) Stat(p string) (fs.FileInfo, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find("stat", p)
	if err != nil {
		return nil, err
	}
	return memInfo{name: path.Base("/" + clean(p)), size: int64(len(n.data)), dir: n.dir}, nil
}

// Link gives a file a second name.
func (m *Mem) Link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("link", from)
	if err != nil {
		return err
	}
	if n.dir {
		return pathError("link", from, syscall.EPERM)
	}
	dir, name, err := m.findParent("link", to)
	if err != nil {
		return err
	}
	if dir.names[name] != nil {
		return pathError("link", to, fs.ErrExist)
	}
	m.change(nameChange{dir, name, n})
	return nil
}

// SyncDir makes the names in dir durable.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("open", dir)
	if err != nil {
		return err
	}
	commit(n, math.MaxUint64)
	return nil
}

// Free returns what SetCapacity leaves; without a limit a tebibyte is free.
func (m *Mem) Free(string) (free, total uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.capacity == 0 {
		return 1 << 40, 1 << 40, nil
	}
	return uint64(max(0, m.capacity-m.used())), uint64(m.capacity), nil
}

// used sums the sizes of the files that have a name.
func (m *Mem) used() int64 {
	seen := map[*memNode]bool{}
	var sum int64
	var walk func(n *memNode)
	walk = func(n *memNode) {
		if !seen[n] {
			seen[n] = true
			sum += int64(len(n.data))
			for _, c := range n.names {
				walk(c)
			}
		}
	}
	walk(m.root)
	return sum
}

// Lock takes the lock of a path within this Mem; a Crash releases it.
func (m *Mem) Lock(p string) (func() error, error) {
	f, err := m.lockFile(p)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[clean(p)] {
		return nil, pathError("lock", p, syscall.EWOULDBLOCK)
	}
	m.locks[clean(p)] = true
	return func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if f.epoch == m.epoch {
			delete(m.locks, clean(p))
		}
		return nil
	}, nil
}

func (m *Mem) lockFile(p string) (*memFile, error) {
	f, err := m.OpenReadWrite(p)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = m.Create(p)
	}
	if err != nil {
		return nil, err
	}
	return f.(*memFile), nil
}

// memInfo is the fs.FileInfo of a node.
type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
