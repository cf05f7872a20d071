package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put makes a file with the given content, synced with its name.
func put(t *testing.T, f FS, path, content string) {
	t.Helper()
	file, err := f.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte(content), 0)
	if err := errors.Join(err, file.SyncData(), file.Close(), f.SyncDir(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
}

// get returns a file's content, or the class of the error.
func get(f FS, path string) string {
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "no such file"
	}
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil && err != io.EOF {
		return err.Error()
	}
	return string(b)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// every runs a test on the real file system, on one in memory and on both behind Faulty.
func every(t *testing.T, test func(t *testing.T, f FS, dir string)) {
	none := func(string, string) error { return nil }
	t.Run("os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) { test(t, NewMem(1), "/a/b") })
	t.Run("faulty", func(t *testing.T) { test(t, Faulty(NewMem(1), none), "rel") })
}

func TestFiles(t *testing.T) {
	every(t, func(t *testing.T, f FS, dir string) {
		p := func(name string) string { return filepath.Join(dir, name) }
		if err := f.MkdirAll(p("x/y")); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "make a folder again", f.MkdirAll(p("x/y")), nil)
		put(t, f, p("f"), "hello world")
		put(t, f, p("f"), "short")
		want(t, "emptied by Create", get(f, p("f")), "short")

		file, err := f.OpenReadWrite(p("f"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, "name", file.Name(), p("f"))
		_, err = file.WriteAt([]byte("!"), 8)
		wantErr(t, "write behind the end", err, nil)
		want(t, "hole", get(f, p("f")), "short\x00\x00\x00!")
		wantErr(t, "cut", file.Truncate(3), nil)
		wantErr(t, "extend", file.Truncate(5), nil)
		want(t, "cut and extended", get(f, p("f")), "sho\x00\x00")
		wantErr(t, "preallocate", file.Preallocate(7), nil)
		wantErr(t, "preallocate less", file.Preallocate(2), nil)
		want(t, "preallocated", get(f, p("f")), "sho\x00\x00\x00\x00")
		b := make([]byte, 4)
		n, err := file.ReadAt(b, 5)
		if n != 2 || err != io.EOF {
			t.Errorf("read over the end: %d, %v", n, err)
		}
		view, release, err := file.Map()
		if err != nil {
			t.Fatal(err)
		}
		want(t, "map", string(view), "sho\x00\x00\x00\x00")
		wantErr(t, "release", release(), nil)
		wantErr(t, "sync", file.SyncData(), nil)
		wantErr(t, "close", file.Close(), nil)
		_, err = file.ReadAt(b, 0)
		wantErr(t, "read a closed file", err, fs.ErrClosed)

		put(t, f, p("empty"), "")
		file, _ = f.Open(p("empty"))
		view, release, err = file.Map()
		if err != nil || len(view) != 0 || release() != nil {
			t.Errorf("map of an empty file: %d bytes, %v", len(view), err)
		}
		_, err = file.WriteAt(b, 0)
		wantErr(t, "write to a file opened for reading", err, syscall.EBADF)
		file.Close()
	})
}

func TestNames(t *testing.T) {
	every(t, func(t *testing.T, f FS, dir string) {
		p := func(name string) string { return filepath.Join(dir, name) }
		if err := f.MkdirAll(p("d/e")); err != nil {
			t.Fatal(err)
		}
		put(t, f, p("d/1"), "one")
		put(t, f, p("d/2"), "two")
		wantErr(t, "rename over a file", f.Rename(p("d/1"), p("d/2")), nil)
		want(t, "replaced", get(f, p("d/2")), "one")
		wantErr(t, "rename between folders", f.Rename(p("d/2"), p("d/e/3")), nil)
		wantErr(t, "link", f.Link(p("d/e/3"), p("d/4")), nil)
		wantErr(t, "link over a file", f.Link(p("d/e/3"), p("d/4")), fs.ErrExist)
		wantErr(t, "remove one name of two", f.Remove(p("d/e/3")), nil)
		want(t, "linked", get(f, p("d/4")), "one")
		put(t, f, p("d/e/5"), "five")
		wantErr(t, "remove a folder that is not empty", f.Remove(p("d/e")), syscall.ENOTEMPTY)
		wantErr(t, "rename a folder", f.Rename(p("d/e"), p("d/g")), nil)
		want(t, "in the renamed folder", get(f, p("d/g/5")), "five")
		wantErr(t, "rename a folder into itself", f.Rename(p("d/g"), p("d/g/h")), syscall.EINVAL)
		names, err := f.List(p("d"))
		if err != nil || !slices.Equal(names, []string{"4", "g"}) {
			t.Errorf("list: %v, %v", names, err)
		}
		info, err := f.Stat(p("d/4"))
		if err != nil || info.Size() != 3 || info.IsDir() || info.Name() != "4" || info.Mode().Perm() != 0o600 {
			t.Errorf("stat: %v, %v", info, err)
		}
		info, err = f.Stat(p("d/g"))
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			t.Errorf("stat of a folder: %v, %v", info, err)
		}
		wantErr(t, "remove all", f.RemoveAll(p("d")), nil)
		wantErr(t, "remove all of nothing", f.RemoveAll(p("d")), nil)
		_, err = f.List(p("d"))
		wantErr(t, "list", err, fs.ErrNotExist)
	})
}

func TestErrorsOfMissingThings(t *testing.T) {
	every(t, func(t *testing.T, f FS, dir string) {
		if err := f.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		no := filepath.Join(dir, "no")
		_, err := f.Open(no)
		wantErr(t, "open", err, fs.ErrNotExist)
		_, err = f.OpenReadWrite(no)
		wantErr(t, "open to write", err, fs.ErrNotExist)
		_, err = f.Create(filepath.Join(no, "x"))
		wantErr(t, "create", err, fs.ErrNotExist)
		_, err = f.Stat(no)
		wantErr(t, "stat", err, fs.ErrNotExist)
		wantErr(t, "rename", f.Rename(no, no+"2"), fs.ErrNotExist)
		wantErr(t, "remove", f.Remove(no), fs.ErrNotExist)
		wantErr(t, "link", f.Link(no, no+"2"), fs.ErrNotExist)
		wantErr(t, "sync folder", f.SyncDir(no), fs.ErrNotExist)
		put(t, f, no, "file")
		wantErr(t, "folder over a file", f.MkdirAll(filepath.Join(no, "x")), syscall.ENOTDIR)
	})
}

func TestLockAndFree(t *testing.T) {
	every(t, func(t *testing.T, f FS, dir string) {
		if err := f.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, "lock")
		for range 2 {
			release, err := f.Lock(p)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Lock(p)
			wantErr(t, "lock twice", err, syscall.EWOULDBLOCK)
			wantErr(t, "release", release(), nil)
		}
		free, total, err := f.Free(dir)
		if err != nil || free == 0 || free > total {
			t.Errorf("free %d of %d, %v", free, total, err)
		}
	})
}

