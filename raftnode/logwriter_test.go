package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// notebook is a log that notes what it is asked to do.
type notebook struct {
	Log
	lines []string
	errs  []error // of the next calls of Write
}

func (n *notebook) Write(us []wal.Update, sync bool) error {
	line := "mark"
	if len(us) > 0 {
		line = "write"
	}
	for _, u := range us {
		kind := "entries"
		switch {
		case u.Truncate != nil:
			kind = "truncate"
		case u.Remove:
			kind = "remove"
		}
		line += fmt.Sprintf(" %s of %d", kind, u.Group)
	}
	var err error
	if len(n.errs) > 0 {
		err, n.errs = n.errs[0], n.errs[1:]
	}
	if err != nil {
		line += ": " + err.Error()
	}
	n.lines = append(n.lines, line)
	return err
}

func (n *notebook) Recycle() error {
	n.lines = append(n.lines, "recycle")
	return nil
}

// told collects what waiters of a LogWriter are told.
type told struct {
	name string
	all  *[]string
}

func (w told) Done(_ dsdb.Verdict, err error) {
	*w.all = append(*w.all, fmt.Sprintf("%s: %v", w.name, err))
}

func TestLogWriter(t *testing.T) {
	core := new(Core)
	full := dsdb.Errorf(dsdb.KindUnavailable, "no space")
	entries := func(g dsdb.GroupID, bytes int) Queued {
		return Queued{Core: core, Append: Append{Update: wal.Update{Group: g, Entries: []wal.Entry{{Data: make([]byte, bytes)}}}}}
	}
	truncation := func(g dsdb.GroupID) Queued {
		return Queued{Core: core, Append: Append{Update: wal.Update{Group: g, Truncate: &wal.Position{Index: 1}}}}
	}
	turn := Queued{Core: core, Append: Append{Empty: true}}
	for _, c := range []struct {
		name string
		errs []error
		play func(w *LogWriter, waiter func(name string) Waiter) (of int, last Written)
		of   int // appends that the core is told of
		want string
		told string
	}{
		{"what waits goes into one write", nil, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(entries(1, 10), turn)
			w.Add(entries(2, 10))
			return writes(w, core, 1)
		}, 3, "write entries of 1 entries of 2", ""},
		{"as far as it may grow", nil, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(entries(1, maxWriteBytes-1), entries(2, 1), entries(3, 1), entries(4, 2*maxWriteBytes))
			return writes(w, core, 3)
		}, 4, "write entries of 1 entries of 2|write entries of 3|write entries of 4", ""},
		{"who only waits for its turn is told without a write", nil, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(turn)
			return writes(w, core, 1)
		}, 1, "", ""},
		{"what is freed is used again", nil, func(w *LogWriter, waiter func(string) Waiter) (of int, last Written) {
			w.Add(Erase(7, waiter("erased")))
			return writes(w, core, 1)
		}, 0, "write remove of 7|recycle", "erased: <nil>"},
		{"without space truncations go ahead", []error{full, nil, nil}, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(entries(1, 10))
			of, last = writes(w, core, 1)
			if last.Full != full || of > 0 || !w.Full() || !w.Take() {
				return -1, last
			}
			w.Add(entries(2, 10), truncation(3))
			if of, last = writes(w, core, 1); !last.Again || w.Full() {
				return -1, last
			}
			more, last := writes(w, core, 1)
			return of + more, last
		}, 3, "write entries of 1: no space|write truncate of 3|recycle|write entries of 1|write entries of 2", ""},
		{"also those of the write that finds none", []error{full, full, nil, nil}, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(truncation(2), entries(1, 10), truncation(3))
			if of, last = writes(w, core, 2); last.Full != full || of > 0 {
				return -1, last
			}
			if of, last = writes(w, core, 1); !last.Again || w.Full() {
				return -1, last
			}
			return of, last
		}, 3, "write truncate of 2 entries of 1 truncate of 3: no space|write truncate of 2 truncate of 3: no space|" +
			"write truncate of 2 truncate of 3|recycle|write entries of 1", ""},
		{"and if they are all there is, that is it", []error{full, nil}, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(truncation(2), turn)
			if of, last = writes(w, core, 1); last.Full != full || of > 0 {
				return -1, last
			}
			if of, last = writes(w, core, 1); !last.Again || w.Full() {
				return -1, last
			}
			return of, last
		}, 2, "write truncate of 2: no space|write truncate of 2|recycle", ""},
		{"the catalogue, what has no entries and removals go ahead, but not of one group", []error{full, nil, full, nil}, func(w *LogWriter, waiter func(string) Waiter) (of int, last Written) {
			vote := Queued{Core: core, Append: Append{Update: wal.Update{Group: 1, HardState: &wal.HardState{Term: 2}}}}
			other := vote
			other.Append.Update.Group = 3
			w.Add(entries(1, 10), entries(2, 10))
			writes(w, core, 1)
			w.Add(vote, other, entries(dsdb.MetaGroup, 10), entries(2, 10), Erase(2, waiter("erased")))
			if of, last = writes(w, core, 1); last.Full != full || last.Dry || of != 4 || !w.Take() {
				return -1, last
			}
			if more, last := writes(w, core, 1); !last.Again {
				return more, last
			}
			return of, last
		}, 4, "write entries of 1 entries of 2: no space|recycle|" +
			"write entries of 3 entries of 0 remove of 2|recycle|write entries of 1: no space|recycle|write entries of 1", "erased: <nil>"},
		{"unless there is no space for them either", []error{full, full, nil, nil}, func(w *LogWriter, waiter func(string) Waiter) (of int, last Written) {
			w.Add(entries(1, 10), entries(dsdb.MetaGroup, 10))
			if of, last = writes(w, core, 2); last.Full != full || !last.Dry || of > 0 {
				return -1, last
			}
			return writes(w, core, 1)
		}, 2, "write entries of 1 entries of 0: no space|recycle|write entries of 0: no space|recycle|write entries of 0|write entries of 1", ""},
		{"the end of the log is marked once", []error{nil, full, nil}, func(w *LogWriter, _ func(string) Waiter) (of int, last Written) {
			w.Add(entries(1, 10))
			of, last = writes(w, core, 1)
			for range 3 {
				last.Failed = errors.Join(last.Failed, w.Mark())
			}
			if !w.Proven() {
				return -1, last
			}
			return of, last
		}, 1, "write entries of 1|mark: no space|mark", ""},
		{"nobody is told that something is done when the log has failed", []error{syscall.EIO}, func(w *LogWriter, waiter func(string) Waiter) (of int, last Written) {
			w.Add(Erase(7, waiter("first")), entries(1, 10))
			of, last = writes(w, core, 1)
			w.Add(Erase(8, waiter("second")))
			if refuse := w.Fail(last.Failed); dsdb.KindOf(refuse) != dsdb.KindUnavailable || w.Take() {
				return -1, last
			}
			return of, last
		}, 0, "write remove of 7 entries of 1: input/output error", "first: input/output error|second: input/output error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, all := &notebook{errs: c.errs}, []string(nil)
			of, last := c.play(NewLogWriter(log), func(name string) Waiter { return told{name, &all} })
			if got := strings.Join(log.lines, "|"); of != c.of || got != c.want || !slices.Equal(all, strings.FieldsFunc(c.told, func(r rune) bool { return r == '|' })) {
				t.Errorf("%d appends are stored, %s, told %v, the last: %+v", of, got, all, last)
			}
		})
	}
}

// writes takes and writes so many times, tells who waits, and returns how many
// appends of a core were stored.
func writes(w *LogWriter, core *Core, n int) (of int, last Written) {
	for range n {
		w.Take()
		last = w.Write()
		of += len(last.Of(core))
		last.Tell()
	}
	return of, last
}
