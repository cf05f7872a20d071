package wal

import (
	"fmt"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// BenchmarkWriteSync appends one entry per batch and syncs it on the real
// disk, with the preallocation and recycling of production.
func BenchmarkWriteSync(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			l, _, err := Open(vfs.OS(), b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			write(b, l, create(1, 1))
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			index := uint64(11)
			for b.Loop() {
				us := []Update{{Group: 1, Entries: []Entry{{Index: index, Term: 1, Data: data}}}}
				if index%512 == 0 {
					us[0].Truncate = &Position{index - 1, 1}
				}
				write(b, l, us...)
				if index%512 == 0 {
					if err := l.Recycle(); err != nil {
						b.Fatal(err)
					}
				}
				index++
			}
		})
	}
}

// BenchmarkWriteGroups writes batches of 64 updates of as many groups, without
// a disk: the cost of checking, encoding, checksums, index and cache.
func BenchmarkWriteGroups(b *testing.B) {
	l, _, err := Open(discard{vfs.NewMem(1)}, dir, Options{SegmentSize: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	const groups, size = 64, 1 << 10
	data := make([]byte, size)
	us := make([]Update, groups)
	for g := range us {
		write(b, l, create(dsdb.GroupID(g), 1))
		us[g] = Update{Group: dsdb.GroupID(g), Entries: []Entry{{Index: 11, Term: 1, Data: data}}, HardState: &HardState{Term: 1, Commit: 10}}
	}
	b.SetBytes(groups * size)
	b.ReportAllocs()
	for b.Loop() {
		write(b, l, us...)
		for g := range us {
			us[g].HardState.Commit = us[g].Entries[0].Index
			us[g].Entries[0].Index++
		}
	}
}

// discard is a file system whose segments swallow what is written.
type discard struct{ *vfs.Mem }

func (d discard) OpenReadWrite(p string) (vfs.File, error) {
	f, err := d.Mem.OpenReadWrite(p)
	return sink{f}, err
}

func (d discard) Create(p string) (vfs.File, error) {
	f, err := d.Mem.Create(p)
	return sink{f}, err
}

type sink struct{ vfs.File }

func (sink) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }
func (sink) Preallocate(int64) error                  { return nil }

// BenchmarkOpen replays 256 MiB of entries of 100 groups.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{256, 16 << 10} {
		b.Run(fmt.Sprintf("entry=%d", size), func(b *testing.B) {
			path := b.TempDir()
			l, _, err := Open(vfs.OS(), path, Options{CacheBytes: -1})
			if err != nil {
				b.Fatal(err)
			}
			const groups = 100
			data := make([]byte, size)
			for g := range groups {
				write(b, l, create(dsdb.GroupID(g), 1))
			}
			index := uint64(11)
			for written := 0; written < 256<<20; {
				var us []Update
				for g := range groups {
					es := []Entry{{Index: index, Term: 1, Data: data}, {Index: index + 1, Term: 1, Data: data}}
					us = append(us, Update{Group: dsdb.GroupID(g), Entries: es})
				}
				write(b, l, us...)
				index += 2
				written += groups * 2 * size
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Close()
				var r Report
				if l, r, err = Open(vfs.OS(), path, Options{CacheBytes: -1}); err != nil || len(r.Suspect) > 0 {
					b.Fatal(err, r)
				}
				b.SetBytes(r.Bytes)
			}
			l.Close()
		})
	}
}

// BenchmarkEntries reads 64 KiB of entries of 1 KiB.
func BenchmarkEntries(b *testing.B) {
	for name, cache := range map[string]int64{"memory": 0, "disk": -1} {
		b.Run(name, func(b *testing.B) {
			l, _, err := Open(vfs.OS(), b.TempDir(), Options{CacheBytes: cache})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			write(b, l, create(1, 1))
			for i := uint64(11); i < 1000; i += 8 {
				write(b, l, Update{Group: 1, Entries: entries(i, i+8, 1, 1024)})
			}
			var dst []Entry
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			lo := uint64(11)
			for b.Loop() {
				if dst, err = l.Entries(1, lo, lo+64, 1<<30, dst[:0]); err != nil || len(dst) != 64 {
					b.Fatal(len(dst), err)
				}
				if lo += 64; lo > 900 {
					lo = 11
				}
			}
		})
	}
}
