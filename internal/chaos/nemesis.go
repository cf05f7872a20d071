package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Nemesis does harm to the nodes of a cluster, by chance but decided by a seed,
// and undoes it.
type Nemesis struct {
	c      *Cluster
	rand   *rand.Rand
	log    *slog.Logger
	kinds  []fault
	Faults map[string]int // how many of each kind there were
}

// NewNemesis makes one that knows the kinds of harm that are named, all if none is.
func NewNemesis(c *Cluster, seed uint64, log *slog.Logger, names ...string) *Nemesis {
	n := &Nemesis{c: c, rand: rand.New(rand.NewPCG(seed, 2)), log: log, Faults: map[string]int{}}
	for _, f := range faults {
		if len(names) == 0 || slices.Contains(names, f.name) {
			n.kinds = append(n.kinds, f)
		}
	}
	return n
}

// fault is one kind of harm; do returns when it is undone.
type fault struct {
	name  string
	nodes int // it takes
	do    func(ctx context.Context, n *Nemesis) error
}

var faults = []fault{
	{"kill", 1, func(ctx context.Context, n *Nemesis) error { return n.kill(ctx, n.some(1)) }},
	{"kill-two", 2, func(ctx context.Context, n *Nemesis) error { return n.kill(ctx, n.some(2)) }},
	{"kill-all", 1, func(ctx context.Context, n *Nemesis) error { return n.kill(ctx, n.some(len(n.c.Nodes))) }},
	{"restart", 1, func(ctx context.Context, n *Nemesis) error { return n.restart(ctx) }},
	{"pause", 1, func(ctx context.Context, n *Nemesis) error { return n.pause(ctx) }},
	{"link-down", 1, func(ctx context.Context, n *Nemesis) error { return n.linkDown(ctx) }},
	{"one-way", 2, func(ctx context.Context, n *Nemesis) error { return n.oneWay(ctx) }},
	{"delay", 1, func(ctx context.Context, n *Nemesis) error { return n.delay(ctx) }},
	{"reset", 1, func(_ context.Context, n *Nemesis) error { n.c.Proxy.Reset(); return nil }},
	{"corrupt", 1, func(ctx context.Context, n *Nemesis) error { return n.corrupt(ctx) }},
	{"disk-full", 1, func(ctx context.Context, n *Nemesis) error { return n.fillDisk(ctx) }},
}

