package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scriptedShard has the figures it is given and notes what is done to it.
type scriptedShard struct {
	mu    sync.Mutex
	stats shard.Stats
	fails error
	did   []string
	hold  chan struct{} // work waits for it to be closed, if it is set
}

func (s *scriptedShard) Stats() shard.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *scriptedShard) Flush() (bool, error) {
	s.note("flush")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return false, s.fails
	}
	s.stats.FlushedIndex, s.stats.MemBytes, s.stats.MemRows = s.stats.LastAppliedIndex, 0, 0
	return true, nil
}

func (s *scriptedShard) Compact(full bool) (bool, error) {
	s.note(map[bool]string{false: "merge", true: "merge all"}[full])
	return true, nil
}

func (s *scriptedShard) Rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, "rest")
	return true
}

func (s *scriptedShard) note(what string) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, what)
}

func (s *scriptedShard) apply(rows int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastAppliedIndex += uint64(rows)
	s.stats.MemRows += rows
	s.stats.MemBytes += bytes
}

// store is a Store of scripted shards.
type store struct {
	shards   []*scriptedShard // shard i has the id i+1
	logBytes int64
	pinning  []dsdb.ShardID

	mu      sync.Mutex
	flushed []dsdb.ShardID
}

func (s *store) Shards() []ManagedShard {
	var out []ManagedShard
	for i, sh := range s.shards {
		out = append(out, ManagedShard{ID: dsdb.ShardID(i + 1), Shard: sh})
	}
	return out
}

func (s *store) Flushed(id dsdb.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushed = append(s.flushed, id)
}

func (s *store) Changes() (n uint64) {
	for _, sh := range s.shards {
		n += sh.Stats().LastAppliedIndex
	}
	return n
}

func (s *store) LogBytes() (int64, []dsdb.ShardID) { return s.logBytes, s.pinning }

// desk is a Maintainer whose clock the test moves.
type desk struct {
	*Maintainer
	store *store
	log   *bytes.Buffer
	now   time.Time
	round uint64
}

func newDesk(shards int, l Limits) *desk {
	d := &desk{store: &store{}, log: &bytes.Buffer{}, now: time.Unix(1000, 0)}
	for range shards {
		d.store.shards = append(d.store.shards, &scriptedShard{})
	}
	d.Maintainer = NewMaintainer(d.store, l, slog.New(slog.NewTextHandler(d.log, nil)))
	return d
}

// look lets time pass, has the Maintainer look once, waits for what it starts,
// and returns what was done to each shard.
func (d *desk) look(passed time.Duration) string {
	d.now, d.round = d.now.Add(passed), d.round+1
	var work sync.WaitGroup
	d.Maintainer.look(d.now, d.round, &work)
	work.Wait()
	var out []string
	for i, s := range d.store.shards {
		if len(s.did) > 0 {
			out = append(out, fmt.Sprintf("%d: %s", i+1, strings.Join(s.did, ", ")))
		}
		s.did = nil
	}
	return strings.Join(out, "; ")
}

// What the Maintainer does, look by look.
func TestMaintainerDecides(t *testing.T) {
	limits := Limits{FlushBytes: 100, TotalBytes: 300, LogBytes: 1000, FlushCold: time.Minute, CompactCold: time.Hour, Compactions: 1}
	type event struct {
		before func(d *desk)
		passed time.Duration
		want   string
	}
	apply := func(shard, rows int, bytes int64) func(*desk) {
		return func(d *desk) { d.store.shards[shard-1].apply(rows, bytes) }
	}
	for name, events := range map[string][]event{
		"an empty shard is left alone": {{nil, 0, ""}, {nil, 50 * time.Minute, ""}},
		"a large memtable is flushed and small files are merged": {
			{apply(1, 5, 99), 0, ""}, {apply(1, 1, 1), 0, "1: flush, merge"}, {nil, 0, ""}},
		"a shard without writes is flushed, later merged into one run, once": {
			{apply(2, 5, 10), 0, ""}, {nil, 59 * time.Second, ""}, {nil, time.Second, "2: flush, merge"},
			{nil, 58 * time.Minute, ""}, {apply(1, 1, 1), 2 * time.Minute, "2: merge all"}},
		"a shard in which nothing is left to do is asked to rest, now and then": {
			{apply(2, 5, 10), 0, ""}, {nil, time.Hour, "1: rest; 2: flush, merge"}, {nil, time.Second, "2: merge all"}, {nil, time.Second, "2: rest"},
			{nil, 59 * time.Minute, ""}, {nil, time.Minute, "1: rest; 2: rest"}},
		"writes keep a shard warm": {
			{apply(1, 1, 10), 0, ""}, {apply(1, 1, 10), 59 * time.Second, ""}, {nil, 59 * time.Second, ""}, {nil, time.Second, "1: flush, merge"}},
		"with much in memory in all, the largest shard is flushed": {
			{func(d *desk) { apply(1, 1, 60)(d); apply(2, 1, 91)(d) }, 0, "2: flush, merge"}, {nil, 0, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(2, limits)
			for i, e := range events {
				if e.before != nil {
					e.before(d)
				}
				got := d.look(e.passed)
				if got != e.want {
					t.Errorf("look %d: %q, want %q", i, got, e.want)
				}
			}
		})
	}
}

