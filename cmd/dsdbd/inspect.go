package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/segment"
	"github.com/dasudian/dsdb/shard"
	"github.com/dasudian/dsdb/wal"
)

const inspectUsage = `Says what a file of DSDB holds. It changes nothing; the daemon may be running.

  dsdbd inspect segment FILE              what is in a segment, and how it is encoded
  dsdbd inspect segment -arrow OUT FILE   its rows as an Arrow IPC stream; OUT - is standard output
  dsdbd inspect wal FILE                  the records of a file of the log
  dsdbd inspect meta FILE                 the catalogue: a file of [meta] dir, or what GET /snapshot answers

Segments lie in [data] dir, below shard/, beside the index that names their
series: keep them together. The log lies in [data] wal-dir, the catalogue in
[meta] dir, below catalogue/.
`

// inspect runs "dsdbd inspect".
func inspect(args []string) int {
	if len(args) == 0 || isHelp(args[0]) {
		return inspectHelp(args)
	}
	f := flag.NewFlagSet("dsdbd inspect "+args[0], flag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(f.Output(), inspectUsage) }
	arrow := new(string)
	switch args[0] {
	case "segment":
		f.StringVar(arrow, "arrow", "", "`FILE` to write the rows to")
	case "wal", "meta":
	default:
		fmt.Fprintf(os.Stderr, "dsdbd inspect: unknown kind of file %q\n\n%s", args[0], inspectUsage)
		return 2
	}
	if len(args) > 1 && isHelp(args[1]) {
		return inspectHelp(args[1:])
	}
	if err := f.Parse(args[1:]); err != nil {
		return 2
	}
	if f.NArg() != 1 {
		fmt.Fprintf(os.Stderr, "%s: want one FILE, got %d\n\n%s", f.Name(), f.NArg(), inspectUsage)
		return 2
	}
	if err := inspectFile(vfs.OS(), args[0], f.Arg(0), *arrow); err != nil {
		return fail(err)
	}
	return 0
}

func inspectHelp(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, inspectUsage)
		return 2
	}
	fmt.Print(inspectUsage)
	return 0
}

func inspectFile(fs vfs.FS, kind, path, arrow string) error {
	switch {
	case kind == "wal":
		return wal.Inspect(fs, path, os.Stdout)
	case kind == "meta":
		return meta.Inspect(fs, path, os.Stdout)
	case arrow == "":
		return inspectSegment(fs, path, os.Stdout)
	case arrow == "-":
		return exportSegment(fs, path, os.Stdout)
	}
	out, err := os.Create(arrow)
	if err != nil {
		return err
	}
	return errors.Join(exportSegment(fs, path, out), out.Close())
}

// inspectSegment prints what the segment file at path holds.
func inspectSegment(fs vfs.FS, path string, w io.Writer) error {
	r, names, err := openSegment(fs, path)
	if err != nil {
		return err
	}
	defer r.Close()
	return buffered(w, func(w io.Writer) error { return segment.Inspect(r, names, w) })
}

// exportSegment writes the rows of the segment file at path as an Arrow IPC stream.
func exportSegment(fs vfs.FS, path string, w io.Writer) error {
	r, names, err := openSegment(fs, path)
	if err != nil {
		return err
	}
	defer r.Close()
	return buffered(w, func(w io.Writer) error { return segment.ExportArrow(r, names, w) })
}

func buffered(w io.Writer, write func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, 64<<10)
	return errors.Join(write(b), b.Flush())
}

// openSegment opens a segment file and finds its names beside it. A file that
// lies alone is read too: its numbers stay numbers.
func openSegment(sys vfs.FS, path string) (*segment.Reader, segment.Names, error) {
	names, err := shard.Names(sys, filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		names = shard.NoNames()
		fmt.Fprintf(os.Stderr, "dsdbd inspect: no manifest beside %s: names are not known, numbers are printed\n", path)
	case err != nil:
		return nil, names, err
	}
	f, err := sys.Open(path)
	if err != nil {
		return nil, names, err
	}
	r, err := segment.Open(f)
	return r, names, err
}
