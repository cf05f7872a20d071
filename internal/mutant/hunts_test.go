package mutant

// hunt says which test finds a mutant: one of a package, of the seeds of
// internal/sim one. A test of what users of other clusters suffered has the
// number of that in its name.
type hunt struct{ mutant, pkg, test string }

var hunts = []hunt{
	{"skip-log-sync", "wal", "TestPowerCut"},
	{"error-swallowed", "wal", "TestFailedSyncIsFatal"},
	{"skip-dir-fsync", "wal", "TestPowerCut"},
	{"checksum-skipped", "wal", "TestRandomDamageIsReported"},
	{"torn-equals-corrupt", "wal", "TestCheckpointProvesGroups"},
	{"recycle-early", "wal", "TestPowerCut"},
	{"reuse-replica-id", "raftnode", "TestRemove"},

	{"ack-before-sync", "raftnode", "TestNothingIsPromisedBeforeItIsDurable"},
	{"skip-vote-persist", "raftnode", "TestVoteOutlivesItsProcess"},
	{"votes-asked-before-sync", "raftnode", "TestNoVotesAreAskedForBeforeTheTermIsDurable"},
	{"truncate-above-flushed", "raftnode", "TestRestartSkipsWhatWasFlushed"},
	{"truncate-under-snapshot", "raftnode", "TestLogIsKeptForASnapshotOnItsWay"},
	{"apply-twice-with-new-version", "raftnode", "TestMembersSurviveARestartAtAnyPoint"},
	{"commit-behind-flush", "raftnode", "TestMembersSurviveARestartAtAnyPoint"},
	{"short-log-accepted", "raftnode", "TestLogShorterThanTheFlushIsQuarantined"},
	{"wrong-joint-quorum", "raftnode", "TestJointMembersSurviveARestart"},
	{"promote-without-catch-up", "raftnode", "TestUnsafeChangesAreRefused"},
	{"joiner-counted", "raftnode", "TestVoterThatWaitsForASnapshotIsNotCounted"},
	{"joiner-counted", "internal/sim", "TestSeeds"},
	{"conf-of-other-index", "raftnode", "TestSnapshotNamesWhatMadeItsMembers"},
	{"conf-of-other-index", "internal/sim", "TestSeeds"},
	{"left-too-early", "raftnode", "TestRemovedReplicasAreNotMissed"},
	{"old-replica-id-accepted", "raftnode", "TestStrayMessagesAreDropped"},
	{"readindex-without-wait-applied", "raftnode", "TestFollowerServesNoReadBeforeItsIndex"},
	{"stale-leader-serves", "raftnode", "TestLateRepliesDoNotConfirmALaterRead"},
	{"install-unannounced", "raftnode", "TestCrashAtEachStepOfAnInstall"},
	{"snapshot-done-lost", "raftnode", "TestFailedInstall"},
	{"lost-told-done", "raftnode", "TestOverwrittenProposalIsReportedLost"},
	{"unknown-told-refused", "raftnode", "TestOutcomesAreHonest"},
	{"witness-forgets-early", "raftnode", "TestWitnessKeepsWhatAReplicaLacks"},
	{"laggards-left", "server", "TestC8NodeCatchesUp"},

	{"dedupe-off", "shard", "TestRetryDoesNotUndoALaterWrite"},
	{"window-not-in-manifest", "shard", "TestRetryDoesNotUndoALaterWrite"},
	{"flush-loses-last-row", "shard", "TestScripts"},
	{"flush-without-fsync", "shard", "TestPowerCutAtEveryOperation"},
	{"skip-manifest-fsync", "shard", "TestScripts"},
	{"tombstone-resurrect", "shard", "TestScripts"},
	{"lww-by-arrival", "shard", "TestScripts"},
	{"compaction-drops-overlap", "shard", "TestScripts"},
	{"page-checksum-skipped", "segment", "TestFlippedBit"},
	{"hint-overwrites-newer", "shard", "TestScripts"},
	{"hint-resurrects", "shard", "TestScripts"},

	{"stale-epoch-accepted", "meta", "TestScripts"},
	{"last-copy-dropped", "meta", "TestScripts"},
	{"last-copy-dropped", "server", "TestC3LastCopyIsKept"},
	{"witness-counts-as-copy", "meta", "TestScripts"},
	{"majority-ignored", "meta", "TestControllerScripts"},
	{"lag-ignored", "meta", "TestControllerScripts"},
	{"voters-unbounded", "meta", "TestControllerScripts"},
	{"dropped-comes-back", "server", "TestC2DroppedMetaNodeStaysAway"},
	{"address-kept", "server", "TestC14AddressOfANodeChanges"},
	{"unknown-forgotten", "server/coord", "TestGiveUp"},
	{"sequence-unbounded", "server/coord", "TestSequencerAgainstTwin"},
	{"tie-decided", "server/coord", "TestReplicasAreCompared"},
	{"tie-decided", "server", "TestTwoReplicasThatDifferStay"},
	{"tie-decided", "internal/sim", "TestStores"},
	{"staleness-unbounded", "server/coord", "TestFreshness"},
	{"staleness-unbounded", "internal/sim", "TestStores"},
	{"readindex-shared-too-late", "server", "TestReadIndexOfARunningCallIsNotShared"},
	{"snapshot-without-fsync", "server/rpc", "TestAnArrivedSnapshotSurvivesAPowerCut"},
	{"snapshot-unchecked", "server/rpc", "TestAFileThatDiffersFromItsManifestIsRefused"},
	{"stranger-accepted", "server/rpc", "TestTSEC17StrangersAreRefused"},
	{"few-calls-at-once", "server", "TestC20ManyWritersThroughOneNode"},
	{"versions-must-match", "internal/chaos", "TestS26C29RollingUpgrade"},

	{"each-founds-its-own", "server", "TestC15SameListEverywhereFoundsOneCluster"},
	{"roles-ignored", "server", "TestC16Roles"},
	{"loopback-told", "server", "TestC13LoopbackIsNotToldToOthers"},
	{"blank-meta-accepted", "server", "TestC12PointsWithoutTheirCatalogue"},
	{"catalogue-not-copied", "server", "TestC12PointsWithoutTheirCatalogue"},
	{"all-must-start", "server", "TestC11RestartOfASubset"},

	{"replica-read-as-is", "server", "TestC7EveryNodeAnswersTheSame"},
	{"local-shards-only", "server", "TestC18SchemaOfTheWholeCluster"},
	{"delete-only-here", "server", "TestC17DropsReachNodesThatWereAway"},
	{"expired-untold", "server", "TestC10NothingIsDroppedSilently"},
	{"dropped-shard-taken", "server", "TestC10DropBesideAWrite"},
	{"silence-is-up", "server", "TestC22ShowCluster"},
	{"quorum-unsaid", "server", "TestC26WithoutQuorum"},
	{"waits-for-ever", "server", "TestC26WithoutQuorum"},
	{"http-unanswered", "server", "TestC28HTTPOnTheClusterPort"},
}

// pains are the numbers of what users of other clusters suffered, each of which
// a test has to find if our answer to it is taken out.
var pains = []int{2, 3, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 26, 28, 29}

// gate are the bugs that the design wants found, by the names that they have here.
var gate = []string{"ack-before-sync", "skip-vote-persist", "skip-dir-fsync", "truncate-above-flushed",
	"apply-twice-with-new-version", "reuse-replica-id", "dedupe-off", "snapshot-without-fsync", "wrong-joint-quorum",
	"readindex-without-wait-applied", "stale-epoch-accepted", "lww-by-arrival", "flush-loses-last-row",
	"tombstone-resurrect", "hint-overwrites-newer", "compaction-drops-overlap", "checksum-skipped", "torn-equals-corrupt",
	"promote-without-catch-up", "error-swallowed"}
