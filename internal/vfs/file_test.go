package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

// The power fails before and after each operation, or the operation fails:
// there is the old file or the new one, whole, and once WriteFileAtomic has
// returned there is the new one.
func TestWriteFileAtomic(t *testing.T) {
	old, new := bytes.Repeat([]byte("old "), 3000), bytes.Repeat([]byte("new"), 5000)
	for _, before := range [][]byte{nil, old} {
		for fail := int64(0); ; fail++ {
			mem := NewMem(1)
			must(t, mem.MkdirAll("/d"))
			if before != nil {
				must(t, WriteFileAtomic(mem, "/d/f", before))
			}
			crashes := uint64(0)
			crash := func(done bool) {
				for _, unsynced := range []int{0, 50, 100} {
					crashes++
					got, err := ReadFile(mem.CrashClone(unsynced, crashes), "/d/f")
					isOld := bytes.Equal(got, before) && (before != nil || errors.Is(err, fs.ErrNotExist))
					if !bytes.Equal(got, new) && (done || !isOld) {
						t.Fatalf("%d bytes %.10q, %v", len(got), got, err)
					}
				}
			}
			n := int64(0)
			err := WriteFileAtomic(Faulty(mem, func(op, path string) error {
				crash(false)
				if n++; n == fail {
					return syscall.EIO
				}
				return nil
			}), "/d/f", new)
			if failed := fail > 0 && n >= fail; failed != errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d fails: %v", fail, err)
			}
			crash(err == nil)
			if n < fail {
				break
			}
		}
	}
}

// A file that cannot be written whole is not left behind.
func TestWriteFileOnAFullDisk(t *testing.T) {
	mem := NewMem(1)
	must(t, mem.MkdirAll("/d"))
	mem.SetCapacity(100)
	if err := WriteFile(mem, "/d/f", make([]byte, 1000)); !NoSpace(err) {
		t.Fatalf("error %v", err)
	}
	if names, err := mem.List("/d"); err != nil || len(names) > 0 {
		t.Errorf("files %q, %v", names, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
