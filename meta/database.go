package meta

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// AutoPolicy is the name of the retention policy that a new database gets.
const AutoPolicy = "autogen"

// MinPolicyDuration is the least duration of a retention policy and of a time group.
const MinPolicyDuration = time.Hour

const (
	day           = 24 * time.Hour
	maxNameBytes  = 255
	maxAutoCopies = 3
)

// PolicySpec is what a statement says about a retention policy; nil and zero
// members were not said.
type PolicySpec struct {
	Name               string         `json:"name,omitempty"`
	Duration           *time.Duration `json:"duration,omitempty"`
	ReplicaN           *int           `json:"replicas,omitempty"`
	ShardGroupDuration time.Duration  `json:"shardDuration,omitempty"`
}

// CreateDatabase creates a database; one that exists is left alone. With a
// Policy the database gets that policy as its default one, and one that exists
// must have exactly that. Without, it gets AutoPolicy unless NoPolicy is set.
type CreateDatabase struct {
	Name     string      `json:"name"`
	Policy   *PolicySpec `json:"policy,omitempty"`
	NoPolicy bool        `json:"noPolicy,omitempty"`
}

func (c *CreateDatabase) op() string { return "CreateDatabase" }

func (c *CreateDatabase) apply(d *Data) error {
	if c.Name == "" {
		return ErrDatabaseNameRequired
	}
	if !ValidName(c.Name) {
		return ErrInvalidName
	}
	spec := PolicySpec{Name: AutoPolicy}
	if c.Policy != nil {
		spec = *c.Policy
		if spec.Name == "" {
			spec.Name = AutoPolicy
		}
	}
	rp, err := d.newPolicy(&spec)
	if err != nil {
		return err
	}
	if db := d.Database(c.Name); db != nil && (len(db.Policies) > 0 || c.Policy == nil) {
		if c.Policy == nil || spec.matches(db.policy(spec.Name)) && db.DefaultPolicy == spec.Name {
			return nil
		}
		return ErrPolicyConflict
	}
	db := d.Database(c.Name)
	if db == nil {
		d.Counters.Database++
		db = &Database{Name: c.Name, Created: d.Counters.Database}
	}
	next := *db
	if c.Policy != nil || !c.NoPolicy {
		next.Policies = []*RetentionPolicy{rp}
		next.DefaultPolicy = rp.Name
	}
	d.setDatabase(&next)
	return nil
}

// newPolicy validates a spec and returns the policy that it describes.
func (d *Data) newPolicy(s *PolicySpec) (*RetentionPolicy, error) {
	rp := &RetentionPolicy{Name: s.Name, ReplicaN: d.autoReplicas()}
	if s.ReplicaN != nil {
		rp.ReplicaN = *s.ReplicaN
	}
	if s.Duration != nil {
		rp.Duration = *s.Duration
	}
	rp.ShardGroupDuration = normalShardDuration(s.ShardGroupDuration, rp.Duration)
	switch {
	case rp.Name == "":
		return nil, ErrPolicyNameRequired
	case !ValidName(rp.Name):
		return nil, ErrInvalidName
	case rp.ReplicaN < 1:
		return nil, ErrReplicationTooLow
	}
	return rp, checkDurations(rp)
}

func checkDurations(rp *RetentionPolicy) error {
	if rp.Duration != 0 && rp.Duration < MinPolicyDuration {
		return ErrPolicyDurationTooLow
	}
	if rp.Duration != 0 && rp.Duration < rp.ShardGroupDuration {
		return ErrIncompatibleDurations
	}
	return nil
}

// autoReplicas is the replication factor of a policy that names none.
func (d *Data) autoReplicas() int {
	return min(max(len(d.active(DataNode)), 1), maxAutoCopies)
}

// matches reports whether rp is what the spec says, as far as it says anything.
func (s *PolicySpec) matches(rp *RetentionPolicy) bool {
	return rp != nil &&
		(s.Duration == nil || *s.Duration == rp.Duration) &&
		(s.ReplicaN == nil || *s.ReplicaN == rp.ReplicaN) &&
		normalShardDuration(s.ShardGroupDuration, rp.Duration) == rp.ShardGroupDuration
}

// normalShardDuration returns the length of a time group: what was asked for
// but at least an hour, else by the duration of the policy (InfluxDB 1.8).
func normalShardDuration(asked, policy time.Duration) time.Duration {
	switch {
	case asked > 0:
		return max(asked, MinPolicyDuration)
	case policy == 0 || policy >= 180*day:
		return 7 * day
	case policy >= 2*day:
		return day
	}
	return time.Hour
}

