package hints

import (
	"bytes"
	"fmt"
	"log/slog"
	"path"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func options(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "/hh", MaxSize: 1 << 20, Node: [16]byte{1}, Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, o Options) *Queue {
	t.Helper()
	q, err := Open(o)
	check(t, err)
	t.Cleanup(func() { q.Close() })
	return q
}

func hint(shard dsdb.ShardID, i int) Hint {
	return Hint{Shard: shard, Made: int64(1000 + i), Database: "db", Policy: "autogen", Points: i, Data: []byte(fmt.Sprintf("hint %d", i))}
}

// drain returns what waits for a shard, as the numbers of the hints, and forgets it.
func drain(t testing.TB, q *Queue, shard dsdb.ShardID) (numbers string, lost int) {
	t.Helper()
	for {
		b, ok, err := q.Next(shard)
		check(t, err)
		if !ok {
			return strings.TrimSpace(numbers), lost
		}
		for _, h := range b.Hints {
			if !reflect.DeepEqual(h, hint(shard, h.Points)) {
				t.Fatalf("got %+v", h)
			}
			numbers += fmt.Sprintf("%d ", h.Points)
		}
		lost += b.Lost
		q.Done(b)
	}
}

// Hints wait in their order, shard by shard, over restarts, until they are done.
func TestHintsOutliveARestart(t *testing.T) {
	fs := vfs.NewMem(1)
	q := open(t, options(fs))
	if names, _ := fs.List("/hh"); len(names) > 0 {
		t.Errorf("without a hint there are files: %v", names)
	}
	for i := 1; i <= 5; i++ {
		check(t, q.Add(hint(7, i)))
		check(t, q.Add(hint(9, 10*i)))
	}
	if s := q.Stats(); s.Shards != 2 || s.Hints != 10 || s.Points != 15+150 || s.Bytes != 5*6+5*7 {
		t.Errorf("%+v", s)
	}
	b, ok, err := q.Next(7)
	if !ok || err != nil || len(b.Hints) != 5 {
		t.Fatalf("%+v %v %v", b, ok, err)
	}
	if again, _, _ := q.Next(7); !reflect.DeepEqual(again, b) {
		t.Errorf("%+v, then %+v", b, again)
	}
	q.Done(b)
	q.Done(b) // does no harm
	check(t, q.Add(hint(7, 6)))
	check(t, q.Close())

	q = open(t, options(fs))
	if s := q.Stats(); s.Shards != 2 || s.Hints != 6 || s.Points != 6+150 {
		t.Errorf("after a restart %+v", s)
	}
	if got := fmt.Sprint(q.Shards()); got != "[7 9]" {
		t.Errorf("shards %s", got)
	}
	for shard, want := range map[dsdb.ShardID]string{7: "6", 9: "10 20 30 40 50", 8: ""} {
		if got, _ := drain(t, q, shard); got != want {
			t.Errorf("shard %d: %s, want %s", shard, got, want)
		}
	}
	check(t, q.Add(hint(7, 7)))
	if s := q.Stats(); s.Shards != 1 || s.Hints != 1 || s.Points != 7 {
		t.Errorf("at the end %+v", s)
	}
}

// Whenever the power fails, what was acknowledged is there afterwards, once and
// in order, but for what was done.
func TestPowerCut(t *testing.T) {
	for cut := 1; ; cut++ {
		mem := vfs.NewMem(uint64(cut))
		n, failed := 0, fmt.Errorf("the power is cut")
		q, err := Open(options(vfs.Faulty(mem, func(op, _ string) error {
			if n++; n >= cut {
				return failed
			}
			return nil
		})))
		added, done := 0, 0
		for i := 1; i <= 40 && err == nil; i++ {
			h := hint(7, i)
			if err = q.Add(h); err != nil {
				break
			}
			if added = i; i%10 == 0 {
				b, _, err := q.Next(7)
				if err != nil {
					break
				}
				q.Done(b)
				done = i
			}
		}
		if q != nil {
			q.Close()
		}
		mem.Crash(0)
		q = open(t, options(mem))
		got, lost := drain(t, q, 7)
		var first, count int
		fmt.Sscan(got, &first)
		count = len(strings.Fields(got))
		if last := first + count - 1; lost > 0 || count > 0 && (first > done+1 || last < added) || count == 0 && done < added {
			t.Fatalf("cut %d: %d were acknowledged, %d done; there are %q, %d are lost", cut, added, done, got, lost)
		}
		check(t, q.Close())
		if err == nil && added == 40 && n < cut {
			return
		}
	}
}

// If there is no space to open the queue, what waits in it is there later.
func TestNoSpaceToOpen(t *testing.T) {
	mem := vfs.NewMem(1)
	q := open(t, options(mem))
	check(t, q.Add(hint(7, 1)))
	check(t, q.Close())
	var full atomic.Bool
	full.Store(true)
	var log bytes.Buffer
	o := options(vfs.Faulty(mem, func(op, _ string) error {
		if full.Load() && (op == vfs.OpCreate || op == vfs.OpWrite || op == vfs.OpPreallocate) {
			return syscall.ENOSPC
		}
		return nil
	}))
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	q = open(t, o)
	if !strings.Contains(log.String(), "when there is space again") || len(q.Shards()) > 0 {
		t.Errorf("shards %v, log %s", q.Shards(), log.String())
	}
	if err := q.Add(hint(7, 2)); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Errorf("a hint without space: %v", err)
	}
	full.Store(false)
	for deadline := time.Now().Add(time.Minute); len(q.Shards()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what waits does not come back")
		}
	}
	check(t, q.Add(hint(7, 2)))
	if got, lost := drain(t, q, 7); got != "1 2" || lost > 0 {
		t.Errorf("there are %q, %d are lost", got, lost)
	}
}

