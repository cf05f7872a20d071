//go:build mutants

package mutant

import "os"

// Names are those of all mutants.
var Names []string

// planted names a mutant and reports whether it is the one that was chosen.
func planted(name string) bool {
	Names = append(Names, name)
	return name == os.Getenv("DSDB_MUTANT")
}

// Of the log.
var (
	SkipLogSync       = planted("skip-log-sync")
	ErrorSwallowed    = planted("error-swallowed")
	SkipDirFsync      = planted("skip-dir-fsync")
	ChecksumSkipped   = planted("checksum-skipped")
	TornEqualsCorrupt = planted("torn-equals-corrupt")
	RecycleEarly      = planted("recycle-early")
	ReuseReplicaID    = planted("reuse-replica-id")
)

// Of raft groups.
var (
	AckBeforeSync         = planted("ack-before-sync")
	SkipVotePersist       = planted("skip-vote-persist")
	TruncateAboveFlushed  = planted("truncate-above-flushed")
	TruncateUnderSnapshot = planted("truncate-under-snapshot")
	ApplyTwice            = planted("apply-twice-with-new-version")
	CommitBehindFlush     = planted("commit-behind-flush")
	ShortLogAccepted      = planted("short-log-accepted")
	WrongJointQuorum      = planted("wrong-joint-quorum")
	PromoteWithoutCatchUp = planted("promote-without-catch-up")
	JoinerCounted         = planted("joiner-counted")
	ConfOfOtherIndex      = planted("conf-of-other-index")
	LeftTooEarly          = planted("left-too-early")
	OldReplicaIDAccepted  = planted("old-replica-id-accepted")
	ReadIndexWithoutWait  = planted("readindex-without-wait-applied")
	StaleLeaderServes     = planted("stale-leader-serves")
	InstallUnannounced    = planted("install-unannounced")
	SnapshotDoneLost      = planted("snapshot-done-lost")
	LostToldDone          = planted("lost-told-done")
	UnknownToldRefused    = planted("unknown-told-refused")
)

// Of shards.
var (
	DedupeOff              = planted("dedupe-off")
	WindowNotInManifest    = planted("window-not-in-manifest")
	FlushLosesLastRow      = planted("flush-loses-last-row")
	FlushWithoutSync       = planted("flush-without-fsync")
	ManifestNameUnsynced   = planted("skip-manifest-fsync")
	TombstoneResurrect     = planted("tombstone-resurrect")
	LWWByArrival           = planted("lww-by-arrival")
	CompactionDropsOverlap = planted("compaction-drops-overlap")
	PageChecksumSkipped    = planted("page-checksum-skipped")
	HintOverwritesNewer    = planted("hint-overwrites-newer")
	HintResurrects         = planted("hint-resurrects")
)

// Of catalogue, coordinator and transport.
var (
	StaleEpochAccepted  = planted("stale-epoch-accepted")
	LastCopyDropped     = planted("last-copy-dropped")
	LagIgnored          = planted("lag-ignored")
	UnknownForgotten    = planted("unknown-forgotten")
	SequenceUnbounded   = planted("sequence-unbounded")
	ReadIndexShared     = planted("readindex-shared-too-late")
	SnapshotWithoutSync = planted("snapshot-without-fsync")
	SnapshotUnchecked   = planted("snapshot-unchecked")
	StrangerAccepted    = planted("stranger-accepted")
)
