package chaos

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

var (
	seconds = flag.Int("seconds", 20, "how long the nemesis does harm")
	nodes   = flag.Int("nodes", 3, "nodes of the cluster")
	seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults and the load")
	clients = flag.Int("clients", 16, "clients at a time")
)

// inHub is set in the environment of the process that runs in the hub.
const inHub = "DSDB_CHAOS_HUB"

// least is how many operations must be acknowledged each second.
const least = 500

// healed is how long the nodes may take to agree once all harm is undone.
const healed = 30 * time.Second

// TestChaos lets clients write and read while nodes suffer, and checks that
// nothing acknowledged is lost, nothing appears that was not written, and that
// each register behaves as if there was one copy of it.
func TestChaos(t *testing.T) {
	if hub := os.Getenv(inHub); hub != "" {
		run(t, Attach(hub, *nodes), os.Getenv("DSDB_CHAOS_DIR"), os.Getenv("DSDB_CHAOS_BINARY"))
		return
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "dsdbd")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/dasudian/dsdb/cmd/dsdbd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	small := filepath.Join(dir, fmt.Sprintf("node%d", *nodes)) // the last node's disk can be filled
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	hub := fmt.Sprintf("dsdb%d", os.Getpid())
	n, err := NewNetwork(hub, *nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.InHub(self, "-test.run=^TestChaos$", "-test.v", fmt.Sprint("-seconds=", *seconds), fmt.Sprint("-nodes=", *nodes),
		fmt.Sprint("-seed=", *seed), fmt.Sprint("-clients=", *clients))
	cmd.Env = append(os.Environ(), inHub+"="+hub, "DSDB_CHAOS_DIR="+dir, "DSDB_CHAOS_BINARY="+binary)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if keep := os.Getenv("DSDB_CHAOS_KEEP"); keep != "" {
			_ = exec.Command("cp", "-a", dir, keep).Run() // for whoever looks into it
		}
		t.Fatalf("%v; again: make chaos SECONDS=%d NODES=%d SEED=%d", err, *seconds, *nodes, *seed)
	}
}

// run is the test as it runs in the hub.
func run(t *testing.T, n *Network, dir, binary string) {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	p := NewProxy(n, *seed)
	defer p.Close()
	c, err := NewCluster(n, p, binary, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	starting, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := c.Start(starting); err != nil {
		t.Fatal(err)
	}
	load, err := NewLoad(starting, c, 3)
	if err != nil {
		t.Fatal(err)
	}
	nemesis := NewNemesis(c, *seed, log)
	ctx, stop := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second)
	defer stop()
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		load.Run(ctx, *clients, *seed)
	}()
	if err := nemesis.Run(ctx); err != nil {
		t.Error(err)
	}
	<-quiet
	rate := float64(load.Acked()) / float64(*seconds)
	t.Logf("%d operations acknowledged, %.0f/s; faults: %v", load.Acked(), rate, nemesis.Faults)
	if rate < least {
		t.Errorf("%.0f operations acknowledged per second: at least %d are wanted for the run to mean something", rate, least)
	}
	for _, text := range load.Odd() {
		t.Error("unexpected answer: ", text)
	}
	checkPoints(t, c, load)
	checkRegisters(t, load)
	if t.Failed() {
		for _, p := range c.Nodes {
			t.Logf("node %d:\n%s", p.ID, p.Tail())
		}
	}
}

// checkPoints waits until every node answers, and compares what they answer.
func checkPoints(t *testing.T, c *Cluster, load *Load) {
	ctx, cancel := context.WithTimeout(context.Background(), healed)
	defer cancel()
	for _, p := range c.Nodes {
		if err := p.WaitReady(ctx); err != nil {
			t.Error(err)
			continue
		}
		r, err := load.Check(ctx, p)
		for err != nil && ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
			r, err = load.Check(ctx, p)
		}
		if err != nil {
			t.Errorf("node %d does not answer %v after the last fault: %v", p.ID, healed, err)
			continue
		}
		t.Logf("node %d: %d points", p.ID, r.Points)
		if len(r.Lost) > 0 {
			t.Errorf("node %d: %d acknowledged points are lost: %v …", p.ID, len(r.Lost), r.Lost[:min(10, len(r.Lost))])
		}
		if len(r.Odd) > 0 {
			t.Errorf("node %d: %d points that nobody wrote so: %v …", p.ID, len(r.Odd), r.Odd[:min(10, len(r.Odd))])
		}
	}
}

// checkRegisters looks for an order of the operations on each register that
// explains all answers.
func checkRegisters(t *testing.T, load *Load) {
	var history []porcupine.Operation
	end := time.Since(load.started)
	for _, op := range load.Ops() {
		if op.End == 0 {
			op.End = end // it may take effect at any time
		}
		history = append(history, porcupine.Operation{ClientId: op.Client, Input: op, Output: op.Value, Call: int64(op.Start), Return: int64(op.End)})
	}
	switch porcupine.CheckOperationsTimeout(register, history, 5*time.Minute) {
	case porcupine.Illegal:
		t.Error("the registers are not linearizable")
	case porcupine.Unknown:
		t.Error("it could not be decided within 5 minutes whether the registers are linearizable")
	case porcupine.Ok:
		t.Logf("%d operations on registers are linearizable", len(history))
	}
}

var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, registers)
		for _, op := range history {
			k := op.Input.(Op).Key
			parts[k] = append(parts[k], op)
		}
		return parts
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		if op := input.(Op); op.Write {
			return true, op.Value
		}
		return output.(int64) == state.(int64), state
	},
}