func TestFaultyAsksBeforeEachOperation(t *testing.T) {
	mem := NewMem(1)
	var asked []string
	broken := ""
	f := Faulty(mem, func(op, path string) error {
		asked = append(asked, op+" "+path)
		if op == broken {
			return syscall.EIO
		}
		return nil
	})
	put(t, f, "a", "x")
	f.Rename("a", "b")
	broken = OpRename
	wantErr(t, "rename", f.Rename("b", "c"), syscall.EIO)
	want(t, "not renamed", get(mem, "b"), "x")
	want(t, "asked", strings.Join(asked, "; "), "create a; write a; sync a; syncdir .; rename a; rename b")
	if f.Ops() != int64(len(asked)) {
		t.Errorf("%d operations counted, %d asked", f.Ops(), len(asked))
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem(1)
	m.SetCapacity(1000)
	put(t, m, "a", strings.Repeat("x", 600))
	file, _ := m.Create("b")
	_, err := file.WriteAt(make([]byte, 500), 0)
	if !NoSpace(err) || !NoSpace(file.Preallocate(401)) || NoSpace(file.Preallocate(400)) {
		t.Errorf("write over the capacity: %v", err)
	}
	_, err = file.WriteAt(make([]byte, 400), 0)
	wantErr(t, "write into what is preallocated", err, nil)
	if free, total, _ := m.Free("."); free != 0 || total != 1000 {
		t.Errorf("free %d of %d", free, total)
	}
	m.Remove("a")
	if free, _, _ := m.Free("."); free != 600 {
		t.Errorf("free %d after remove", free)
	}
}

func TestUnsyncedBytesAreLost(t *testing.T) {
	m := NewMem(1)
	put(t, m, "f", "durable")
	file, _ := m.OpenReadWrite("f")
	file.WriteAt([]byte("D"), 0)
	file.WriteAt([]byte(" and more"), 7)
	file.Truncate(9)
	want(t, "before", get(m, "f"), "Durable a")
	want(t, "nothing survives", get(m.CrashClone(0, 1), "f"), "durable")
	want(t, "all survives", get(m.CrashClone(100, 1), "f"), "Durable a")
	file.SyncData()
	file.Preallocate(100)
	m.Crash(0)
	want(t, "synced", get(m, "f"), "Durable a")
	_, err := file.WriteAt([]byte("x"), 0)
	wantErr(t, "write to a file opened before the crash", err, errCrashed)
	wantErr(t, "sync of a file opened before the crash", file.SyncData(), errCrashed)
}

func TestNamesAreLostInOrder(t *testing.T) {
	m := NewMem(1)
	for i := range 4 {
		f, _ := m.Create(fmt.Sprint(i))
		f.SyncData()
	}
	seen := map[string]bool{}
	for seed := range uint64(200) {
		names, _ := m.CrashClone(70, seed).List("/")
		seen[strings.Join(names, "")] = true
	}
	if len(seen) != 5 || !seen[""] || !seen["0"] || !seen["01"] || !seen["012"] || !seen["0123"] {
		t.Errorf("after crashes: %v", seen)
	}
	m.SyncDir("/")
	m.Remove("2")
	want(t, "a removal that was not synced", get(m.CrashClone(0, 1), "2"), "")
	names, _ := m.CrashClone(0, 1).List("/")
	want(t, "synced names", strings.Join(names, ""), "0123")
}

func TestRenameIsAtomic(t *testing.T) {
	m := NewMem(1)
	m.MkdirAll("a")
	m.MkdirAll("b")
	put(t, m, "a/x", "new")
	put(t, m, "b/y", "old")
	m.Rename("a/x", "b/y")
	seen := map[string]bool{}
	for seed := range uint64(100) {
		c := m.CrashClone(50, seed)
		seen[get(c, "a/x")+" | "+get(c, "b/y")] = true
	}
	if len(seen) != 2 || !seen["new | old"] || !seen["no such file | new"] {
		t.Errorf("after crashes: %v", seen)
	}
	m.SyncDir("b")
	c := m.CrashClone(0, 1)
	want(t, "renamed", get(c, "a/x")+" | "+get(c, "b/y"), "no such file | new")
}

func TestWritesTearAtSectors(t *testing.T) {
	m := NewMem(1)
	old := strings.Repeat("o", 4*sector)
	put(t, m, "f", old)
	file, _ := m.OpenReadWrite("f")
	file.WriteAt([]byte(strings.Repeat("n", 3*sector)), 100)
	seen := map[string]bool{}
	for seed := range uint64(300) {
		got := get(m.CrashClone(30, seed), "f")
		if len(got) != len(old) {
			t.Fatalf("size %d", len(got))
		}
		state := ""
		for off := 0; off < len(got); off += sector {
			s := got[off : off+sector]
			state += map[bool]string{true: "n", false: "o"}[strings.Contains(s, "n")]
			if lo, hi := max(off, 100), min(off+sector, 100+3*sector); strings.Count(s, "n") != 0 && strings.Count(s, "n") != hi-lo {
				t.Fatalf("sector at %d is torn within", off)
			}
		}
		seen[state] = true
	}
	if len(seen) != 16 {
		t.Errorf("%d ways to tear four sectors: %v", len(seen), seen)
	}
}

// The same calls on the same seed leave the same bytes.
func TestCrashIsDeterministic(t *testing.T) {
	run := func() string {
		m := NewMem(42)
		for i := range 50 {
			f, _ := m.Create(fmt.Sprint(i % 7))
			f.WriteAt([]byte(strings.Repeat(fmt.Sprint(i), 700)), int64(i*13))
			if i%10 == 9 {
				m.Crash(50)
			}
		}
		m.Crash(50)
		out := ""
		names, _ := m.List("/")
		for _, n := range names {
			out += n + ":" + get(m, n)
		}
		return out
	}
	first := run()
	if second := run(); first != second || len(first) < 1000 {
		t.Error("two runs differ")
	}
}