// A full queue says so and takes hints again when there is room.
func TestFullQueue(t *testing.T) {
	o := options(vfs.NewMem(1))
	q := open(t, o)
	h := hint(7, 1)
	h.Data = make([]byte, 3000)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = q.Add(h)
	}
	if dsdb.KindOf(err) != dsdb.KindUnavailable || !strings.Contains(err.Error(), "queue is full") {
		t.Fatalf("after %d hints: %v", n, err)
	}
	if s := q.Stats(); s.Disk > o.MaxSize || s.Bytes < o.MaxSize/2 {
		t.Errorf("full: %+v", s)
	}
	for {
		b, ok, err := q.Next(7)
		check(t, err)
		if !ok {
			break
		}
		q.Done(b)
	}
	if err := q.Add(h); err != nil {
		t.Errorf("after all were delivered: %v", err)
	}
	h.Data = make([]byte, MaxData+1)
	if err := q.Add(h); dsdb.KindOf(err) != dsdb.KindTooLarge {
		t.Errorf("a hint of %d bytes: %v", MaxData+1, err)
	}
}

// Few hints that nobody takes, however long they wait, leave the queue room for
// all others; they stay, in their order.
func TestHintsThatWaitForLongLeaveRoom(t *testing.T) {
	fs := vfs.NewMem(1)
	o := options(fs)
	q := open(t, o)
	want := ""
	for i := 1; i <= 3000; i++ {
		if i%500 == 1 {
			check(t, q.Add(hint(1, i)))
			want += fmt.Sprintf("%d ", i)
		}
		h := hint(2, i)
		h.Data = make([]byte, 3000)
		check(t, q.Add(h))
		early, _, err := q.Next(1)
		check(t, err)
		b, _, err := q.Next(2)
		check(t, err)
		q.Done(b)
		if i == 2500 { // a batch that was read before its hints are moved is done after that
			for n := 0; len(q.Shards()) < 2 || early.moved == q.shards[1].moved; n++ {
				if n > 3000 {
					t.Fatal("the hints that wait are not moved")
				}
				check(t, q.Add(h))
			}
			q.Done(early)
			want = ""
		}
	}
	if s := q.Stats(); s.Disk > o.MaxSize*3/4 || s.Shards > 2 || s.Points > 3000+3000+2501 {
		t.Errorf("%+v", s)
	}
	for b, ok, _ := q.Next(2); ok; b, ok, _ = q.Next(2) {
		q.Done(b)
	}
	check(t, q.Close())
	q = open(t, o)
	if s := q.Stats(); s.Shards != 1 || s.Points != 2501 {
		t.Errorf("after a restart %+v", s)
	}
	if got, lost := drain(t, q, 1); got+" " != want || lost > 0 {
		t.Errorf("there are %q, want %q; %d are lost", got, want, lost)
	}
}

