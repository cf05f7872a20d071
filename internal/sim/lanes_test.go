package sim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// What begins the line on which a lane tells an outcome.
const outcomeMark = "outcome of a seed: "

// runLanes runs n seeds in sum.lanes processes side by side: raft's
// source of chance belongs to the whole process.
func (s *suite) runLanes(t *testing.T, n uint64, sum *total) {
	var mu sync.Mutex // of sum
	var all sync.WaitGroup
	for i := range sum.lanes {
		all.Go(func() {
			rest, err := s.startLane(n, *from+uint64(i), sum.lanes, func(o outcome) {
				mu.Lock()
				defer mu.Unlock()
				sum.add(t, o)
			})
			if err != nil {
				t.Errorf("lane %d: %v\n%s", i+1, err, rest)
			}
		})
	}
	all.Wait()
	if sum.seeds != int(n) {
		t.Errorf("%d of %d seeds have an outcome", sum.seeds, n)
	}
}

// startLane runs the seeds first, first+step, ... of n in a process of their
// own, tells each outcome, and returns what else that process printed.
func (s *suite) startLane(n, first uint64, step int, tell func(outcome)) (rest string, err error) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+s.test+"$", "-test.timeout=0",
		fmt.Sprintf("-seeds=%d", n), fmt.Sprintf("-stores=%d", n), fmt.Sprintf("-from=%d", *from), fmt.Sprintf("-lane=%d,%d", first, step))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		text, marked := strings.CutPrefix(lines.Text(), outcomeMark)
		if !marked {
			rest += lines.Text() + "\n"
			continue
		}
		var o outcome
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			rest += fmt.Sprintf("%v: %s\n", err, text)
			continue
		}
		tell(o)
	}
	return rest, cmd.Wait()
}

// runLane is the other side of startLane.
func (s *suite) runLane(t *testing.T, lane string, n uint64) {
	var first, step uint64
	if _, err := fmt.Sscanf(lane, "%d,%d", &first, &step); err != nil || step == 0 {
		t.Fatalf("-lane=%s", lane)
	}
	for seed := first; seed < *from+n; seed += step {
		line, err := json.Marshal(s.runSeed(t, seed))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s%s\n", outcomeMark, line)
	}
}
