// Package coord holds the decisions of a coordinator: the node that has taken a
// write or a query and must find the leaders of the raft groups concerned. An
// Attempt follows one proposal or read on its way to the leader of its group,
// through refusals, changes of leader and outcomes that are not known; Leaders
// remembers who led; a Sequencer gives proposals their ids; Freshness says whether
// a stale read may be answered; Comparable and Judge tell which replicas of a shard
// are wrong.
//
// There is no clock, no randomness and no goroutine here: time comes in as a
// number, and what is to be done goes out as an Action, so that the server and
// the simulator drive the same code:
//
//	a, do := coord.Start(leaders, request, now())
//	for do.Op != coord.Done {
//		if do.Op == coord.Wait {
//			sleep(do.After)
//			do = a.Wake(now())
//		} else {
//			result, err = ask(do.Node, do.After)
//			do = a.Answer(now(), err)
//		}
//	}
//	// do.Err == nil: result is what the leader answered
//
// The package sends nothing itself and knows neither raft nor what is proposed.
package coord

import (
	"errors"
	"slices"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Op is what the driver of an Attempt is to do next.
type Op uint8

// The operations.
const (
	Send Op = iota // ask Action.Node, then call Answer
	Wait           // let Action.After pass, then call Wake
	Done           // it is over
)

// Action is what the driver of an Attempt is to do next.
type Action struct {
	Op   Op
	Node dsdb.NodeID // of Send
	// After is in milliseconds, at least 1. Of Send: if there is no answer by
	// then, the driver gives this try up and answers an error of KindTimeout.
	After int64
	Err   error // of Done; nil: what the last Send brought is the result
}

// Request says what an Attempt is for. Times are milliseconds on any scale
// that only grows.
type Request struct {
	Group dsdb.GroupID
	// Replicas are the nodes that have a voter of the group, in the order in
	// which they are asked if it is not known who leads: the own node first, if
	// it is one of them. They may be out of date: hints are followed elsewhere.
	Replicas []dsdb.NodeID
	Read     bool   // asking twice does no harm, and no answer means nothing happened
	Failure  string // what the error begins with if it did not happen: "write failed", "no quorum"
	Deadline int64
}

const (
	firstPause = 20   // ms; doubled each time
	maxPause   = 500  // ms
	firstTry   = 3000 // ms to wait for an answer while there are others to ask; doubled when none came
	maxHints   = 2    // hints to nodes outside of Replicas that are followed between two pauses
)

// Attempt is one proposal or read on its way. Not safe for concurrent use.
type Attempt struct {
	Request
	leaders *Leaders
	node    dsdb.NodeID   // asked last
	asked   []dsdb.NodeID // since the last pause
	turn    int           // of Replicas: the next one to be asked without a hint
	pause   int64         // the next one
	try     int64         // how long to wait for the next answer
	unknown bool          // a proposal may have been applied
	last    error         // why it is not done yet
}

// Start begins an attempt at time now. An attempt ends with Done; it may be
// given up at any time.
func Start(leaders *Leaders, r Request, now int64) (*Attempt, Action) {
	a := &Attempt{Request: r, leaders: leaders, pause: firstPause, try: firstTry}
	if len(r.Replicas) == 0 {
		a.last = dsdb.Errorf(dsdb.KindUnavailable, "raft group %d has no replica", r.Group)
		return a, a.expired()
	}
	return a, a.send(now, a.leaders.Leader(r.Group))
}

// Answer tells what the node that was asked said at time now: nil if it did
// it, KindNotLeader, KindUnavailable if nothing happened and may be tried
// again, KindTimeout if the outcome is not known. Any other error is final.
func (a *Attempt) Answer(now int64, err error) Action {
	if err == nil {
		a.leaders.Learn(a.Group, a.node)
		return Action{Op: Done}
	}
	a.leaders.Forget(a.Group, a.node)
	a.last = err
	switch dsdb.KindOf(err) {
	case dsdb.KindNotLeader:
		hint := leaderOf(err)
		a.leaders.Learn(a.Group, hint)
		return a.send(now, hint)
	case dsdb.KindTimeout:
		a.unknown = a.unknown || !a.Read
		a.try *= 2
		return a.send(now, 0)
	case dsdb.KindUnavailable:
		return a.wait(now)
	}
	return Action{Op: Done, Err: a.GiveUp(err)}
}

// leaderOf returns the node that a KindNotLeader error says leads, 0 if it names none.
func leaderOf(err error) dsdb.NodeID {
	var e *dsdb.Error
	if errors.As(err, &e) {
		return e.Leader
	}
	return 0
}

// Wake goes on after a pause, at time now.
func (a *Attempt) Wake(now int64) Action {
	a.asked = a.asked[:0]
	leader := a.leaders.Leader(a.Group)
	if leader == a.node {
		leader = 0 // somebody else's hint: it has just failed here
	}
	return a.send(now, leader)
}

// Elected goes on before a pause is over, at time now: node is said to lead since.
func (a *Attempt) Elected(now int64, node dsdb.NodeID) Action {
	a.asked = a.asked[:0]
	a.leaders.Learn(a.Group, node)
	return a.send(now, node)
}

// send asks the node hint, or if that is 0 or was asked already since the last
// pause, the next replica that was not. If none is left it pauses.
func (a *Attempt) send(now int64, hint dsdb.NodeID) Action {
	if now >= a.Deadline {
		return a.expired()
	}
	node := hint
	if node == 0 || slices.Contains(a.asked, node) || len(a.asked) >= len(a.Replicas)+maxHints {
		node = 0
		for range a.Replicas {
			next := a.Replicas[a.turn%len(a.Replicas)]
			a.turn++
			if !slices.Contains(a.asked, next) {
				node = next
				break
			}
		}
	}
	if node == 0 {
		return a.wait(now)
	}
	a.node = node
	a.asked = append(a.asked, node)
	within := a.Deadline - now
	if len(a.Replicas) > 1 {
		within = min(within, a.try)
	}
	return Action{Op: Send, Node: node, After: within}
}

// wait pauses, longer each time.
func (a *Attempt) wait(now int64) Action {
	if now >= a.Deadline {
		return a.expired()
	}
	after := min(a.pause, a.Deadline-now)
	a.pause = min(2*a.pause, maxPause)
	return Action{Op: Wait, After: after}
}

// expired ends an attempt whose time is over.
func (a *Attempt) expired() Action {
	text := a.Failure
	if a.last != nil {
		text += ": " + strings.TrimPrefix(a.last.Error(), a.Failure+": ")
	}
	return Action{Op: Done, Err: a.GiveUp(&dsdb.Error{Kind: dsdb.KindUnavailable, Text: text, Err: a.last})}
}

// GiveUp returns what is to be said of an attempt that its driver does not go
// on with, because of err: err, or KindTimeout if an earlier try may have succeeded.
func (a *Attempt) GiveUp(err error) error {
	if a.unknown && !mutant.UnknownForgotten && dsdb.KindOf(err) != dsdb.KindCanceled {
		return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: err}
	}
	return err
}