// A log that is too long has the shards that pin it flushed, at most once a second.
func TestMaintainerShortensTheLog(t *testing.T) {
	d := newDesk(3, Limits{FlushBytes: 1000, LogBytes: 500, FlushCold: time.Hour, CompactCold: time.Hour})
	for _, s := range d.store.shards {
		s.apply(1, 10)
	}
	d.store.pinning = []dsdb.ShardID{2, 3}
	d.store.logBytes = 500
	for range 20 {
		if got := d.look(100 * time.Millisecond); got != "" {
			t.Errorf("a log that is not too long: %s", got)
		}
	}
	d.store.logBytes = 501
	var got []string
	for range 10 {
		if did := d.look(100 * time.Millisecond); did != "" {
			got = append(got, did)
		}
	}
	if want := "[2: flush, merge; 3: flush, merge]"; fmt.Sprint(got) != want {
		t.Errorf("did %v, want %s", got, want)
	}
	if len(d.store.flushed) != 2 {
		t.Errorf("the log was told of %v", d.store.flushed)
	}
}

// A flush that fails is logged and tried again ten seconds later, not at each look.
func TestMaintainerRestsAfterFailure(t *testing.T) {
	d := newDesk(1, Limits{FlushBytes: 1, FlushCold: time.Hour, CompactCold: time.Hour})
	d.now = time.Now() // failures are noted by the clock
	d.store.shards[0].apply(1, 10)
	d.store.shards[0].fails = errors.New("no space")
	if got := d.look(0); got != "1: flush" {
		t.Errorf("did %q", got)
	}
	if got := d.look(retryAfter / 2); got != "" {
		t.Errorf("too soon: %q", got)
	}
	d.store.shards[0].fails = nil
	if got := d.look(retryAfter); got != "1: flush, merge" {
		t.Errorf("did %q", got)
	}
	if n := strings.Count(d.log.String(), "no space"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, d.log)
	}
}

// While one thing is done to a shard nothing else is, and no more full
// compactions run at a time than are allowed.
func TestMaintainerKeepsToOneJobPerShard(t *testing.T) {
	d := newDesk(3, Limits{FlushBytes: 1, FlushCold: time.Hour, CompactCold: time.Minute, Compactions: 1})
	hold := make(chan struct{})
	for i, s := range d.store.shards {
		s.hold = hold
		s.stats = shard.Stats{LastAppliedIndex: 1, FlushedIndex: uint64(min(i, 1))} // the first is to be flushed
	}
	var work sync.WaitGroup
	for round := range uint64(5) {
		d.Maintainer.look(d.now.Add(time.Duration(round)*time.Hour), round+1, &work)
	}
	close(hold)
	work.Wait()
	var did []string
	for i, s := range d.store.shards {
		if len(s.did) > 0 {
			did = append(did, fmt.Sprintf("%d: %s", i+1, strings.Join(s.did, ", ")))
		}
	}
	if got, want := strings.Join(did, "; "), "1: flush, merge; 2: merge all"; got != want {
		t.Errorf("did %q, want %q", got, want)
	}
}

// Run ends with its context, after the work it has started.
func TestMaintainerRunEnds(t *testing.T) {
	d := newDesk(1, Limits{FlushBytes: 1, FlushCold: time.Hour, CompactCold: time.Hour})
	d.store.shards[0].apply(3, 10)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	for deadline := time.Now().Add(2 * time.Minute); d.store.shards[0].Stats().MemRows > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was flushed")
		}
	}
	stop()
	running.Wait()
}

// Every logs a failure once while it lasts, and again when it is another or
// comes back.
func TestEveryLogsAFailureOnce(t *testing.T) {
	outcomes := []string{"disk", "disk", "disk", "net", "net", "", "net"}
	ctx, stop := context.WithCancel(t.Context())
	var log bytes.Buffer
	calls := 0
	Every(ctx, time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)), "cleaning", func(context.Context, time.Time) error {
		calls++
		if calls > len(outcomes) {
			stop()
			return errors.New("stopping")
		}
		if text := outcomes[calls-1]; text != "" {
			return errors.New(text)
		}
		return nil
	})
	if disk, net := strings.Count(log.String(), "err=disk"), strings.Count(log.String(), "err=net"); disk != 1 || net != 2 {
		t.Errorf("disk logged %d times, net %d times:\n%s", disk, net, log.String())
	}
	if strings.Contains(log.String(), "stopping") {
		t.Errorf("a failure because of the end is logged:\n%s", log.String())
	}
}
