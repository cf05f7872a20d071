package sim

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Uint64("seeds", 100, "run this many seeds")
	trace   = flag.Bool("events", false, "print what happens")
	lane    = flag.String("lane", "", "run a part of the seeds for another process: first,step")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what came of one seed.
type outcome struct {
	Seed   uint64
	Events uint64
	Counts map[string]int
	Most   sizes
	Errs   []string
}

func runSeed(t *testing.T, seed uint64) (o outcome) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		r := play(t, seed)
		slices.Sort(r.errs)
		o = outcome{seed, r.Events(), r.Counts, r.most, r.errs}
	})
	return o
}

// Many seeds, each with crashes, power cuts, partitions, pauses, a noisy
// network and disks that fail, none of which may lose or invent a write or
// show a client an old value. With -short there are ten seeds, under the race
// detector five.
func TestSeeds(t *testing.T) {
	if *lane != "" {
		runLane(t, *lane)
		return
	}
	n := *seeds
	switch {
	case *oneSeed > 0:
		n = 1
	case raceDetector:
		n = min(n, 5)
	case testing.Short():
		n = min(n, 10)
	}
	sum := total{started: time.Now(), counts: map[string]int{}}
	switch {
	case *oneSeed > 0:
		sum.add(t, runSeed(t, *oneSeed))
	default:
		sum.lanes = min(int(n), runtime.GOMAXPROCS(0))
		runLanes(t, n, &sum)
	}
	t.Log(sum.String())
	if n < 20 {
		return
	}
	for _, what := range slices.Concat(clientCounts, memberCounts, snapshotCounts, processCounts, networkCounts, diskCounts) {
		if sum.counts[what] == 0 {
			t.Errorf("the runs did not exercise what they are for: no %s", what)
		}
	}
}

// What is counted, each of which must happen in the runs.
var (
	clientCounts = []string{"writes acknowledged", "writes refused", "writes without space",
		"writes of unknown outcome", "reads", "reads of followers", "registers checked", "elections"}
	memberCounts   = []string{"membership changes", "simple changes", "joint changes", "changes that failed", "transfers asked for", "transfers"}
	snapshotCounts = []string{"flushes", "snapshots sent", "snapshots that did not arrive", "snapshots installed"}
	processCounts  = []string{"kills", "power cuts", "power cuts of voters", "power cuts of leaders in joint changes", "power cuts amid changes of files",
		"blackouts", "pauses", "pauses of leaders", "slow state machines", "processes missed", "false alarms"}
	networkCounts = []string{"partitions", "one-way partitions", "changes of noise"}
	diskCounts    = []string{"disk stalls", "marks", "failed syncs", "disks full", "failed starts", "disks wiped"}
)

// total sums up outcomes.
type total struct {
	started time.Time
	lanes   int
	seeds   int
	events  uint64
	counts  map[string]int
	most    sizes
}

func (s *total) add(t *testing.T, o outcome) {
	s.seeds++
	s.events += o.Events
	for what, n := range o.Counts {
		s.counts[what] += n
	}
	s.most = s.most.max(o.Most)
	for _, e := range o.Errs[:min(10, len(o.Errs))] {
		t.Errorf("seed %d: %s", o.Seed, e)
	}
	if len(o.Errs) > 0 {
		t.Errorf("seed %d: %d violations; replay: go test ./internal/sim -run TestSeeds -seed=%d -events", o.Seed, len(o.Errs), o.Seed)
	}
}

func (s *total) String() string {
	var b strings.Builder
	took := time.Since(s.started)
	simulated := time.Duration(s.seeds) * (trouble + peace)
	fmt.Fprintf(&b, "%d seeds of %v in %v on %d processes: %v simulated, %d events\n", s.seeds, trouble+peace,
		took.Round(100*time.Millisecond), max(1, s.lanes), simulated, s.events)
	for _, line := range []struct {
		title string
		names []string
	}{{"clients", clientCounts}, {"members", memberCounts}, {"snapshots", snapshotCounts}, {"processes", processCounts}, {"network", networkCounts}, {"disks", diskCounts}} {
		var parts []string
		for _, name := range line.names {
			parts = append(parts, fmt.Sprintf("%d %s", s.counts[name], name))
		}
		fmt.Fprintf(&b, "  %-10s %s\n", line.title, strings.Join(parts, ", "))
	}
	fmt.Fprintf(&b, "  %-10s %+v of %+v", "at most", s.most, bounds)
	return b.String()
}

// The same seed gives the same run, another seed another.
func TestRunsAreReproducible(t *testing.T) {
	digests := map[uint64]uint64{}
	for _, seed := range []uint64{7, 8, 7} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := play(t, seed)
			if d, again := digests[seed]; again && d != r.Digest() {
				t.Errorf("digest %x, before %x", r.Digest(), d)
			}
			digests[seed] = r.Digest()
		})
	}
	if digests[7] == digests[8] {
		t.Error("different seeds gave the same run")
	}
}
