package meta

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dasudian/dsdb"
)

// CreateUser creates an account. It is no error if there is one with the same
// hash and the same rights.
type CreateUser struct {
	Name  string `json:"name"`
	Hash  string `json:"hash"` // bcrypt of the password
	Admin bool   `json:"admin,omitempty"`
}

func (c *CreateUser) op() string { return "CreateUser" }

func (c *CreateUser) apply(d *Data) error {
	if c.Name == "" || !utf8.ValidString(c.Name) {
		return ErrUsernameRequired
	}
	i, found := d.findUser(c.Name)
	if found {
		if u := d.Users[i]; u.Hash == c.Hash && u.Admin == c.Admin {
			return nil
		}
		return ErrUserExists
	}
	d.Users = slices.Insert(slices.Clone(d.Users), i, &User{Name: c.Name, Hash: c.Hash, Admin: c.Admin})
	return nil
}

// DropUser removes an account.
type DropUser struct {
	Name string `json:"name"`
}

func (c *DropUser) op() string { return "DropUser" }

func (c *DropUser) apply(d *Data) error {
	i, found := d.findUser(c.Name)
	if !found {
		return ErrUserNotFound
	}
	d.Users = without(d.Users, i)
	return nil
}

// SetPassword changes the password hash of a user.
type SetPassword struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

func (c *SetPassword) op() string { return "SetPassword" }

func (c *SetPassword) apply(d *Data) error {
	return d.editUser(c.Name, func(u *User) { u.Hash = c.Hash })
}

// SetAdmin gives or takes all rights over the cluster.
type SetAdmin struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin"`
}

func (c *SetAdmin) op() string { return "SetAdmin" }

func (c *SetAdmin) apply(d *Data) error {
	return d.editUser(c.Name, func(u *User) { u.Admin = c.Admin })
}

// SetPrivilege sets what a user may do with a database, whatever it was before.
type SetPrivilege struct {
	User      string    `json:"user"`
	Database  string    `json:"db"`
	Privilege Privilege `json:"privilege"`
}

func (c *SetPrivilege) op() string { return "SetPrivilege" }

func (c *SetPrivilege) apply(d *Data) error {
	if c.Privilege > AllPrivileges {
		return dsdb.Errorf(dsdb.KindInvalid, "unknown privilege %d", c.Privilege)
	}
	if d.User(c.User) == nil {
		return ErrUserNotFound
	}
	if d.Database(c.Database) == nil {
		return errDatabaseNotFound(c.Database)
	}
	return d.editUser(c.User, func(u *User) {
		i, found := u.findGrant(c.Database)
		u.Privileges = slices.Clone(u.Privileges)
		if !found {
			u.Privileges = slices.Insert(u.Privileges, i, Grant{Database: c.Database})
		}
		u.Privileges[i].Privilege = c.Privilege
	})
}

// Privilege returns what the user may do with a database; an administrator may do everything.
func (u *User) Privilege(database string) Privilege {
	if u.Admin {
		return AllPrivileges
	}
	if i, found := u.findGrant(database); found {
		return u.Privileges[i].Privilege
	}
	return NoPrivileges
}

func (u *User) findGrant(database string) (int, bool) {
	return slices.BinarySearchFunc(u.Privileges, database, func(g Grant, name string) int {
		return strings.Compare(g.Database, name)
	})
}

// editUser replaces a user by a copy that change has altered.
func (d *Data) editUser(name string, change func(*User)) error {
	i, found := d.findUser(name)
	if !found {
		return ErrUserNotFound
	}
	u := *d.Users[i]
	change(&u)
	d.Users = slices.Clone(d.Users)
	d.Users[i] = &u
	return nil
}

// revokeAll forgets what users may do with a database that is dropped.
func (d *Data) revokeAll(database string) {
	for _, u := range d.Users {
		if i, found := u.findGrant(database); found {
			// The user is there: editUser cannot fail.
			_ = d.editUser(u.Name, func(u *User) { u.Privileges = without(u.Privileges, i) })
		}
	}
}
