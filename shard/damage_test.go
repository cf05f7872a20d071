package shard

import (
	"context"
	"crypto/sha256"
	"path"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// spoil flips a bit of a file.
func spoil(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name)
	check(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	check(t, err)
	b[0] ^= 1 << (at % 8)
	_, err = f.WriteAt(b[:], at)
	check(t, err)
	check(t, f.Close())
}

// Whoever asks for a checksum learns of damage anywhere in the files, and the
// shard goes on saying which file it is; it has no checksum to offer then.
func TestChecksumFindsDamage(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 5)
	for range 3 {
		for range 10 {
			m.step()
		}
		_, err := m.shard.Flush()
		check(t, err)
	}
	disk := m.fs.(*vfs.Mem)
	names, err := disk.List(m.dir)
	check(t, err)
	check(t, m.shard.Close())
	tried := 0
	for _, name := range names {
		if ext := path.Ext(name); ext != segmentSuffix && ext != indexSuffix {
			continue
		}
		full := path.Join(m.dir, name)
		info, err := disk.Stat(full)
		check(t, err)
		for at := int64(0); at < info.Size(); at += 1 + info.Size()/17 {
			tried++
			broken := disk.CrashClone(100, 1)
			spoil(t, broken, full, at)
			c := m.on(broken, 1)
			_, err := c.shard.Apply([]dsdb.Entry{{Index: uint64(len(m.log)) + 1, Term: 1, Data: AppendChecksum(nil)}})
			if err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			c.shard.sum.running.Wait()
			if err := c.shard.Damage(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("byte %d of %s: damage %v", at, name, err)
			}
			if _, _, ok := c.shard.Checksum(); ok {
				t.Errorf("byte %d of %s: there is a checksum", at, name)
			}
			check(t, c.shard.Close())
		}
	}
	if tried < 30 {
		t.Errorf("only %d bytes were flipped", tried)
	}
}

// A query that meets damage leaves word of it, as does one that finds a file
// gone; a snapshot of another replica makes the shard whole.
func TestQueryFindsDamage(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 6)
	for range 20 {
		m.step()
	}
	_, err := m.shard.Flush()
	check(t, err)
	good := newMachine(t, 7)
	good.catchUp(m, uint64(len(m.log)))
	_, err = good.shard.Flush()
	check(t, err)
	last := m.shard.disk.segments[len(m.shard.disk.segments)-1]
	name := path.Join(m.dir, last.name(segmentSuffix))
	check(t, m.shard.Close())
	for _, harm := range []func(){
		func() { spoil(t, m.fs, name, last.size/3) },
		func() { spoil(t, m.fs, name, last.size-3) },
	} {
		harm()
		m.open()
		if err := m.shard.Damage(); err != nil {
			t.Fatalf("damage that nobody has met: %v", err)
		}
		err := readAll(m.shard)
		if dsdb.KindOf(err) != dsdb.KindCorrupt || m.shard.Damage() == nil || !strings.Contains(m.shard.Damage().Error(), name) {
			t.Fatalf("a query says %v, the shard %v", err, m.shard.Damage())
		}
		check(t, m.shard.Close())
	}
	m.open()
	if readAll(m.shard) == nil || m.shard.Damage() == nil {
		t.Fatal("the damage is gone")
	}
	manifest, release, err := good.shard.Snapshot()
	check(t, err)
	check(t, m.fs.MkdirAll("/incoming"))
	for _, f := range manifest.Files {
		b, err := vfs.ReadFile(good.fs, path.Join(good.dir, f.Name))
		check(t, err)
		check(t, vfs.WriteFile(m.fs, path.Join("/incoming", f.Name), b))
	}
	release()
	check(t, m.shard.Install(manifest, "/incoming"))
	if err := m.shard.Damage(); err != nil {
		t.Errorf("damage after an install: %v", err)
	}
	check(t, readAll(m.shard))
	check(t, m.shard.Close())
	check(t, good.shard.Close())
}

// readAll reads everything that a shard holds.
func readAll(s *Shard) error {
	src, err := s.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	d := &digester{ctx: context.Background(), src: src, hash: sha256.New()}
	d.addState(nil, 0)
	return d.addRows()
}

// Files that are damaged after they were read are not merged: the damage would be
// in a file with the right checksum.
func TestDamageIsNotMerged(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		m := newMachine(t, 8)
		for range compactWidth {
			m.write(randomPoints(m.r, &m.clock))
			_, err := m.shard.Flush()
			check(t, err)
		}
		check(t, readAll(m.shard)) // all pages are verified
		before := m.shard.disk
		name := path.Join(m.dir, before.segments[1].name(segmentSuffix))
		spoil(t, m.fs, name, before.segments[1].size/3)
		if _, err := m.shard.Compact(full); dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), name) {
			t.Errorf("full=%v: %v", full, err)
		}
		if m.shard.disk != before || m.shard.Damage() == nil {
			t.Errorf("full=%v: the files are merged, damage %v", full, m.shard.Damage())
		}
		if names, err := m.fs.List(m.dir); err != nil || len(names) != 1+len(before.segments)+len(before.indexes) {
			t.Errorf("full=%v: files %q, %v", full, names, err)
		}
		check(t, m.shard.Close())
	}
}

// A file that is damaged while it is open, after its pages were verified, is found
// out by who reads it after the next flush, or after the shard was asked to rest.
func TestDamageOfAnOpenFileIsFound(t *testing.T) {
	t.Parallel()
	for name, doubt := range map[string]func(m *machine){
		"flush": func(m *machine) {
			m.write(randomPoints(m.r, &m.clock))
			m.flush()
		},
		"rest": func(m *machine) { m.shard.Rest() },
	} {
		m := newMachine(t, 8)
		check(t, m.shard.Close())
		m.fs, m.dir = vfs.OS(), path.Join(t.TempDir(), "7")
		m.open()
		m.write(randomPoints(m.r, &m.clock))
		m.flush()
		check(t, readAll(m.shard))
		meta := m.shard.disk.segments[0]
		file := path.Join(m.dir, meta.name(segmentSuffix))
		spoil(t, m.fs, file, 100)
		doubt(m)
		if err := readAll(m.shard); dsdb.KindOf(err) != dsdb.KindCorrupt || m.shard.Damage() == nil {
			t.Errorf("%s: %v, damage %v", name, err, m.shard.Damage())
		}
		check(t, m.shard.Close())
	}
}
