package sim

import (
	"flag"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Uint64("seeds", 40, "run this many seeds of the log")
	stores  = flag.Uint64("stores", 5, "run this many seeds of the whole store")
	from    = flag.Uint64("from", 1, "the first of many seeds")
	events  = flag.Bool("events", false, "print what happens")
	lane    = flag.String("lane", "", "run a part of the seeds for another process: first,step")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what came of one seed.
type outcome struct {
	Seed   uint64
	Events uint64
	Took   time.Duration // simulated
	Counts map[string]int
	Most   sizes
	Errs   []string
}

// suite is a simulator: what it does with a seed, and what must have happened
// at least once in a run of many seeds.
type suite struct {
	test   string // its name
	play   func(t *testing.T, seed uint64) outcome
	counts []counts
}

// counts are some of the things that are counted, under a title.
type counts struct {
	title string
	names []string
}

// runSeed runs one seed.
func (s *suite) runSeed(t *testing.T, seed uint64) (o outcome) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		o = s.play(t, seed)
		slices.Sort(o.Errs)
	})
	return o
}

// run runs n seeds, or what the flags ask for.
func (s *suite) run(t *testing.T, n uint64) {
	if *lane != "" {
		s.runLane(t, *lane, n)
		return
	}
	sum := total{suite: s, started: time.Now(), counts: map[string]int{}}
	if *oneSeed > 0 {
		n = 1
		sum.add(t, s.runSeed(t, *oneSeed))
	} else {
		sum.lanes = min(int(n), runtime.GOMAXPROCS(0))
		s.runLanes(t, n, &sum)
	}
	t.Log(sum.String())
	if n < 100 {
		return
	}
	for _, what := range sum.missing() {
		t.Errorf("the runs did not exercise what they are for: no %s", what)
	}
}

// few is how many seeds are run, under the race detector or with -short.
func few(n, race, short uint64) uint64 {
	switch {
	case raceDetector:
		return min(n, race)
	case testing.Short():
		return min(n, short)
	}
	return n
}

// Many seeds, each with crashes, power cuts, partitions, pauses, a noisy
// network, disks that fail and members that change, none of which may lose or
// invent a write or show a client an old value. With -short there are ten seeds,
// under the race detector five.
func TestSeeds(t *testing.T) { logSuite.run(t, few(*seeds, 5, 10)) }

// Whole databases under the same faults: shards and catalogue are created,
// written through any node, flushed, merged, moved and replaced. With -short or
// under the race detector there are three seeds.
func TestStores(t *testing.T) { storeSuite.run(t, few(*stores, 3, 3)) }

var logSuite = &suite{"TestSeeds", func(t *testing.T, seed uint64) outcome {
	r := play(t, seed)
	return outcome{seed, r.Events(), r.Now(), r.Counts, r.most, r.Errs}
}, []counts{{"clients", clientCounts}, {"members", memberCounts}, {"snapshots", snapshotCounts},
	{"processes", processCounts}, {"network", networkCounts}, {"disks", diskCounts}}}

var storeSuite = &suite{"TestStores", func(t *testing.T, seed uint64) outcome {
	s := playStore(t, seed)
	return outcome{seed, s.Events(), s.Now(), s.Counts, s.most, s.Errs}
}, []counts{{"clients", pointCounts}, {"stale", staleCounts}, {"digests", digestCounts}, {"cluster", placementCounts}, {"snapshots", shardCounts},
	{"processes", storeProcessCounts}, {"network", networkCounts}, {"disks", storeDiskCounts}}}

// What is counted, each of which must happen in the runs.
var (
	clientCounts = []string{"writes acknowledged", "writes refused", "writes without space",
		"writes of unknown outcome", "reads", "reads of followers", "writes that all voters have", "registers checked", "elections", "lulls", "looks at quiescent leaders"}
	memberCounts = []string{"membership changes", "simple changes", "joint changes", "changes that failed", "changes refused while a voter waits",
		"memberships", "transfers asked for", "transfers", "demotions"}
	snapshotCounts = []string{"flushes", "snapshots sent", "snapshots that did not arrive", "snapshots installed", "receivers of snapshots struck", "power cuts amid installs"}
	processCounts  = []string{"kills", "power cuts", "power cuts of voters", "power cuts of leaders in joint changes", "power cuts amid changes of files",
		"blackouts", "pauses", "pauses of leaders", "slow state machines", "processes missed", "connections broken", "false alarms"}
	networkCounts = []string{"partitions", "one-way partitions", "changes of noise"}
	diskCounts    = []string{"disk stalls", "marks", "failed syncs", "disks full", "failed starts", "disks wiped", "disks wiped amid changes"}
)