// ValidName reports whether a database or a retention policy may have the name.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxNameBytes &&
		utf8.ValidString(name) && !strings.ContainsAny(name, `/\`) &&
		strings.IndexFunc(name, unicode.IsControl) < 0
}

// DropDatabase forgets a database, its shards and the privileges on it. It is
// no error if there is none.
type DropDatabase struct {
	Name string `json:"name"`
}

func (c *DropDatabase) op() string { return "DropDatabase" }

func (c *DropDatabase) apply(d *Data) error {
	i, found := d.findDatabase(c.Name)
	if !found {
		return nil
	}
	d.Databases = without(d.Databases, i)
	d.shards = new(shardIndex)
	d.revokeAll(c.Name)
	return nil
}

// CreateRetentionPolicy adds a policy to a database. It is no error if one
// exists that is the same.
type CreateRetentionPolicy struct {
	Database string     `json:"db"`
	Policy   PolicySpec `json:"policy"`
	Default  bool       `json:"default,omitempty"`
}

func (c *CreateRetentionPolicy) op() string { return "CreateRetentionPolicy" }

func (c *CreateRetentionPolicy) apply(d *Data) error {
	rp, err := d.newPolicy(&c.Policy)
	if err != nil {
		return err
	}
	db := d.Database(c.Database)
	if db == nil {
		return errDatabaseNotFound(c.Database)
	}
	if old := db.policy(rp.Name); old != nil {
		if old.ReplicaN != rp.ReplicaN || old.Duration != rp.Duration || old.ShardGroupDuration != rp.ShardGroupDuration {
			return ErrPolicyExists
		}
		if c.Default && db.DefaultPolicy != rp.Name {
			return ErrPolicyConflict
		}
		return nil
	}
	next := *db
	next.Policies = append(slices.Clip(db.Policies), rp)
	if c.Default {
		next.DefaultPolicy = rp.Name
	}
	d.setDatabase(&next)
	return nil
}

// UpdateRetentionPolicy changes the members of a policy that are not nil.
// Time groups that exist keep their ranges; a Controller brings their replicas
// to the new number.
type UpdateRetentionPolicy struct {
	Database           string         `json:"db"`
	Name               string         `json:"name"`
	Duration           *time.Duration `json:"duration,omitempty"`
	ReplicaN           *int           `json:"replicas,omitempty"`
	ShardGroupDuration *time.Duration `json:"shardDuration,omitempty"`
	Default            bool           `json:"default,omitempty"`
}

func (c *UpdateRetentionPolicy) op() string { return "UpdateRetentionPolicy" }

func (c *UpdateRetentionPolicy) apply(d *Data) error {
	if c.Name == "" {
		return ErrPolicyNameRequired
	}
	rp, err := d.editPolicy(c.Database, c.Name)
	if err != nil {
		return err
	}
	if c.Duration != nil {
		rp.Duration = *c.Duration
	}
	if c.ReplicaN != nil {
		rp.ReplicaN = *c.ReplicaN
	}
	if c.ShardGroupDuration != nil {
		rp.ShardGroupDuration = normalShardDuration(*c.ShardGroupDuration, rp.Duration)
	}
	if rp.ReplicaN < 1 {
		return ErrReplicationTooLow
	}
	if c.Default {
		d.Database(c.Database).DefaultPolicy = rp.Name // a copy that editPolicy made
	}
	return checkDurations(rp)
}

// DropRetentionPolicy forgets a policy and its shards; the database has no
// default policy if it was that. It is no error if there is no such policy or database.
type DropRetentionPolicy struct {
	Database string `json:"db"`
	Name     string `json:"name"`
}

func (c *DropRetentionPolicy) op() string { return "DropRetentionPolicy" }

func (c *DropRetentionPolicy) apply(d *Data) error {
	rp, err := d.Policy(c.Database, c.Name)
	if err != nil || c.Name == "" {
		return nil
	}
	db := d.Database(c.Database)
	next := *db
	next.Policies = without(db.Policies, slices.Index(db.Policies, rp))
	if db.DefaultPolicy == rp.Name {
		next.DefaultPolicy = ""
	}
	d.setDatabase(&next)
	d.shards = new(shardIndex)
	return nil
}

// setDatabase puts db in the place of the database of that name, or adds it.
func (d *Data) setDatabase(db *Database) {
	i, found := d.findDatabase(db.Name)
	if found {
		d.Databases = slices.Clone(d.Databases)
		d.Databases[i] = db
		return
	}
	d.Databases = slices.Insert(slices.Clone(d.Databases), i, db)
}

// editPolicy replaces a policy by a copy that the caller may change until the
// command ends. Its slices are still shared.
func (d *Data) editPolicy(database, name string) (*RetentionPolicy, error) {
	old, err := d.Policy(database, name)
	if err != nil {
		return nil, err
	}
	db := *d.Database(database)
	rp := *old
	db.Policies = slices.Clone(db.Policies)
	db.Policies[slices.Index(db.Policies, old)] = &rp
	d.setDatabase(&db)
	return &rp, nil
}

// without returns a copy of s that lacks element i.
func without[T any](s []T, i int) []T {
	return append(append(make([]T, 0, len(s)-1), s[:i]...), s[i+1:]...)
}
