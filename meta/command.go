package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/dasudian/dsdb"
)

// A Command is one change of the catalogue. apply works on a shallow copy of
// the value that it may assign to, but whose slices and pointers are shared
// with the version before. When apply returns an error the copy is thrown away.
type Command interface {
	op() string
	apply(d *Data) error
}

// commandVersion is the first byte of an encoded command. It grows when a
// command changes its meaning, so that an older node refuses what it would
// otherwise apply differently from its peers.
const commandVersion = 2

// MaxCommand is the largest encoded command in bytes that Apply accepts.
const MaxCommand = 16 << 20

type envelope struct {
	Op   string          `json:"op"`
	By   [3]uint64       `json:"by"` // node, epoch and sequence number of the proposal
	Args json.RawMessage `json:"args"`
}

// newCommand returns an empty command of the given kind, nil if there is none.
func newCommand(op string) Command {
	for _, c := range []Command{
		&CreateCluster{}, &JoinCluster{}, &BootNode{}, &DropNode{}, &RemoveNode{}, &SetRoles{},
		&AddReplica{}, &PromoteReplica{}, &DemoteReplica{}, &RetireReplica{}, &ReplicaFailed{}, &RemoveReplica{},
		&CreateDatabase{}, &DropDatabase{},
		&CreateRetentionPolicy{}, &UpdateRetentionPolicy{}, &DropRetentionPolicy{},
		&EnsureShardGroups{}, &DeleteShardGroup{}, &DropShard{}, &PruneShardGroups{},
		&SucceedShard{}, &NoteReturn{}, &SucceedCatalogue{}, &ResumeCatalogue{}, &NoteDisk{},
		&RegisterFields{}, &RevokeFields{}, &DropMeasurement{},
		&CreateUser{}, &DropUser{}, &SetPassword{}, &SetAdmin{}, &SetPrivilege{},
	} {
		if c.op() == op {
			return c
		}
	}
	return nil
}

// Encode returns the bytes of a log entry that stands for the proposal id of c:
// the version and a JSON object {"op": name, "by": […], "args": {…}}. The zero id
// makes an entry that has its effect each time it is in the log.
func Encode(id dsdb.ProposalID, c Command) []byte {
	args, err := json.Marshal(c)
	if err != nil {
		panic("BUG: command " + c.op() + ": " + err.Error())
	}
	body, err := json.Marshal(envelope{c.op(), [3]uint64{uint64(id.Node), id.Epoch, id.Seq}, args})
	if err != nil {
		panic("BUG: command " + c.op() + ": " + err.Error())
	}
	return append([]byte{commandVersion}, body...)
}

// Decode is the inverse of Encode. It reports KindInvalid for bytes that are
// no command of this version, with dsdb.ErrNewer if they are of a newer one.
func Decode(b []byte) (dsdb.ProposalID, Command, error) {
	fail := func(err error) (dsdb.ProposalID, Command, error) { return dsdb.ProposalID{}, nil, err }
	if len(b) > 0 && b[0] > commandVersion {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: command of version %d, this program knows %d: %w", b[0], commandVersion, dsdb.ErrNewer))
	}
	if len(b) == 0 || b[0] != commandVersion {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: command of unknown version"))
	}
	if len(b) > MaxCommand {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: command of %d bytes exceeds %d", len(b), MaxCommand))
	}
	var e envelope
	if err := unmarshalStrict(b[1:], &e); err != nil {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: command: %w", err))
	}
	c := newCommand(e.Op)
	if c == nil {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: unknown command %q: %w", e.Op, dsdb.ErrNewer))
	}
	if err := unmarshalStrict(e.Args, c); err != nil {
		return fail(dsdb.Errorf(dsdb.KindInvalid, "meta: command %s: %w", e.Op, err))
	}
	return dsdb.ProposalID{Node: dsdb.NodeID(e.By[0]), Epoch: e.By[1], Seq: e.By[2]}, c, nil
}

// unmarshalStrict decodes exactly one JSON value. A member that v lacks is of a
// newer program: dsdb.ErrNewer.
func unmarshalStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if strings.HasPrefix(err.Error(), "json: unknown field ") {
			err = fmt.Errorf("%w: %w", err, dsdb.ErrNewer)
		}
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return dsdb.Errorf(dsdb.KindInvalid, "bytes after the end")
	}
	return nil
}