// Of the whole store.
var (
	pointCounts = []string{"writes acknowledged", "writes refused", "writes of unknown outcome", "proposals tried again", "second copies of proposals",
		"deletes", "reads", "reads of other nodes", "cells checked", "replicas compared", "elections"}
	staleCounts  = []string{"stale reads", "bounded stale reads", "stale reads of no shard", "stale reads refused"}
	digestCounts = []string{"entries for checksums", "checksums compared", "judgements that replicas agree", "replicas made odd", "odd ones judged wrong", "odd ones judged right",
		"judgements without a majority", "replicas that an operator failed"}
	placementCounts = []string{"joins", "commands for new time groups", "commands of the controller", "membership changes", "memberships", "transfers", "replicas closed", "nodes dropped"}
	shardCounts     = []string{"flushes of shards", "flushes of catalogues", "compactions", "snapshots sent", "snapshots that did not arrive", "power cuts amid installs"}

	storeProcessCounts = []string{"kills", "power cuts", "power cuts of voters", "power cuts amid changes of files",
		"blackouts", "pauses", "pauses of leaders", "slow state machines", "processes missed", "connections broken", "false alarms"}
	storeDiskCounts = []string{"disk stalls", "marks", "failed syncs", "disks full", "failed starts", "disks wiped", "machines scrapped", "bits flipped"}
)

// total sums up outcomes.
type total struct {
	suite   *suite
	started time.Time
	lanes   int
	seeds   int
	events  uint64
	took    time.Duration // simulated
	counts  map[string]int
	most    sizes
}

func (s *total) add(t *testing.T, o outcome) {
	s.seeds++
	s.events += o.Events
	s.took += o.Took
	for what, n := range o.Counts {
		s.counts[what] += n
	}
	s.most = s.most.max(o.Most)
	for _, e := range o.Errs[:min(10, len(o.Errs))] {
		t.Errorf("seed %d: %s", o.Seed, e)
	}
	if len(o.Errs) > 0 {
		t.Errorf("seed %d: %d violations; replay: go test ./internal/sim -run %s -seed=%d -events", o.Seed, len(o.Errs), s.suite.test, o.Seed)
	}
}

// missing lists what is counted and did not happen, and what was not measured.
func (s *total) missing() (what []string) {
	for _, c := range s.suite.counts {
		for _, name := range c.names {
			if s.counts[name] == 0 {
				what = append(what, name)
			}
		}
	}
	return append(what, s.most.missing()...)
}

func (s *total) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds in %v on %d processes: %v simulated, %d events\n", s.seeds,
		time.Since(s.started).Round(100*time.Millisecond), max(1, s.lanes), s.took.Round(time.Second), s.events)
	for _, c := range s.suite.counts {
		var parts []string
		for _, name := range c.names {
			parts = append(parts, fmt.Sprintf("%d %s", s.counts[name], name))
		}
		fmt.Fprintf(&b, "  %-10s %s\n", c.title, strings.Join(parts, ", "))
	}
	fmt.Fprintf(&b, "  %-10s %+v of %+v", "at most", s.most, bounds)
	return b.String()
}

// Whatever a run of many seeds prints must have happened in it: if one thing did
// not, that is what is missing.
func TestWhatIsPrintedMustHappen(t *testing.T) {
	for _, suite := range []*suite{logSuite, storeSuite} {
		all := func() *total {
			sum := &total{suite: suite, counts: map[string]int{}, most: sizes{1, 1, 1, 1, 1, 1}}
			for _, c := range suite.counts {
				for _, name := range c.names {
					sum.counts[name]++
				}
			}
			return sum
		}
		if what := all().missing(); len(what) > 0 {
			t.Errorf("%s: %q are missing though they have happened", suite.test, what)
		}
		printed := regexp.MustCompile(`\b1 ([a-z][a-z ,-]*?)(?:, |\n)|(\w+):1\b`).FindAllStringSubmatch(strings.SplitN(all().String(), "\n", 2)[1], -1)
		if len(printed) < 40 {
			t.Fatalf("%s: only %d things are printed", suite.test, len(printed))
		}
		for _, p := range printed {
			sum, name := all(), p[1]+p[2]
			delete(sum.counts, name)
			if field := reflect.ValueOf(&sum.most).Elem().FieldByName(name); field.IsValid() {
				field.SetZero()
			}
			if what := sum.missing(); !slices.Equal(what, []string{name}) {
				t.Errorf("%s: without %s there are missing %q", suite.test, name, what)
			}
		}
	}
}

// The same seed gives the same run, another seed another.
func TestRunsAreReproducible(t *testing.T) {
	for name, digest := range map[string]func(t *testing.T, seed uint64) uint64{
		"log":   func(t *testing.T, seed uint64) uint64 { return play(t, seed).Digest() },
		"store": func(t *testing.T, seed uint64) uint64 { return playStore(t, seed).Digest() },
	} {
		digests := map[uint64]uint64{}
		for _, seed := range []uint64{7, 8, 7} {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				now := digest(t, seed)
				if before, again := digests[seed]; again && before != now {
					t.Errorf("digest %x, before %x", now, before)
				}
				digests[seed] = now
			})
		}
		if digests[7] == digests[8] {
			t.Errorf("%s: different seeds gave the same run", name)
		}
	}
}
