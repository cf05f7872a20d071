package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

const birth = 10 // index at which groups begin

// registerMachine is the state machine of the log simulator: some registers,
// and a checksum of all that was ever applied. It keeps its state as a shard
// does, in files that never change and a manifest that names them.
//
//	MANIFEST   index, term u64 | number of files u32 | per file: number u64, size u64, CRC u32 | CRC of all that u32
//	NNNNNNNN   sum of all entries, register, value u64 | padding
type registerMachine struct {
	run     *run
	history *history
	node    *Node
	dir     string
	state
	flushed  state
	files    []dsdb.ManifestFile // that hold flushed, empty if nothing is
	pinned   map[string]int      // files that snapshots hold on to
	next     uint64              // number of the next file
	installs int                 // a flush that overlaps one is given up
	flushing bool
}

// state is what a registerMachine holds at an index.
type state struct {
	index, term, sum uint64
	values           [registers]uint64
}

// applied is one entry as a state machine saw it. sum is of all entries so far.
type applied struct {
	term, id, sum uint64
	key           int
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// command is a write as it stands in the log: id u64, key u8, padding.
func command(id uint64, key, padding int) []byte {
	data := binary.LittleEndian.AppendUint64(make([]byte, 0, 9+padding), id)
	return append(append(data, byte(key)), make([]byte, padding)...)
}

// openMachine opens what the files in a folder hold. Without files it is the
// state of a new group if born, else nothing at all, until a snapshot comes.
func openMachine(r *run, n *Node, g dsdb.GroupID, dir string, born bool) (*registerMachine, error) {
	m := &registerMachine{run: r, history: r.groups[g], node: n, dir: dir, pinned: map[string]int{}}
	if err := n.disk.MkdirAll(dir); err != nil {
		return nil, err
	}
	err := m.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if born {
			m.state = state{index: birth, term: 1}
		}
	case err != nil:
		return nil, err
	}
	return m, m.sweep()
}

// load reads the state that the manifest names.
func (m *registerMachine) load() error {
	b, err := readFile(m.node.disk, path.Join(m.dir, "MANIFEST"))
	if err != nil {
		return err
	}
	files, s, err := decodeManifest(b)
	if err != nil {
		return fmt.Errorf("%s: %w", m.dir, err)
	}
	for _, f := range files {
		b, err := readFile(m.node.disk, path.Join(m.dir, f.Name))
		if err != nil {
			return err
		}
		if int64(len(b)) != f.Size || crc32.Checksum(b, castagnoli) != f.CRC {
			return dsdb.Errorf(dsdb.KindCorrupt, "%s/%s is not as it was written", m.dir, f.Name)
		}
		s.sum = binary.LittleEndian.Uint64(b)
		s.values[binary.LittleEndian.Uint64(b[8:])] = binary.LittleEndian.Uint64(b[16:])
	}
	m.state, m.flushed, m.files = s, s, files
	m.history.checkState(m.run, s)
	return nil
}

// sweep removes what a crash has left behind.
func (m *registerMachine) sweep() error {
	names, err := m.node.disk.List(m.dir)
	for _, name := range names {
		var number uint64
		if _, err := fmt.Sscanf(name, "%d", &number); err == nil {
			m.next = max(m.next, number+1)
		}
		if name != "MANIFEST" && !slices.ContainsFunc(m.files, func(f dsdb.ManifestFile) bool { return f.Name == name }) {
			err = errors.Join(err, m.node.disk.Remove(path.Join(m.dir, name)))
		}
	}
	return err
}

// Apply implements raftnode.StateMachine.
func (m *registerMachine) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	vs := make([]dsdb.Verdict, len(es))
	for i, e := range es {
		if e.Index != m.index+1 {
			return nil, fmt.Errorf("entry %d applied after %d", e.Index, m.index)
		}
		a := applied{term: e.Term, sum: crc64.Update(m.sum, crcTable, e.Data)}
		if e.Data != nil {
			a.id, a.key = binary.LittleEndian.Uint64(e.Data), int(e.Data[8])
			m.values[a.key] = a.id
		}
		m.index, m.term, m.sum = e.Index, e.Term, a.sum
		m.history.check(m.run, int(e.Index)-birth-1, a)
		vs[i].Value = binary.LittleEndian.AppendUint64(nil, e.Index)
	}
	return vs, nil
}

// FlushedIndex implements raftnode.StateMachine.
func (m *registerMachine) FlushedIndex() uint64 { return m.flushed.index }

// flush writes the state as it is now, in steps between which the world goes
// on; done is told how it ended. A flush that an Install overtakes has no effect.
func (m *registerMachine) flush(done func(error)) {
	p, s, installs := m.node.run, m.state, m.installs
	if m.flushing || s.index <= max(birth, m.flushed.index) {
		done(nil)
		return
	}
	m.flushing = true
	end := func(err error) { m.flushing = false; done(err) }
	var files []dsdb.ManifestFile
	var step func()
	step = func() {
		if m.installs != installs {
			end(errors.New("the state was replaced"))
			return
		}
		if len(files) < registers {
			f, err := m.write(s, len(files))
			if err != nil {
				end(err)
				return
			}
			files = append(files, f)
			p.after(m.run.Between(0, 50*time.Millisecond), step)
			return
		}
		end(m.adopt(s, files))
	}
	step()
}

