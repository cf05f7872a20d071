package coord

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// digests reads replicas 1, 2, … as the tests below write them: a role (Voter,
// Leaving voter, New learner), the entry of the last digest and that digest,
// then +N if entry N has been applied since, ~N if the digest of N is being
// computed, ! if the replica is damaged or does not answer.
func digests(t *testing.T, text string) (ds []Digest) {
	roles := map[byte]meta.ReplicaRole{'V': meta.Voter, 'L': meta.LeavingVoter, 'N': meta.Learner}
	for i, word := range strings.Fields(text) {
		d := Digest{Replica: dsdb.ReplicaID(i + 1), Role: roles[word[0]], Failed: strings.HasSuffix(word, "!")}
		word = strings.TrimSuffix(word[1:], "!")
		if at := strings.IndexAny(word, "+~"); at >= 0 {
			fmt.Sscan(word[at+1:], &d.Applied)
			if word[at] == '~' {
				d.Checking = d.Applied
			}
			word = word[:at]
		}
		if n, _ := fmt.Sscanf(word, "%d%s", &d.Index, &d.Sum); n == 0 && word != "" {
			t.Fatalf("replica %q", word)
		}
		d.Applied = max(d.Applied, d.Index)
		ds = append(ds, d)
	}
	return ds
}

// A digest was asked for at entry 9. Once waiting is over the replicas are judged.
func TestReplicasAreCompared(t *testing.T) {
	for _, c := range []struct{ replicas, at, judgement string }{
		{"V9a V9a V9a", "9", "agree"},
		{"V9a", "9", "agree"},
		{"V9a V9a V", "9, wait", ""},             // it is on its way
		{"V9a V9a V7b+8", "9, wait", ""},         // that is behind
		{"V9a V9a V~9", "9, wait", ""},           // that computes
		{"V9a V9a V7a+9", "9", "-"},              // filled from another meanwhile: to be asked again
		{"V9a V7a~9 V7a+9", "9, wait", ""},       // but not while one computes
		{"V9a V9a V!", "9, wait", ""},            // it may answer yet
		{"V9a V9a N9a", "9, wait", ""},           // it may get its vote yet
		{"V12a V9a V9a", "12, wait", ""},         // somebody else asks at 12
		{"V12a V12a V9b~12", "12, wait", ""},     // and that digest is the one to wait for
		{"V12a V12a V12b", "12", "3 wrong of 3"}, // at 9 they may have been equal
		{"V9a V9b V9a", "9", "2 wrong of 3"},     // whoever leads
		{"V9a V9b V9c", "9", "differ"},           // no majority
		{"V9a V9b", "9", "differ"},               // of two nobody can tell
		{"V9a V9a V9b V9b", "9", "differ"},       // nor of four
		{"V9b V9a V9a V9c V9a", "9", "1 4 wrong of 5"},
		{"V9a V9a V9a V9b V9b", "9", "4 5 wrong of 5"},
	} {
		ds := digests(t, c.replicas)
		at, over := Comparable(9, ds)
		got := fmt.Sprint(at)
		if !over {
			got += ", wait"
		}
		if got != c.at {
			t.Errorf("%s: compared at %s, want %s", c.replicas, got, c.at)
		}
		if over && print(Judge(at, ds)) != c.judgement {
			t.Errorf("%s: %s, want %s", c.replicas, print(Judge(at, ds)), c.judgement)
		}
	}
}

// When time is up, those are judged that have answered. The majority is one of
// all who vote, not of those who have.
func TestTimeIsUp(t *testing.T) {
	for replicas, want := range map[string]string{
		"V9a V9a V!":        "-",
		"V9a V9b V!":        "differ",
		"V9a V9a V9b!":      "-", // it is known to be damaged
		"V9a V9b V7a+8":     "differ",
		"V9a V9a V9b V! V!": "differ",
		"V9a V9a V9b V9a V": "3 wrong of 5",
		"V9a L9a V9b":       "3 wrong of 3",
		"V9a L9b":           "differ",
		"V9a V9b N9a":       "differ", // who has no vote does not decide
		"V9a V9a V9b N9b":   "3 4 wrong of 3",
		"V9a V9a N9b":       "-", // it is compared when it votes
		"V! V!":             "-",
		"":                  "-",
	} {
		if got := print(Judge(9, digests(t, replicas))); got != want {
			t.Errorf("%s: %s, want %s", replicas, got, want)
		}
	}
}

func print(j Judgement) string {
	switch {
	case j.Agree:
		return "agree"
	case len(j.Wrong) > 0:
		return fmt.Sprintf("%s wrong of %d", strings.Trim(fmt.Sprint(j.Wrong), "[]"), j.Voters)
	case j.Differ:
		return "differ"
	}
	return "-"
}

// A replica is as fresh as the question to its leader was: what the answer took
// is not counted for it.
func TestFreshness(t *testing.T) {
	const s = time.Second
	var f Freshness
	if f.Within(7, 0, s) || !f.Within(7, 1000*s, 0) {
		t.Error("of a replica that never was current only any age is known to be enough")
	}
	f.Current(7, 10*s)
	f.Current(7, 8*s) // an earlier question, answered later
	for now, fresh := range map[time.Duration]bool{10 * s: true, 11 * s: true, 11*s + 1: false} {
		if f.Within(7, now, s) != fresh {
			t.Errorf("at %v a replica current at 10 s is at most 1 s old: %v", now, !fresh)
		}
	}
	if at, known := f.AsOf(7); at != 10*s || !known {
		t.Errorf("as of %v, %v", at, known)
	}
	if _, known := f.AsOf(8); known {
		t.Error("how old another group is is known")
	}
	if f.Within(8, 10*s, s) {
		t.Error("another group is fresh too")
	}
	f.Forget(7)
	if f.Within(7, 10*s, s) {
		t.Error("a replica in the place of another is as fresh as that was")
	}
}