// Run does harm every 5 to 15 seconds until ctx ends. When it returns all harm
// is undone and every process runs.
func (n *Nemesis) Run(ctx context.Context) error {
	left := n.rand.Perm(len(n.kinds))
	for n.sleep(ctx, 2*time.Second, 7*time.Second) {
		if len(left) == 0 {
			left = n.rand.Perm(len(n.kinds))
		}
		f := n.kinds[left[0]]
		left = left[1:]
		if f.nodes > len(n.c.Nodes) {
			continue
		}
		n.Faults[f.name]++
		if err := f.do(ctx, n); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// sleep waits for a time between least and most; false if ctx ended.
func (n *Nemesis) sleep(ctx context.Context, least, most time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(least + time.Duration(n.rand.Int64N(int64(most-least)))):
		return true
	}
}

// some picks nodes.
func (n *Nemesis) some(count int) []*Process {
	var out []*Process
	for _, i := range n.rand.Perm(len(n.c.Nodes))[:count] {
		out = append(out, n.c.Nodes[i])
	}
	return out
}

func ids(ps []*Process) []int {
	var out []int
	for _, p := range ps {
		out = append(out, p.ID)
	}
	return out
}

func (n *Nemesis) kill(ctx context.Context, ps []*Process) error {
	n.log.Info("kill -9", "nodes", ids(ps))
	for _, p := range ps {
		if err := p.Signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	n.sleep(ctx, 200*time.Millisecond, 6*time.Second)
	for _, p := range ps {
		n.log.Info("start", "node", p.ID)
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

// restart stops each node in turn and starts it again.
func (n *Nemesis) restart(ctx context.Context) error {
	for _, p := range n.some(len(n.c.Nodes)) {
		n.log.Info("restart", "node", p.ID)
		if err := p.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := p.Start(); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 60*time.Second)
		err := p.WaitReady(wait)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *Nemesis) pause(ctx context.Context) error {
	p := n.some(1)[0]
	n.log.Info("pause", "node", p.ID)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	n.sleep(ctx, time.Second, 8*time.Second)
	n.log.Info("resume", "node", p.ID)
	return p.Signal(syscall.SIGCONT)
}

func (n *Nemesis) linkDown(ctx context.Context) error {
	p := n.some(1)[0]
	n.log.Info("link down", "node", p.ID)
	if err := n.c.Net.SetLink(p.ID, false); err != nil {
		return err
	}
	n.sleep(ctx, time.Second, 8*time.Second)
	n.log.Info("link up", "node", p.ID)
	return n.c.Net.SetLink(p.ID, true)
}

func (n *Nemesis) oneWay(ctx context.Context) error {
	ps := n.some(2)
	n.log.Info("one direction cut", "from", ps[0].ID, "to", ps[1].ID)
	n.c.Proxy.Cut(ps[0].ID, ps[1].ID, true)
	n.sleep(ctx, time.Second, 8*time.Second)
	n.log.Info("one direction open", "from", ps[0].ID, "to", ps[1].ID)
	n.c.Proxy.Cut(ps[0].ID, ps[1].ID, false)
	return nil
}

func (n *Nemesis) delay(ctx context.Context) error {
	n.log.Info("delay")
	n.c.Proxy.SetDelay(20 * time.Millisecond)
	n.sleep(ctx, time.Second, 6*time.Second)
	n.log.Info("no delay")
	n.c.Proxy.SetDelay(0)
	return nil
}

// fillDisk takes the space of the node whose folder is a small file system of its own.
func (n *Nemesis) fillDisk(ctx context.Context) error {
	p := n.c.Nodes[len(n.c.Nodes)-1]
	n.log.Info("disk full", "node", p.ID)
	name := filepath.Join(p.Dir(), "balloon")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(chunk)
	}
	n.sleep(ctx, time.Second, 6*time.Second)
	n.log.Info("disk has space", "node", p.ID)
	return nil
}

// repaired is how long the replicas may take to agree again after one node's
// files were damaged.
const repaired = time.Minute

// corrupt stops a node, flips a bit in one of its files and starts it again.
// Before the next fault every replica must be whole again: as many nodes with
// damaged files as make a majority are more than anything can survive.
func (n *Nemesis) corrupt(ctx context.Context) error {
	p := n.some(1)[0]
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[n.rand.IntN(2)]
	if err := p.Signal(sig); err != nil {
		return err
	}
	pattern := []string{"data/shard/*/*", "data/shard/*/*", "meta/catalogue/*"}[n.rand.IntN(3)]
	if sig == syscall.SIGTERM && n.rand.IntN(3) > 0 { // after a kill damage to the last write looks like one that was not finished
		pattern = "wal/wal-*.seg"
	}
	names, err := filepath.Glob(filepath.Join(p.Dir(), pattern))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		name := names[n.rand.IntN(len(names))]
		at, err := n.flip(name)
		if err != nil {
			return err
		}
		n.log.Info("corrupt", "node", p.ID, "file", name, "byte", at, "stopped by", sig.String())
	}
	if err := p.Start(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), repaired)
	defer cancel()
	if err := p.WaitReady(wait); err != nil {
		return err
	}
	began := time.Now()
	if _, err := n.c.Agree(wait, p, copies); err != nil {
		return fmt.Errorf("node %d, %v after it started: %w", p.ID, repaired, err)
	}
	n.log.Info("all replicas are whole", "node", p.ID, "after", time.Since(began))
	return nil
}

// flip flips a bit of a file, of a byte that is not zero: the rest of a log is
// padding.
func (n *Nemesis) flip(name string) (at int, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	var used []int
	for i, v := range b {
		if v != 0 {
			used = append(used, i)
		}
	}
	if len(used) == 0 {
		return 0, nil
	}
	at = used[n.rand.IntN(len(used))]
	b[at] ^= 1 << n.rand.IntN(8)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return at, err
	}
	_, err = f.WriteAt(b[at:at+1], int64(at))
	return at, errors.Join(err, f.Close())
}
