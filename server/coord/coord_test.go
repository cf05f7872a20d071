package coord

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Scripts in testdata drive one attempt. The commands:
//
//	start replicas=(N,…) deadline=MS [read] [at=MS]   the leaders learned so far are kept
//	learn N                                           somebody else learned that N leads
//	answer [at=MS] ok | notleader [leader=N] | unavailable | timeout | canceled | conflict
//	wake at=MS
//	elected N [at=MS]                                 instead of wake: N leads now
//
// Time stands still unless at says otherwise; wake without at comes after the pause.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, file string) {
		leaders, now := &Leaders{}, int64(0)
		var a *Attempt
		var do Action
		datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
			if d.HasArg("at") {
				d.ScanArgs(t, "at", &now)
			}
			switch d.Cmd {
			case "start":
				r := Request{Group: 7, Read: d.HasArg("read"), Failure: "write failed"}
				if r.Read {
					r.Failure = "no quorum"
				}
				for _, arg := range d.CmdArgs {
					if arg.Key == "replicas" {
						for _, v := range arg.Vals {
							var n dsdb.NodeID
							if _, err := fmt.Sscan(v, &n); err == nil {
								r.Replicas = append(r.Replicas, n)
							}
						}
					}
				}
				d.ScanArgs(t, "deadline", &r.Deadline)
				a, do = Start(leaders, r, now)
			case "learn":
				var n dsdb.NodeID
				fmt.Sscan(d.CmdArgs[0].Key, &n)
				leaders.Learn(7, n)
				return ""
			case "answer":
				do = a.Answer(now, scriptedError(t, d))
			case "wake":
				if !d.HasArg("at") {
					now += do.After
				}
				do = a.Wake(now)
			case "elected":
				var n dsdb.NodeID
				fmt.Sscan(d.CmdArgs[0].Key, &n)
				do = a.Elected(now, n)
			}
			return do.print(leaders)
		})
	})
}

func scriptedError(t *testing.T, d *datadriven.TestData) error {
	switch d.CmdArgs[len(d.CmdArgs)-1].Key {
	case "ok":
		return nil
	case "notleader":
		return &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "not the leader"}
	case "leader":
		e := &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "not the leader"}
		d.ScanArgs(t, "leader", &e.Leader)
		return fmt.Errorf("asked: %w", e)
	case "unavailable":
		return dsdb.Errorf(dsdb.KindUnavailable, "connection refused")
	case "timeout":
		return dsdb.Errorf(dsdb.KindTimeout, "no answer")
	case "canceled":
		return dsdb.Errorf(dsdb.KindCanceled, "the client went away")
	}
	return dsdb.Errorf(dsdb.KindConflict, "field type conflict")
}

func (do Action) print(l *Leaders) string {
	switch do.Op {
	case Send:
		return fmt.Sprintf("send to %d, at most %d ms\n", do.Node, do.After)
	case Wait:
		return fmt.Sprintf("wait %d ms\n", do.After)
	}
	if do.Err == nil {
		return fmt.Sprintf("done; %d leads\n", l.Leader(7))
	}
	return fmt.Sprintf("%s: %v\n", [...]string{dsdb.KindTimeout: "timeout", dsdb.KindUnavailable: "unavailable",
		dsdb.KindCanceled: "canceled", dsdb.KindConflict: "conflict"}[dsdb.KindOf(do.Err)], do.Err)
}

// group is a raft group in which nodes go down, lead, and believe that others do.
type group struct {
	r        *rand.Rand
	replicas []dsdb.NodeID
	leader   dsdb.NodeID                 // 0: none
	down     map[dsdb.NodeID]bool        // refuses connections
	mute     map[dsdb.NodeID]bool        // takes requests and does not answer
	believes map[dsdb.NodeID]dsdb.NodeID // who leads
}

func (g *group) change() {
	for _, n := range g.replicas {
		g.down[n], g.mute[n] = g.r.IntN(3) == 0, g.r.IntN(4) == 0
		g.believes[n] = dsdb.NodeID(g.r.IntN(len(g.replicas) + 3))
	}
	g.leader = 0
	if n := g.replicas[g.r.IntN(len(g.replicas))]; !g.down[n] && !g.mute[n] && g.r.IntN(3) > 0 {
		g.leader = n
	}
}

// ask returns what a node answers, and how long that takes.
func (g *group) ask(do Action) (took int64, err error) {
	switch n := do.Node; {
	case g.down[n] || n > dsdb.NodeID(len(g.replicas)):
		return g.r.Int64N(2), dsdb.Errorf(dsdb.KindUnavailable, "connection refused")
	case g.mute[n]:
		return do.After, dsdb.Errorf(dsdb.KindTimeout, "no answer")
	case n == g.leader:
		return 1 + g.r.Int64N(20), nil
	default:
		return g.r.Int64N(3), &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "not the leader", Leader: g.believes[n]}
	}
}

