//go:build mutants

package mutant

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var only = flag.String("mutant", "", "plant this one alone")

// hunts says who finds which mutant: a test of a package, of the seeds of
// internal/sim one.
var hunts = []struct{ mutant, pkg, test, flags string }{
	{"skip-log-sync", "wal", "TestPowerCut", ""},
	{"error-swallowed", "wal", "TestFailedSyncIsFatal", ""},
	{"skip-dir-fsync", "wal", "TestPowerCut", ""},
	{"checksum-skipped", "wal", "TestRandomDamageIsReported", ""},
	{"torn-equals-corrupt", "wal", "TestCheckpointProvesGroups", ""},
	{"recycle-early", "wal", "TestPowerCut", ""},
	{"reuse-replica-id", "raftnode", "TestRemove", ""},

	{"ack-before-sync", "raftnode", "TestNothingIsPromisedBeforeItIsDurable", ""},
	{"skip-vote-persist", "raftnode", "TestVoteOutlivesItsProcess", ""},
	{"truncate-above-flushed", "raftnode", "TestRestartSkipsWhatWasFlushed", ""},
	{"truncate-under-snapshot", "raftnode", "TestLogIsKeptForASnapshotOnItsWay", ""},
	{"apply-twice-with-new-version", "raftnode", "TestMembersSurviveARestartAtAnyPoint", ""},
	{"commit-behind-flush", "raftnode", "TestMembersSurviveARestartAtAnyPoint", ""},
	{"short-log-accepted", "raftnode", "TestLogShorterThanTheFlushIsQuarantined", ""},
	{"wrong-joint-quorum", "raftnode", "TestJointMembersSurviveARestart", ""},
	{"promote-without-catch-up", "raftnode", "TestUnsafeChangesAreRefused", ""},
	{"joiner-counted", "raftnode", "TestVoterThatWaitsForASnapshotIsNotCounted", ""},
	{"conf-of-other-index", "raftnode", "TestSnapshotNamesWhatMadeItsMembers", ""},
	{"left-too-early", "raftnode", "TestRemovedReplicasAreNotMissed", ""},
	{"old-replica-id-accepted", "raftnode", "TestStrayMessagesAreDropped", ""},
	{"readindex-without-wait-applied", "raftnode", "TestFollowerServesNoReadBeforeItsIndex", ""},
	{"stale-leader-serves", "raftnode", "TestLateRepliesDoNotConfirmALaterRead", ""},
	{"install-unannounced", "raftnode", "TestCrashAtEachStepOfAnInstall", ""},
	{"snapshot-done-lost", "raftnode", "TestFailedInstall", ""},
	{"lost-told-done", "raftnode", "TestOverwrittenProposalIsReportedLost", ""},
	{"unknown-told-refused", "raftnode", "TestOutcomesAreHonest", ""},

	{"dedupe-off", "shard", "TestRetryDoesNotUndoALaterWrite", ""},
	{"window-not-in-manifest", "shard", "TestRetryDoesNotUndoALaterWrite", ""},
	{"flush-loses-last-row", "shard", "TestScripts", ""},
	{"flush-without-fsync", "shard", "TestPowerCutAtEveryOperation", ""},
	{"skip-manifest-fsync", "shard", "TestScripts", ""},
	{"tombstone-resurrect", "shard", "TestScripts", ""},
	{"lww-by-arrival", "shard", "TestScripts", ""},
	{"compaction-drops-overlap", "shard", "TestScripts", ""},
	{"page-checksum-skipped", "segment", "TestFlippedBit", ""},
	{"hint-overwrites-newer", "shard", "TestScripts", ""},
	{"hint-resurrects", "shard", "TestScripts", ""},

	{"stale-epoch-accepted", "meta", "TestScripts", ""},
	{"last-copy-dropped", "meta", "TestScripts", ""},
	{"lag-ignored", "meta", "TestControllerScripts", ""},
	{"unknown-forgotten", "server/coord", "TestGiveUp", ""},
	{"sequence-unbounded", "server/coord", "TestSequencerAgainstTwin", ""},
	{"readindex-shared-too-late", "server", "TestReadIndexOfARunningCallIsNotShared", ""},
	{"snapshot-without-fsync", "server/rpc", "TestAnArrivedSnapshotSurvivesAPowerCut", ""},
	{"snapshot-unchecked", "server/rpc", "TestAFileThatDiffersFromItsManifestIsRefused", ""},
	{"stranger-accepted", "server/rpc", "TestStrangersAreRefused", ""},
}

// limit is how long a test may take; one that takes longer has found nothing.
const limit = 90 * time.Second

// TestMutants plants one bug after the other and has it found by the test that
// is named for it, which must pass without. It prints the table.
func TestMutants(t *testing.T) {
	var named []string
	bins, passed := map[string]string{}, map[string]error{}
	t.Logf("%-30s %8s  %s", "mutant", "found in", "by")
	for _, h := range hunts {
		named = append(named, h.mutant)
		if *only != "" && h.mutant != *only {
			continue
		}
		if bins[h.pkg] == "" {
			bins[h.pkg] = build(t, h.pkg)
		}
		what := strings.TrimSpace(h.test + " " + h.flags)
		run := func(mutant string) (string, error) { return hunt(bins[h.pkg], h.pkg, mutant, h.test, h.flags) }
		key := h.pkg + " " + what
		if _, tried := passed[key]; !tried {
			out, err := run("")
			if err != nil {
				t.Errorf("./%s %s fails without a mutant: %v\n%s", h.pkg, what, err, out)
			}
			passed[key] = err
		}
		began := time.Now()
		out, err := run(h.mutant)
		took := time.Since(began)
		t.Logf("%-30s %7.2fs  ./%s %s", h.mutant, took.Seconds(), h.pkg, what)
		if err == nil || strings.Contains(out, "panic: test timed out") || !regexp.MustCompile(`(?m)^(--- FAIL|panic: )`).MatchString(out) {
			t.Errorf("mutant %s is not found by ./%s %s: %v\n%s", h.mutant, h.pkg, what, err, tail(out))
		}
	}
	slices.Sort(named)
	slices.Sort(Names)
	if !slices.Equal(named, Names) {
		t.Errorf("the table has %v, planted are %v", named, Names)
	}
}

// build compiles the tests of a package with all mutants in them.
func build(t *testing.T, pkg string) string {
	bin := filepath.Join(t.TempDir(), "tests")
	out, err := exec.Command("go", "test", "-tags", "mutants", "-c", "-o", bin, "../../"+pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// hunt runs one test with a mutant.
func hunt(bin, pkg, mutant, test, flags string) (string, error) {
	args := append([]string{"-test.v", "-test.timeout=" + fmt.Sprint(limit), "-test.run=^" + test + "$"}, strings.Fields(flags)...)
	cmd := exec.Command(bin, args...)
	cmd.Dir = filepath.Join("../..", pkg)
	cmd.Env = append(os.Environ(), "DSDB_MUTANT="+mutant)
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.Contains(string(out), "--- PASS: "+test) {
		err = fmt.Errorf("there is no test %s", test)
	}
	return string(out), err
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
