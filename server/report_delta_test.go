package server

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// Through any changes, lost answers, restarts of the one that tells, and a second
// process that asks, the leader of the meta group ends up with all of the report.
func TestPartialReportsAddUpToWholeOnes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	led := map[dsdb.GroupID]meta.GroupReport{}
	whole := func() (r report) {
		for _, g := range led {
			r.Groups = append(r.Groups, g)
		}
		return r
	}
	sorted := func(gs []meta.GroupReport) []meta.GroupReport {
		gs = slices.Clone(gs)
		slices.SortFunc(gs, func(a, b meta.GroupReport) int { return int(a.Group) - int(b.Group) })
		return gs
	}
	told, epoch, last, partial := reportTold{}, uint64(1), heardReport{}, 0
	for range 2000 {
		for range random.IntN(3) {
			id := dsdb.GroupID(1 + random.IntN(20))
			if delete(led, id); random.IntN(3) > 0 {
				led[id] = meta.GroupReport{Group: id, Commit: random.Uint64N(3), Progress: []meta.Progress{{Replica: 2, Match: random.Uint64N(3)}}}
			}
		}
		switch random.IntN(20) {
		case 0:
			told, epoch = reportTold{}, epoch+1
		case 1:
			r := whole()
			told.reduce(&r, "another", last.number, epoch<<32)
		case 2: // the leader is another one now, in the same process
			last = heardReport{}
		}
		r := whole()
		told.reduce(&r, "leader", last.number, epoch<<32)
		b, err := json.Marshal(r)
		var got report
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		if random.IntN(10) == 0 {
			continue // the answer is lost
		}
		if got.Partial {
			partial++
			if len(got.Groups) > 6 {
				t.Fatalf("partial report of %d groups", len(got.Groups))
			}
		}
		last.complete(&got)
		last = heardReport{got.Number, got.Groups}
		if a, b := sorted(got.Groups), sorted(whole().Groups); len(a)+len(b) > 0 && !reflect.DeepEqual(a, b) {
			t.Fatalf("the leader knows %v\nit is %v", a, b)
		}
	}
	if partial < 1000 {
		t.Errorf("%d partial reports of 2000", partial)
	}
}
