package coord

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
)

// Digest is what a whole replica of a shard says of its content, when it is
// asked how it is, or that it says nothing.
type Digest struct {
	Replica  dsdb.ReplicaID
	Role     meta.ReplicaRole // as the catalogue has it
	Applied  uint64           // index of the last entry that it has applied
	Checking uint64           // index of the entry whose digest it computes; 0: none
	Index    uint64           // of the entry right after which it had the last digest; 0: there is none
	Sum      string           // the last digest
	Failed   bool             // it is out of service or damaged, or does not answer
}

// votes reports whether the replica has a vote, at least until it is replaced.
func (d *Digest) votes() bool { return d.Role == meta.Voter || d.Role == meta.LeavingVoter }

// has reports whether the replica is well and has a digest of an entry.
func (d *Digest) has(index uint64) bool { return !d.Failed && d.Index == index }

// Comparable tells at which entry of the log of a shard its replicas can be
// compared: at index, or at a later one whose digest one of them has or computes,
// since none keeps two. More is not to be waited for if over: all replicas vote
// and have a digest of that entry, or a voter has passed the entry without, being
// filled from another meanwhile, and none computes one.
func Comparable(index uint64, replicas []Digest) (at uint64, over bool) {
	for _, d := range replicas {
		index = max(index, d.Index, d.Checking)
	}
	all, passed, checking := true, false, false
	for i := range replicas {
		d := &replicas[i]
		all = all && d.Role == meta.Voter && d.has(index)
		checking = checking || d.Checking != 0
		passed = passed || d.Role == meta.Voter && !d.Failed && d.Index < index && d.Applied >= index && d.Checking == 0
	}
	return index, all || passed && !checking
}

// Judgement is what follows from the digests of a shard's replicas. A comparison
// that neither agrees nor differs has told nothing.
type Judgement struct {
	Agree  bool             // every replica votes, and holds the same
	Differ bool             // some voters hold something else than others
	Voters int              // how many there are
	Same   int              // how many of them, more than half, hold the same; 0: there is no such majority
	Wrong  []dsdb.ReplicaID // those that differ from that majority, which is taken to be right
}

// Judge compares the replicas of a shard by their digests of the entry at index.
func Judge(index uint64, replicas []Digest) (j Judgement) {
	count, compared, right := map[string]int{}, 0, ""
	for i := range replicas {
		if d := &replicas[i]; d.votes() {
			j.Voters++
			if d.has(index) {
				compared++
				count[d.Sum]++
			}
		}
	}
	j.Agree = len(count) == 1 && compared == len(replicas)
	j.Differ = len(count) > 1
	for sum, n := range count {
		if j.Differ && (2*n > j.Voters || mutant.TieDecided && 2*n == j.Voters) { // true of one sum at most
			j.Same, right = n, sum
		}
	}
	for i := range replicas {
		if d := &replicas[i]; j.Same > 0 && d.has(index) && d.Sum != right {
			j.Wrong = append(j.Wrong, d.Replica)
		}
	}
	return j
}