// Whenever the power fails, or the disk is full, hints that are being moved are
// there afterwards, in their order.
func TestPowerCutWhileHintsMove(t *testing.T) {
	for cut := 40; ; cut += 1 + cut/15 {
		mem := vfs.NewMem(uint64(cut))
		var asked atomic.Int64 // by the writer and by this test
		q, err := Open(options(vfs.Faulty(mem, func(op, _ string) error {
			n := int(asked.Add(1))
			if n == cut && cut%3 == 0 {
				return syscall.ENOSPC
			} else if n >= cut && cut%3 != 0 {
				return fmt.Errorf("the power is cut")
			}
			return nil
		})))
		check(t, err)
		added := 0
		for i := 1; i <= 700; i++ {
			if i%60 == 1 && added == i/60 && q.Add(hint(1, 1+added)) == nil {
				added++
			}
			h := hint(2, i)
			h.Data = make([]byte, 3000)
			if q.Add(h) == nil {
				b, _, _ := q.Next(2)
				q.Done(b)
			}
		}
		q.Close()
		mem.Crash(0)
		q = open(t, options(mem))
		got, lost := drain(t, q, 1)
		seen := 0
		for _, f := range strings.Fields(got) {
			var i int
			fmt.Sscan(f, &i)
			seen += btoi(i == seen+1)
		}
		if seen < added || lost > 0 {
			t.Fatalf("cut %d: %d were acknowledged, there are %q, %d are lost", cut, added, got, lost)
		}
		check(t, q.Close())
		if int(asked.Load()) < cut {
			return
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Hints that come at the same time share syncs, and none is lost.
func TestConcurrentAdds(t *testing.T) {
	fs := vfs.NewMem(1)
	q := open(t, options(fs))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				if err := q.Add(hint(dsdb.ShardID(1+g%3), 1+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := q.Stats(); s.Hints != 80 || s.Points != 8*55 {
		t.Errorf("%+v", s)
	}
	check(t, q.Close())
	if err := q.Add(hint(1, 1)); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Errorf("closed: %v", err)
	}
}

// Damage does not keep the queue from opening: it is reported with file and
// offset, what is left is delivered, and then hints are taken again. The files of
// another node are refused.
func TestDamage(t *testing.T) {
	fs := vfs.NewMem(1)
	q := open(t, options(fs))
	for i := 1; i <= 6; i++ {
		check(t, q.Add(hint(7, i)))
	}
	check(t, q.Add(hint(8, 1)))
	check(t, q.Close())
	spoil(t, fs, "hint 3")

	var log bytes.Buffer
	o := options(fs)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	q = open(t, o)
	if !strings.Contains(log.String(), "/hh/wal-") || !strings.Contains(log.String(), "bytes: batch checksum") && !strings.Contains(log.String(), " at ") {
		t.Errorf("log: %s", log.String())
	}
	if err := q.Add(hint(7, 7)); dsdb.KindOf(err) != dsdb.KindUnavailable || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a hint before what is left is delivered: %v", err)
	}
	got, lost := drain(t, q, 7)
	if !strings.HasSuffix(got, "4 5 6") || strings.Contains(got, "3") || lost == 0 {
		t.Errorf("left are %q, lost %d", got, lost)
	}
	if got, lost := drain(t, q, 8); got != "1" || lost != 0 {
		t.Errorf("of shard 8 left are %q, lost %d", got, lost)
	}
	check(t, q.Add(hint(7, 8)))
	check(t, q.Close())
	q = open(t, options(fs))
	if got, lost := drain(t, q, 7); got != "8" || lost != 0 {
		t.Errorf("in the end %q, lost %d", got, lost)
	}
	check(t, q.Close())

	o.Node[0]++
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "belongs to node") {
		t.Errorf("files of another node: %v", err)
	}
}

// spoil changes a byte of a text in the log's files, wherever it is.
func spoil(t *testing.T, fs vfs.FS, text string) {
	t.Helper()
	names, err := fs.List("/hh")
	check(t, err)
	for _, name := range names {
		full := path.Join("/hh", name)
		b, err := vfs.ReadFile(fs, full)
		check(t, err)
		if at := bytes.Index(b, []byte(text)); at >= 0 {
			b[at] ^= 1
			check(t, vfs.WriteFile(fs, full, b))
			return
		}
	}
	t.Fatalf("%q is in no file", text)
}

// Any bytes are a hint that encodes to the same hint, or reported.
func FuzzDecode(f *testing.F) {
	h := hint(7, 3)
	f.Add(h.append(nil))
	f.Add([]byte{version, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decode(7, b)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		again, err := decode(7, h.append(nil))
		check(t, err)
		if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", h) {
			t.Fatalf("%+v, then %+v", h, again)
		}
	})
}
