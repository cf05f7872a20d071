package server

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// patient gives statements time for the hash of a password, which race detectors slow down.
func patient(c *config.Config) { c.Coordinator.WriteTimeout = config.Duration(time.Minute) }

// snapshot asks at the [meta] address for the catalogue.
func (m *machine) snapshot(query, user, password string) (*http.Response, []byte) {
	m.t.Helper()
	rq, err := http.NewRequest(http.MethodGet, "http://"+m.cfg.Meta.HTTPBindAddress+"/snapshot"+query, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if user != "" {
		rq.SetBasicAuth(user, password)
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		m.t.Fatal(err)
	}
	defer rs.Body.Close()
	b, err := io.ReadAll(rs.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return rs, b
}

// What a node answers is its catalogue, as of the index that it names, without
// what one could guess passwords by.
func TestSnapshotOfTheCatalogue(t *testing.T) {
	t.Parallel()
	m := newMachine(t, patient).start()
	m.mustQuery("", "CREATE DATABASE db")
	m.mustQuery("", "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
	m.mustWrite("db", "m v=1 1")
	view := m.node.meta.View()
	rs, b := m.snapshot("", "", "")
	if got := rs.Header.Get("X-Dsdb-Index"); rs.StatusCode != http.StatusOK || got != strconv.FormatUint(view.Index, 10) {
		t.Errorf("%s, index %s, want %d", rs.Status, got, view.Index)
	}
	d, err := meta.DecodeSnapshot("answer", b)
	if err != nil {
		t.Fatal(err)
	}
	if string(d.AppendSnapshot(nil)) != string(view.WithoutHashes().AppendSnapshot(nil)) {
		t.Errorf("%+v is not %+v", d, view)
	}
	if hash := view.User("root").Hash; d.User("root") == nil || strings.Contains(string(b), hash) || hash == "" {
		t.Errorf("user %+v, hash %q", d.User("root"), hash)
	}
	if rs, b := m.snapshot("?index=x", "", ""); rs.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "error parsing index") {
		t.Errorf("%s %s", rs.Status, b)
	}
}

// Whoever asks for more than there is waits for it, but not when the node stops.
func TestSnapshotIsWaitedFor(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	m.mustQuery("", "CREATE DATABASE db")
	index := m.node.meta.View().Index
	answers := make(chan string)
	ask := func(after uint64) {
		rs, _ := m.snapshot("?index="+strconv.FormatUint(after, 10), "", "")
		answers <- rs.Status + " " + rs.Header.Get("X-Dsdb-Index")
	}
	go ask(index - 1)
	if got := <-answers; got != "200 OK "+strconv.FormatUint(index, 10) {
		t.Error(got)
	}
	go ask(index)
	m.mustQuery("", "CREATE DATABASE other")
	if got := <-answers; got != "200 OK "+strconv.FormatUint(index+1, 10) {
		t.Error(got)
	}
	go ask(index + 1)
	eventually(t, "the request has come", func() bool {
		for _, g := range m.node.door.gates {
			if g.purpose&forJoining != 0 && g.open.Load() > 0 {
				return true
			}
		}
		return false
	})
	began := time.Now()
	m.node.door.stop()
	if got := <-answers; got != "304 Not Modified "+strconv.FormatUint(index+1, 10) || time.Since(began) > snapshotWait/2 {
		t.Errorf("%s after %v", got, time.Since(began))
	}
}

// The catalogue has the names of all databases and users: it is for admins.
func TestSnapshotIsForAdmins(t *testing.T) {
	t.Parallel()
	m := newMachine(t, patient, func(c *config.Config) { c.HTTP.AuthEnabled = true }).start()
	if rs, b := m.snapshot("", "", ""); rs.StatusCode != http.StatusForbidden {
		t.Errorf("without any account: %s %s", rs.Status, b)
	}
	m.mustQuery("", "CREATE USER root WITH PASSWORD 'top secret' WITH ALL PRIVILEGES")
	m.mustQuery("", "CREATE USER bob WITH PASSWORD 'bobs word'")
	for _, c := range []struct {
		user, password string
		code           int
	}{{"", "", 401}, {"root", "wrong", 401}, {"bob", "bobs word", 403}, {"root", "top secret", 200}} {
		if rs, b := m.snapshot("", c.user, c.password); rs.StatusCode != c.code || c.code != 200 && strings.Contains(string(b), "DSDBMETA") {
			t.Errorf("%q %q: %s", c.user, c.password, rs.Status)
		}
	}
}
