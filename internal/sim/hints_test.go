package sim

import (
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/shard"
)

// A hint comes late, and more than once, by different coordinators, while
// leaders die and replicas start again from what they have flushed: it fills what
// is missing, and undoes neither an overwrite nor a delete. All replicas agree on
// what came of it.
func TestS31HintsComeLate(t *testing.T) {
	storeScenario(t, 3, 3, 3, 8, func(s *storeScript) {
		m := s.members[0]
		there, missing, gone := cell{db: "a"}, cell{db: "a", field: 1}, cell{db: "a", slot: 1}
		s.puts(m, there)
		g := s.group(m, there)
		s.write += 3
		value := s.write
		late := []point{{values: [len(fields)]uint64{value - 2, value - 1}}, {slot: 1, values: [len(fields)]uint64{value}}}
		hint := shard.AppendHint(nil, s.leaderOf(g).Status(g).Commit, batch(late))
		filled := &call{write: true, value: value - 1}
		end := s.begin(missing, filled)

		newer := s.puts(m, there)
		s.puts(m, gone)
		if err := s.answered(s.attempt(func(tell func(error)) { s.remove(m, gone, false, tell) })); err != nil {
			s.t.Fatal(err)
		}
		for round := range 3 {
			l := s.leaderOf(g)
			index := l.Status(g).Last
			from := s.other(l)
			a := s.attempt(func(tell func(error)) {
				from.propose(g, func(id dsdb.ProposalID) []byte { return shard.AppendHints(nil, id, 0, [][]byte{hint}) }, func(v dsdb.Verdict, err error) {
					if err == nil && filled.end == 0 {
						end()
						filled.index = v.Index
					}
					tell(err)
				})
			})
			s.until("the leader has it", func() bool { return l.Status(g).Last > index || a.told > 0 })
			if round > 0 {
				l.Kill()
				s.Run(s.Between(0, time.Second))
				s.start(l)
				s.until("the leader is back", func() bool { return s.members[l.Index].alive() && s.members[l.Index].serving })
			}
			s.until("there is an outcome", func() bool { return a.told > 0 })
		}
		for c, want := range map[cell]uint64{there: newer, missing: value - 1, gone: 0} {
			if got := s.sees(s.members[s.Rand.IntN(3)], c); got != want {
				s.t.Errorf("%+v is %d, want %d", c, got, want)
			}
		}
		s.settle()
	})
}
