// Package coord holds the decisions of a coordinator: the node that has taken a
// write or a query and must find the leaders of the raft groups concerned. An
// Attempt follows one proposal or read on its way to the leader of its group,
// through refusals, changes of leader and outcomes that are not known; Leaders
// remembers who led; a Sequencer gives proposals their ids.
//
// There is no clock, no randomness and no goroutine here: time comes in as a
// number, and what is to be done goes out as an Action, so that the server and
// the simulator drive the same code. The package sends nothing itself and knows
// neither raft nor what is proposed.
package coord

import (
	"github.com/dasudian/dsdb"
)

// Op is what the driver of an Attempt is to do next.
type Op uint8

// The operations.
const (
	Send Op = iota // ask Action.Node; call Answer with what came of it
	Wait           // call Wake after Action.After
	Done           // it is over: Action.Err
)

// Action is what the driver of an Attempt is to do next.
type Action struct {
	Op   Op
	Node dsdb.NodeID // of Send
	// After is in milliseconds. Of Wait: how long to wait. Of Send: how long to
	// wait for the answer, at least 1; after that Answer an error of KindTimeout.
	After int64
	Err   error // of Done; nil: what the last Answer brought is the result
}
