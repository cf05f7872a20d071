package wal

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"github.com/dasudian/dsdb/internal/vfs"
)

// Inspect prints the header, the batches and the records of one segment file
// for a person to read. Damage is printed where it is found, and the search
// goes on behind it. What lies behind the end of the log in the file, as the
// next segment's header tells it, is printed too. Entries' data is not shown.
func Inspect(fs vfs.FS, path string, w io.Writer) error {
	f, err := fs.Open(path)
	if err != nil {
		return fmt.Errorf("wal: inspect: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("wal: inspect: %w", err)
	}
	out := bufio.NewWriter(w)
	if err := inspect(f, size, out); err != nil {
		return fmt.Errorf("wal: inspect %s: %w", path, err)
	}
	return out.Flush()
}

func inspect(f vfs.File, size int64, w io.Writer) error {
	in := scanner{file: f, size: size}
	page, err := in.at(0, min(pageSize, size))
	if err != nil {
		return err
	}
	h, err := parseSegmentHeader(slices.Clone(page))
	if err != nil {
		fmt.Fprintf(w, "%v\n", err)
		if len(page) < pageSize {
			return nil
		}
	}
	h.seq = le.Uint64(page[48:])
	fmt.Fprintf(w, "segment %016x  cluster %x  node %x  %d bytes\n", h.seq, h.cluster, h.node, size)
	fmt.Fprintf(w, "follows segment %016x, which ends at %d with batch %d\n", h.prevSeq, h.prevEnd, h.prevBatch)
	in.seg = h.seq
	due := h.prevBatch + 1
	off := int64(pageSize)
	for off < size {
		b, body, reason, err := in.batch(off)
		if err != nil {
			return err
		}
		if reason == "" {
			inspectBatch(w, off, &b, body, due)
			due, off = b.seq+1, off+b.size()
			continue
		}
		next, err := in.find(off+max(pageSize, b.size()), 0)
		if err != nil {
			return err
		}
		if next < size || b.seq != 0 {
			fmt.Fprintf(w, "%10d  DAMAGED up to %d: %s\n", off, next, reason)
		}
		off = next
	}
	return nil
}

func inspectBatch(w io.Writer, off int64, h *batchHeader, body []byte, due uint64) {
	fmt.Fprintf(w, "%10d  batch %d  %d bytes  %d records  synced up to batch %d", off, h.seq, h.bodyLen, h.records, h.syncedBatch)
	if h.flags&flagCheckpoint != 0 {
		fmt.Fprint(w, "  checkpoint")
	}
	if h.seq != due {
		fmt.Fprintf(w, "  (batch %d was due)", due)
	}
	fmt.Fprintln(w)
	for at := int64(0); len(body) > 0; {
		r, size, err := parseRecord(body)
		if err != nil {
			panic("BUG: batch was not checked: " + err.Error())
		}
		fmt.Fprintf(w, "%10d    ", off+batchHeaderSize+at)
		inspectRecord(w, &r)
		if _, err := checkRecord(body); err != nil {
			fmt.Fprintf(w, "  %v", err)
		}
		fmt.Fprintln(w)
		body, at = body[size:], at+int64(size)
	}
}

func inspectRecord(w io.Writer, r *record) {
	fmt.Fprint(w, recordNames[r.typ])
	if r.typ == recClean || r.typ == recMarker {
		return
	}
	fmt.Fprintf(w, "  group %d replica %d", r.group, r.replica)
	switch r.typ {
	case recEntry:
		fmt.Fprintf(w, "  %d.%d kind %d, %d bytes", r.term, r.index, r.kind, len(r.payload))
	case recHardState:
		s := r.hardState()
		fmt.Fprintf(w, "  term %d vote %d commit %d", s.Term, s.Vote, s.Commit)
	case recTruncate:
		fmt.Fprintf(w, "  %d.%d conf %d bytes", r.term, r.index, len(r.payload))
	case recState, recCreate, recReset, recInstall:
		c, _ := r.checkpoint()
		s := c.state.HardState
		fmt.Fprintf(w, "  term %d vote %d commit %d  truncated %d.%d  last %d  terms %v  conf %d bytes",
			s.Term, s.Vote, s.Commit, r.term, r.index, c.last, c.terms, len(c.state.Conf))
		if c.suspect {
			fmt.Fprint(w, "  SUSPECT")
		}
	}
}
