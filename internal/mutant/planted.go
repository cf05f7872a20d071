//go:build mutants

package mutant

import "os"

// Tag is the tag that a program with mutants is built with.
const Tag = "mutants"

// Names are those of all mutants.
var Names []string

// plant names a mutant and reports whether it is the one that was chosen.
func plant(name string) bool {
	Names = append(Names, name)
	return name == os.Getenv("DSDB_MUTANT")
}

// Of the log.
var (
	SkipLogSync       = plant("skip-log-sync")
	ErrorSwallowed    = plant("error-swallowed")
	SkipDirFsync      = plant("skip-dir-fsync")
	ChecksumSkipped   = plant("checksum-skipped")
	TornEqualsCorrupt = plant("torn-equals-corrupt")
	RecycleEarly      = plant("recycle-early")
	ReuseReplicaID    = plant("reuse-replica-id")
	DamageForgotten   = plant("damage-forgotten")
)

// Of raft groups.
var (
	AckBeforeSync         = plant("ack-before-sync")
	SkipVotePersist       = plant("skip-vote-persist")
	VotesAskedBeforeSync  = plant("votes-asked-before-sync")
	TruncateAboveFlushed  = plant("truncate-above-flushed")
	TruncateUnderSnapshot = plant("truncate-under-snapshot")
	ApplyTwice            = plant("apply-twice-with-new-version")
	CommitBehindFlush     = plant("commit-behind-flush")
	ShortLogAccepted      = plant("short-log-accepted")
	WrongJointQuorum      = plant("wrong-joint-quorum")
	PromoteWithoutCatchUp = plant("promote-without-catch-up")
	JoinerCounted         = plant("joiner-counted")
	ConfOfOtherIndex      = plant("conf-of-other-index")
	LeftTooEarly          = plant("left-too-early")
	OldReplicaIDAccepted  = plant("old-replica-id-accepted")
	ReadIndexWithoutWait  = plant("readindex-without-wait-applied")
	StaleLeaderServes     = plant("stale-leader-serves")
	InstallUnannounced    = plant("install-unannounced")
	SnapshotDoneLost      = plant("snapshot-done-lost")
	LostToldDone          = plant("lost-told-done")
	UnknownToldRefused    = plant("unknown-told-refused")
	LaggardsLeft          = plant("laggards-left")
	WitnessForgetsEarly   = plant("witness-forgets-early")
)

// Of shards.
var (
	DedupeOff              = plant("dedupe-off")
	WindowNotInManifest    = plant("window-not-in-manifest")
	FlushLosesLastRow      = plant("flush-loses-last-row")
	FlushWithoutSync       = plant("flush-without-fsync")
	ManifestNameUnsynced   = plant("skip-manifest-fsync")
	TombstoneResurrect     = plant("tombstone-resurrect")
	LWWByArrival           = plant("lww-by-arrival")
	CompactionDropsOverlap = plant("compaction-drops-overlap")
	PageChecksumSkipped    = plant("page-checksum-skipped")
	HintOverwritesNewer    = plant("hint-overwrites-newer")
	HintResurrects         = plant("hint-resurrects")
	FenceIgnored           = plant("fence-ignored")
	ClosedShardRead        = plant("closed-shard-read")
)

// Of catalogue, coordinator and transport.
var (
	StaleEpochAccepted  = plant("stale-epoch-accepted")
	LastCopyDropped     = plant("last-copy-dropped")
	WitnessCountsAsCopy = plant("witness-counts-as-copy")
	LateSuccession      = plant("late-succession")
	MajorityIgnored     = plant("majority-ignored")
	LagIgnored          = plant("lag-ignored")
	VotersUnbounded     = plant("voters-unbounded")
	DroppedComesBack    = plant("dropped-comes-back")
	AddressKept         = plant("address-kept")
	UnknownForgotten    = plant("unknown-forgotten")
	SequenceUnbounded   = plant("sequence-unbounded")
	ReadIndexShared     = plant("readindex-shared-too-late")
	TieDecided          = plant("tie-decided")
	StalenessUnbounded  = plant("staleness-unbounded")
	SnapshotWithoutSync = plant("snapshot-without-fsync")
	SnapshotUnchecked   = plant("snapshot-unchecked")
	StrangerAccepted    = plant("stranger-accepted")
	FewCallsAtOnce      = plant("few-calls-at-once")
	VersionsMustMatch   = plant("versions-must-match")
)

// Of the way into a cluster, and back.
var (
	EachFoundsItsOwn   = plant("each-founds-its-own")
	RolesIgnored       = plant("roles-ignored")
	LoopbackTold       = plant("loopback-told")
	BlankMetaAccepted  = plant("blank-meta-accepted")
	CatalogueNotCopied = plant("catalogue-not-copied")
	AllMustStart       = plant("all-must-start")
)

// Of requests.
var (
	ReplicaReadAsIs   = plant("replica-read-as-is")
	LocalShardsOnly   = plant("local-shards-only")
	DeleteOnlyHere    = plant("delete-only-here")
	DeletesTwice      = plant("deletes-twice")
	ExpiredUntold     = plant("expired-untold")
	DroppedShardTaken = plant("dropped-shard-taken")
	SilenceIsUp       = plant("silence-is-up")
	QuorumUnsaid      = plant("quorum-unsaid")
	WaitsForEver      = plant("waits-for-ever")
	HTTPUnanswered    = plant("http-unanswered")
)
