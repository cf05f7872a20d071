package meta

import (
	"encoding/json"
	"fmt"
	"path"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// IdentityFile is the name, in the folder of the catalogue, of the file that
// says who the process is.
const IdentityFile = "node.json"

// Identity is who a process is for all time, but for Epoch.
type Identity struct {
	ClusterID uint64         `json:"cluster"` // 0: the process has not joined one yet
	UUID      string         `json:"uuid"`
	MetaID    dsdb.NodeID    `json:"meta_id"`           // 0: not a meta node
	DataID    dsdb.NodeID    `json:"data_id"`           // 0: not a data node
	Replica   dsdb.ReplicaID `json:"replica,omitempty"` // of the meta group
	Epoch     uint64         `json:"epoch,omitempty"`   // how often the process was started
	Begun     bool           `json:"begun,omitempty"`   // the log has had its replica of the meta group
	Refused   string         `json:"refused,omitempty"` // why the cluster has refused the folder, for good
}

// Peer returns the id by which the process is known in the meta group.
func (id Identity) Peer() dsdb.NodeID {
	if id.MetaID != 0 {
		return id.MetaID
	}
	return id.DataID
}

// identityVersion is the version of the identity files that are written. Files
// of version 1 lack it, the epoch and the replica.
const identityVersion = 2

// storedIdentity is what the checksum of an identity file is of.
type storedIdentity struct {
	Version int `json:"version,omitempty"`
	Identity
}

type identityFile struct {
	Identity json.RawMessage `json:"identity"`
	CRC      string          `json:"crc32c"`
}

// WriteIdentity writes the identity file in dir, durably and atomically.
func WriteIdentity(fs vfs.FS, dir string, id Identity) error {
	raw, err := json.Marshal(storedIdentity{identityVersion, id})
	if err != nil {
		panic("BUG: identity: " + err.Error())
	}
	b, err := json.Marshal(identityFile{raw, crcText(raw)})
	if err != nil {
		panic("BUG: identity: " + err.Error())
	}
	if err := vfs.WriteFileAtomic(fs, path.Join(dir, IdentityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("meta: write identity: %w", err)
	}
	return nil
}

// ReadIdentity reads the identity file in dir. The error wraps fs.ErrNotExist
// if there is none, and has KindCorrupt if it is not what was written. A file
// of version 1 was written by a node that was alone, whose replica was the first.
func ReadIdentity(fs vfs.FS, dir string) (Identity, error) {
	name := path.Join(dir, IdentityFile)
	b, err := vfs.ReadFile(fs, name)
	if err != nil {
		return Identity{}, fmt.Errorf("meta: read identity: %w", err)
	}
	return DecodeIdentity(name, b)
}

// DecodeIdentity decodes the bytes of an identity file; file is the name that
// an error mentions.
func DecodeIdentity(file string, b []byte) (Identity, error) {
	var f identityFile
	if err := unmarshalStrict(b, &f); err != nil {
		return Identity{}, dsdb.Errorf(dsdb.KindCorrupt, "%s: %w", file, err)
	}
	if crcText(f.Identity) != f.CRC {
		return Identity{}, dsdb.Errorf(dsdb.KindCorrupt, "%s: checksum %q does not match", file, f.CRC)
	}
	var id storedIdentity
	if err := unmarshalStrict(f.Identity, &id); err != nil {
		return Identity{}, dsdb.Errorf(dsdb.KindCorrupt, "%s: %w", file, err)
	}
	switch {
	case id.Version > identityVersion:
		return Identity{}, dsdb.Errorf(dsdb.KindInvalid, "%s has format version %d, this program knows versions up to %d: it was written by a newer one", file, id.Version, identityVersion)
	case id.Version == 0:
		id.Replica = 1
	}
	return id.Identity, nil
}

func crcText(b []byte) string { return fmt.Sprintf("%08x", checksum(b)) }
