package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// Whoever waits gets a look that began later; those who wait together share one, and
// however many come, looks begin catchUpEvery apart, one at a time.
func TestCatchUpIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, asked atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		c := catchUp{ask: func(context.Context) error {
			if running.Add(1) > 1 {
				t.Error("two looks at once")
			}
			asked.Add(1)
			time.Sleep(time.Millisecond)
			running.Add(-1)
			return nil
		}}
		const clients, each = 50, 20
		for range clients {
			wg.Go(func() {
				for range each {
					before := asked.Load()
					if !c.await(t.Context()) || asked.Load() == before {
						t.Error("the look was from before")
					}
				}
			})
		}
		wg.Wait()
		if most := int64(time.Since(began)/catchUpEvery) + 1; asked.Load() > most {
			t.Errorf("asked %d times, want at most %d", asked.Load(), most)
		}
	})
}

// A leader that does not answer holds nobody up for long, nor does it a client that left.
func TestCatchUpThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := catchUp{ask: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		began := time.Now()
		first := make(chan bool)
		go func() { first <- c.await(t.Context()) }()
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		second := make(chan bool)
		go func() { second <- c.await(gone) }() // carries out the next look
		synctest.Wait()
		third := make(chan bool)
		go func() { third <- c.await(gone) }()
		synctest.Wait()
		leave()
		if <-third || time.Since(began) != 0 {
			t.Error("a client that left is waited for")
		}
		if <-first || <-second || time.Since(began) != 2*catchUpWait {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

// A user who was created, or has a new password, signs in at once on a node that has not
// heard of it; a wrong password stays wrong, and costs a comparison more only if the
// user has changed.
func TestSignInOnALaggingNode(t *testing.T) {
	a, b := testAccounts(t)
	b.data.Processes = make([]meta.Process, 2)
	change := func() {}
	a.behind.ask = func(context.Context) error { change(); return nil }
	b.set(t, "admin", "one")
	for _, c := range []struct {
		what, name, password string
		change               func()
		compared             int64
		want                 error
	}{
		{"created", "bob", "new", func() { b.set(t, "admin", "one", "bob", "new") }, 2, nil},
		{"password set", "bob", "newer", func() { b.set(t, "admin", "one", "bob", "newer") }, 2, nil},
		{"unchanged", "bob", "newest", func() {}, 1, httpd.ErrUnauthorized},
		{"unknown", "eve", "newest", func() {}, 1, httpd.ErrUnauthorized},
		{"dropped", "bob", "wrong", func() { b.set(t, "admin", "one") }, 1, httpd.ErrUnauthorized},
		{"password set to another", "admin", "three", func() { b.set(t, "admin", "two") }, 2, httpd.ErrUnauthorized},
	} {
		change = c.change
		before := a.compared.Load()
		_, err := a.Authenticate(t.Context(), c.name, c.password, here)
		if !errors.Is(err, c.want) || a.compared.Load()-before != c.compared {
			t.Errorf("%s: %v after %d comparisons", c.what, err, a.compared.Load()-before)
		}
	}
}

// What was acknowledged about users on one node holds on the others at once.
func TestUsersOfAllNodes(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *config.Config) { c.HTTP.AuthEnabled = true })
	var there []httpd.Accounts
	for _, m := range nodes[1:] {
		auth, err := m.node.auth(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		there = append(there, auth.Accounts)
	}
	for i := range 10 {
		name := fmt.Sprint("user", i)
		eventually(t, name+" is created", func() bool {
			err := nodes[0].node.command(t.Context(), &meta.CreateUser{Name: name, Hash: "a hash"})
			return err == nil || dsdb.KindOf(err) == dsdb.KindConflict // an attempt before had an effect
		})
		for _, a := range there {
			eventually(t, "the leader answers in time", func() bool { return a.CatchUp(t.Context()) })
			if a.User(name) == nil {
				t.Errorf("%s is not known", name)
			}
		}
	}
}
