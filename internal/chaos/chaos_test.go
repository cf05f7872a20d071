package chaos

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

var (
	seconds = flag.Int("seconds", 20, "how long the nemesis does harm")
	nodes   = flag.Int("nodes", 3, "nodes of the cluster")
	seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults and the load")
	kinds   = flag.String("faults", "", "the kinds of harm, with commas between; all if empty")
	clients = flag.Int("clients", 16, "clients at a time")
	least   = flag.Float64("least", 0, "operations that must be acknowledged each second for a run to mean something")
)

// healed is how long the nodes may take to agree once all harm is undone.
const healed = 30 * time.Second

// TestChaos lets clients write and read while nodes suffer, and checks that
// nothing acknowledged is lost, nothing appears that was not written, and that
// each register behaves as if there was one copy of it. What was acknowledged as
// durable on one node only must be there too: no disk is lost, and no file of
// hints is damaged.
func TestChaos(t *testing.T) { inNetwork(t, *nodes, chaos) }

func chaos(t *testing.T, c *Cluster) {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	load, err := NewLoad(t.Context(), c, copies)
	if err != nil {
		t.Fatal(err)
	}
	nemesis := NewNemesis(c, *seed, log, strings.FieldsFunc(*kinds, func(r rune) bool { return r == ',' })...)
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
	if rate < *least {
		t.Errorf("%.0f operations acknowledged per second: at least %.0f are wanted for the run to mean something", rate, *least)
	}
	for _, text := range load.Odd() {
		t.Error("unexpected answer: ", text)
	}
	checkHints(t, c)
	checkReplicas(t, c)
	checkPoints(t, c, load)
	checkRegisters(t, load)
}

// checkHints waits until what waited for leaders has been delivered.
func checkHints(t *testing.T, c *Cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), healed)
	defer cancel()
	if err := c.Deliver(ctx); err != nil {
		t.Errorf("%v after the last fault: %v", healed, err)
	}
}

// checkReplicas waits until all replicas of all shards hold the same.
func checkReplicas(t *testing.T, c *Cluster) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), healed)
	defer cancel()
	for _, p := range c.Nodes {
		if err := p.WaitReady(ctx); err != nil {
			t.Error(err)
		}
	}
	shards, err := c.Agree(ctx, c.Nodes[0], copies)
	if err != nil {
		t.Errorf("%v after the last fault: %v", healed, err)
	} else {
		t.Logf("the replicas of %d shards agree %v after the last fault", shards, time.Since(began))
	}
	if shards == 0 {
		t.Error("no shards were compared")
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
		t.Logf("node %d: %d points, %d of them once waited for a leader", p.ID, r.Points, r.Hinted)
		if len(r.Gone) > 0 {
			t.Errorf("node %d: %d points that waited for a leader are lost: %v …", p.ID, len(r.Gone), r.Gone[:min(10, len(r.Gone))])
		}
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