// write writes the file of one register.
func (m *registerMachine) write(s state, key int) (f dsdb.ManifestFile, err error) {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(le.AppendUint64(nil, s.sum), uint64(key)), s.values[key])
	b = append(b, make([]byte, s.sum%8192)...)
	f = dsdb.ManifestFile{Name: m.number(), Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)}
	return f, writeFile(m.node.disk, path.Join(m.dir, f.Name), b)
}

func (m *registerMachine) number() string {
	m.next++
	return fmt.Sprintf("%08d", m.next-1)
}

// adopt makes files the durable state.
func (m *registerMachine) adopt(s state, files []dsdb.ManifestFile) error {
	d, tmp := m.node.disk, path.Join(m.dir, "MANIFEST.tmp")
	if err := writeFile(d, tmp, encodeManifest(s, files)); err != nil {
		return err
	}
	if err := d.Rename(tmp, path.Join(m.dir, "MANIFEST")); err != nil {
		return err
	}
	if err := d.SyncDir(m.dir); err != nil {
		return err
	}
	old := m.files
	m.flushed, m.files = s, files
	for _, f := range old {
		m.unused(f.Name)
	}
	return nil
}

// unused removes a file that nobody needs.
func (m *registerMachine) unused(name string) {
	if m.pinned[name] == 0 && !slices.ContainsFunc(m.files, func(f dsdb.ManifestFile) bool { return f.Name == name }) {
		_ = m.node.disk.Remove(path.Join(m.dir, name)) // what stays is swept at the next start
	}
}

// writeBirth makes the state of a new group durable.
func (m *registerMachine) writeBirth() error {
	s := state{index: birth, term: 1}
	var files []dsdb.ManifestFile
	for key := range registers {
		f, err := m.write(s, key)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	return m.adopt(s, files)
}

// Snapshot implements raftnode.StateMachine.
func (m *registerMachine) Snapshot() (dsdb.Manifest, func(), error) {
	if len(m.files) == 0 { // the state of a new group
		if err := m.writeBirth(); err != nil {
			return dsdb.Manifest{}, nil, err
		}
	}
	files := m.files
	for _, f := range files {
		m.pinned[f.Name]++
	}
	return dsdb.Manifest{Index: m.flushed.index, Term: m.flushed.term, Files: files}, func() {
		for _, f := range files {
			m.pinned[f.Name]--
			m.unused(f.Name)
		}
	}, nil
}

// Install implements raftnode.StateMachine.
func (m *registerMachine) Install(from dsdb.Manifest, dir string) error {
	s := state{index: from.Index, term: from.Term}
	var files []dsdb.ManifestFile
	for _, f := range from.Files {
		b, err := readFile(m.node.disk, path.Join(dir, f.Name))
		if err != nil {
			return err
		}
		s.sum = binary.LittleEndian.Uint64(b)
		s.values[binary.LittleEndian.Uint64(b[8:])] = binary.LittleEndian.Uint64(b[16:])
		own := f
		own.Name = m.number()
		if err := m.node.disk.Link(path.Join(dir, f.Name), path.Join(m.dir, own.Name)); err != nil {
			return err
		}
		files = append(files, own)
	}
	m.installs++
	if s.index < m.index {
		m.run.violation("replica in %s on node %d: a snapshot of %d is installed over %d", m.dir, m.node.Index, s.index, m.index)
	}
	m.history.checkState(m.run, s)
	if err := m.adopt(s, files); err != nil {
		return err
	}
	m.state = s
	m.run.count("snapshots installed")
	return nil
}

func encodeManifest(s state, files []dsdb.ManifestFile) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(nil, s.index), s.term)
	b = le.AppendUint32(b, uint32(len(files)))
	for _, f := range files {
		var number uint64
		fmt.Sscanf(f.Name, "%d", &number)
		b = le.AppendUint64(le.AppendUint64(b, number), uint64(f.Size))
		b = le.AppendUint32(b, f.CRC)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeManifest(b []byte) (files []dsdb.ManifestFile, s state, err error) {
	le := binary.LittleEndian
	if len(b) != 20+20*registers+4 || crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]) {
		return nil, s, dsdb.Errorf(dsdb.KindCorrupt, "a manifest of %d bytes is not as it was written", len(b))
	}
	s.index, s.term = le.Uint64(b), le.Uint64(b[8:])
	for i := range registers {
		r := b[20+20*i:]
		files = append(files, dsdb.ManifestFile{Name: fmt.Sprintf("%08d", le.Uint64(r)), Size: int64(le.Uint64(r[8:])), CRC: le.Uint32(r[16:])})
	}
	return files, s, nil
}

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
	_, err = f.ReadAt(b, 0)
	return b, err
}

// writeFile writes a file that is durable then, but for its name.
func writeFile(fs vfs.FS, name string, b []byte) error {
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}