// Whatever a group does: an attempt ends by its deadline, says what is true of
// the outcome, does not ask in a busy loop, and once there is a leader that
// stays it is found.
func TestAttemptsEnd(t *testing.T) {
	ended := map[string]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := &group{r: r, down: map[dsdb.NodeID]bool{}, mute: map[dsdb.NodeID]bool{}, believes: map[dsdb.NodeID]dsdb.NodeID{}}
		for n := range 1 + r.IntN(5) {
			g.replicas = append(g.replicas, dsdb.NodeID(n+1))
		}
		g.change()
		changesUntil := r.Int64N(20_000)
		leaders := &Leaders{}
		leaders.Learn(7, dsdb.NodeID(r.IntN(9)))
		q := Request{Group: 7, Replicas: g.replicas, Read: r.IntN(2) == 0, Failure: "write failed", Deadline: r.Int64N(60_000)}
		now, sends, unknown := int64(0), 0, false
		a, do := Start(leaders, q, now)
		for do.Op != Done {
			if do.After < 1 || now+do.After > q.Deadline {
				t.Fatalf("seed %d: at %d of %d ms: %+v", seed, now, q.Deadline, do)
			}
			if now < changesUntil && r.IntN(4) == 0 {
				g.change()
			}
			if do.Op == Wait {
				sends = 0
				now += do.After
				do = a.Wake(now)
				continue
			}
			if sends++; sends > len(g.replicas)+maxHints {
				t.Fatalf("seed %d: %d requests without a pause", seed, sends)
			}
			took, err := g.ask(do)
			now += took
			unknown = unknown || !q.Read && dsdb.KindOf(err) == dsdb.KindTimeout
			do = a.Answer(now, err)
			if do.Op == Done && (do.Err == nil) != (err == nil) {
				t.Fatalf("seed %d: done with %v after an answer of %v", seed, do.Err, err)
			}
		}
		kind := dsdb.KindOf(do.Err)
		ended[fmt.Sprint(do.Err == nil, kind)]++
		switch {
		case do.Err == nil:
		case unknown != (kind == dsdb.KindTimeout), !unknown && kind != dsdb.KindUnavailable:
			t.Fatalf("seed %d: unknown %v, but ended with %v", seed, unknown, do.Err)
		case now < q.Deadline:
			t.Fatalf("seed %d: ended at %d of %d ms with %v", seed, now, q.Deadline, do.Err)
		case g.leader != 0 && q.Deadline-changesUntil > 40_000:
			t.Fatalf("seed %d: node %d led, and was not found: %v", seed, g.leader, do.Err)
		}
	}
	if len(ended) != 3 {
		t.Errorf("attempts ended in %v only", ended)
	}
}

// Of five nodes one that is cut off from the others believes in a leader that
// is down, and others' attempts spread the word: the new leader is found
// nevertheless.
func TestWrongHintsDoNotHideTheLeader(t *testing.T) {
	leaders := &Leaders{}
	a, do := Start(leaders, Request{Group: 7, Replicas: []dsdb.NodeID{1, 2, 3, 4, 5}, Failure: "write failed", Deadline: 5000}, 0)
	now := int64(0)
	for do.Op != Done {
		switch {
		case do.Op == Wait:
			now += do.After
			leaders.Learn(7, 1)
			do = a.Wake(now)
		case do.Node == 1:
			do = a.Answer(now, dsdb.Errorf(dsdb.KindUnavailable, "connection refused"))
		case do.Node == 2:
			do = a.Answer(now, &dsdb.Error{Kind: dsdb.KindNotLeader, Leader: 1})
		case do.Node == 3:
			do = a.Answer(now, nil)
		default:
			do = a.Answer(now, &dsdb.Error{Kind: dsdb.KindNotLeader, Leader: 3})
		}
	}
	if do.Err != nil || now > 500 {
		t.Errorf("%v after %d ms", do.Err, now)
	}
}

// Who gives an attempt up says what is true: what ended it, unless an earlier try
// may have succeeded.
func TestGiveUp(t *testing.T) {
	closing := dsdb.Errorf(dsdb.KindUnavailable, "the node is shutting down")
	a, _ := Start(&Leaders{}, Request{Group: 7, Replicas: []dsdb.NodeID{1, 2}, Failure: "write failed", Deadline: 9000}, 0)
	a.Answer(1, dsdb.Errorf(dsdb.KindUnavailable, "connection refused"))
	if err := a.GiveUp(closing); err != closing {
		t.Errorf("nothing happened, but %v", err)
	}
	a.Wake(21)
	a.Answer(3000, dsdb.Errorf(dsdb.KindTimeout, "no answer"))
	if err := a.GiveUp(closing); dsdb.KindOf(err) != dsdb.KindTimeout || !errors.Is(err, closing) {
		t.Errorf("the outcome is not known, but %v", err)
	}
}

// The text of a failure is said once, and its cause can be found.
func TestFailureKeepsItsCause(t *testing.T) {
	cause := errors.New("no route to host")
	a, _ := Start(&Leaders{}, Request{Group: 7, Replicas: []dsdb.NodeID{1}, Failure: "write failed", Deadline: 10}, 0)
	a.Answer(1, dsdb.Errorf(dsdb.KindUnavailable, "write failed: %w", cause))
	do := a.Wake(10)
	if !errors.Is(do.Err, cause) || strings.Count(do.Err.Error(), "write failed") != 1 {
		t.Errorf("%v", do.Err)
	}
}
