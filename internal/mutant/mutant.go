//go:build !mutants

// Package mutant plants bugs for the tests to find. In a build with the tag
// "mutants" the environment variable DSDB_MUTANT names one of them, which then
// is in the program; in any other build they are constants that are false, and
// the compiler leaves out what they guard. TestMutants shows that each of them
// is found, by which test and in what time: a test that finds none of them
// proves little.
//
// A mutant is a few lines at the place where the bug would be made:
//
//	if mutant.SkipLogSync {
//		return nil
//	}
//
// The package knows nothing of the others.
package mutant

// Tag is the tag that a program with mutants is built with; "": this one is not.
const Tag = ""

// Of the log.
const (
	SkipLogSync       = false // a batch is taken for durable that was only written
	ErrorSwallowed    = false // a sync of the log that failed is taken for one that worked
	SkipDirFsync      = false // the name of a new segment of the log is not made durable
	ChecksumSkipped   = false // the checksums of the log's batches are not looked at
	TornEqualsCorrupt = false // damage in the middle of the log is taken for an unfinished write at its end
	RecycleEarly      = false // a segment of the log is written again before what made it needless is durable
	ReuseReplicaID    = false // a replica may come back under the id of one that has left the node
	DamageForgotten   = false // damage to the log is reported by one start alone, whether it was noted what it took or not
)

// Of raft groups.
const (
	AckBeforeSync         = false // other replicas are answered before what the answer promises is durable
	SkipVotePersist       = false // the log does not note whom a replica voted for
	VotesAskedBeforeSync  = false // a candidate asks for votes before its own is durable
	TruncateAboveFlushed  = false // the log forgets what is applied, though it is not flushed
	TruncateUnderSnapshot = false // the log forgets what follows a snapshot that is on its way
	ApplyTwice            = false // a replica that starts applies once more what it has flushed
	CommitBehindFlush     = false // a replica that starts believes the log alone about what is committed
	ShortLogAccepted      = false // a replica whose log has lost entries that it had flushed takes part
	WrongJointQuorum      = false // a replica that starts in a joint configuration forgets the outgoing voters
	PromoteWithoutCatchUp = false // a learner becomes a voter however much it lacks
	JoinerCounted         = false // voters that wait for a snapshot count as ready when members change
	ConfOfOtherIndex      = false // a snapshot names an older entry as the one that made its members
	LeftTooEarly          = false // a change of members is done before a quorum of the new ones knows of it
	OldReplicaIDAccepted  = false // a replica takes messages that are for an earlier one of its node
	ReadIndexWithoutWait  = false // a read does not wait until its index is applied
	StaleLeaderServes     = false // a leader confirms reads without asking the others
	InstallUnannounced    = false // the log does not note that a snapshot is about to be installed
	SnapshotDoneLost      = false // raft is not told that a snapshot did not arrive
	LostToldDone          = false // a write that a change of leader overwrote is acknowledged
	UnknownToldRefused    = false // a write that is in the log is said to have certainly not happened
	LaggardsLeft          = false // a replica that lacks what the log has forgotten is sent nothing
	WitnessForgetsEarly   = false // a witness forgets what a full replica still lacks
)

// Of shards.
const (
	DedupeOff              = false // a second copy of an entry is applied like the first
	WindowNotInManifest    = false // a flush does not keep which proposals were applied
	FlushLosesLastRow      = false // a flush leaves out the last row of a table
	FlushWithoutSync       = false // a segment file is named in the manifest before it is durable
	ManifestNameUnsynced   = false // the name of the new manifest is not made durable
	TombstoneResurrect     = false // a merge of files forgets the deletes that concern others
	LWWByArrival           = false // files count in the order in which they were made, not in that of the log
	CompactionDropsOverlap = false // a merge leaves out files whose times overlap
	PageChecksumSkipped    = false // the checksums of segment files are not looked at
	HintOverwritesNewer    = false // a hint counts like a write of when it comes
	HintResurrects         = false // a hint brings back what was deleted since it was made
	FenceIgnored           = false // a write is applied that counts on types of fields which are being freed
	ClosedShardRead        = false // a shard that was closed meanwhile is read without its files
)

// Of catalogue, coordinator and transport.
const (
	StaleEpochAccepted  = false // a process starts from an older copy of its folders
	LastCopyDropped     = false // a node may be dropped that holds the last copy of a shard
	WitnessCountsAsCopy = false // a witness is taken for a copy of its shard
	LateSuccession      = false // a shard goes on from one copy by a decision that has been overtaken
	MajorityIgnored     = false // a shard goes on from one copy although a majority of its voters lives
	LagIgnored          = false // the controller takes members for up to date however much they lack
	VotersUnbounded     = false // every meta node votes, however many there are
	DroppedComesBack    = false // a node that was dropped takes its roles up again when it starts
	AddressKept         = false // the catalogue keeps the addresses that a node had when it joined
	UnknownForgotten    = false // a coordinator forgets that an earlier try may have succeeded
	SequenceUnbounded   = false // proposals are outstanding that the state machines no longer tell apart
	ReadIndexShared     = false // a read shares a call to the leader that was on its way before it
	TieDecided          = false // of two copies that differ one is taken to be right
	StalenessUnbounded  = false // a stale read is answered by a replica that was current once, however long ago
	SnapshotWithoutSync = false // the files of an arriving snapshot are not made durable
	SnapshotUnchecked   = false // the files of an arriving snapshot are not compared with their checksums
	StrangerAccepted    = false // a process need not prove that it knows the shared secret
	FewCallsAtOnce      = false // three calls to a process may be under way, others wait for them
	VersionsMustMatch   = false // nodes of another version are not talked to
)

// Of the way into a cluster, and back.
const (
	EachFoundsItsOwn   = false // every node of a -join list founds a cluster
	RolesIgnored       = false // a node joins with both roles
	LoopbackTold       = false // a node tells nodes elsewhere that it is reached at loopback
	BlankMetaAccepted  = false // a node begins anew although it holds points
	CatalogueNotCopied = false // the folder of the points has no copy of the catalogue
	AllMustStart       = false // a node that starts waits for all meta nodes
)

// Of requests.
const (
	ReplicaReadAsIs   = false // a query does not wait until its replica has what was acknowledged
	LocalShardsOnly   = false // a query reads the shards of its own node
	DeleteOnlyHere    = false // a deletion concerns the shards of its own node
	DeletesTwice      = false // a deletion that is begun again is made again where it was made
	ExpiredUntold     = false // points that a policy no longer keeps are dropped without a word
	DroppedShardTaken = false // points of a shard that was dropped meanwhile are acknowledged
	SilenceIsUp       = false // a node that does not answer is shown as up
	QuorumUnsaid      = false // it is not said that a quorum is missing
	WaitsForEver      = false // what waits for a quorum has no deadline
	HTTPUnanswered    = false // HTTP that is sent to the port of the nodes is cut off
)
