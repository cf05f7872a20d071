package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
)

// The bounds of POST /debug/verify.
const (
	verifyDefault = 30 * time.Second
	verifyMost    = 10 * time.Minute
	verifyAtOnce  = 4 // shards
)

// verifyAnswer is what POST /debug/verify answers.
type verifyAnswer struct {
	Agree  bool         `json:"agree"` // in all shards all replicas do
	Shards []shardCheck `json:"shards"`
}

// serveVerify answers POST /debug/verify?db=name&wait=30s: it has the replicas of
// all shards, or of those of a database, compared, and says what came of it.
func (n *Node) serveVerify(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	wait := verifyDefault
	if text := q.Get("wait"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			answerJSON(w, http.StatusBadRequest, map[string]string{"error": "wait wants a duration such as 30s"})
			return
		}
		wait = min(d, verifyMost)
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if err := n.readIndex(ctx, dsdb.MetaGroup); err != nil {
		answerJSON(w, http.StatusServiceUnavailable, map[string]string{"error": n.withoutQuorum(err).Error()})
		return
	}
	var ids []dsdb.ShardID
	for _, g := range n.meta.View().Groups() {
		if db := q.Get("db"); db != "" && db != g.Database.Name {
			continue
		}
		for _, sh := range g.Group.Shards {
			ids = append(ids, sh.ID)
		}
	}
	answerJSON(w, http.StatusOK, n.compareAll(ctx, ids))
}

// compareAll compares the replicas of shards, some shards at a time.
func (n *Node) compareAll(ctx context.Context, ids []dsdb.ShardID) verifyAnswer {
	checks := make([]shardCheck, len(ids))
	atOnce(verifyAtOnce, ids, func(i int, id dsdb.ShardID) { checks[i] = n.compare(ctx, id) })
	a := verifyAnswer{Agree: true, Shards: []shardCheck{}}
	for _, c := range checks {
		if c.Replicas != nil { // else it was dropped
			a.Shards = append(a.Shards, c)
			a.Agree = a.Agree && c.Agree
		}
	}
	slices.SortFunc(a.Shards, func(x, y shardCheck) int { return cmp.Compare(x.Shard, y.Shard) })
	return a
}

func answerJSON(w http.ResponseWriter, code int, what any) {
	b, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("BUG: answer as JSON: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // who asked may be gone
}
