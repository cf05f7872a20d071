package server

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/dasudian/dsdb/server/config"
)

// staleness asks a node for a stale answer and returns how old that says it is.
func (m *machine) staleness(params string) string {
	m.t.Helper()
	rs, err := http.Get("http://" + m.cfg.HTTP.BindAddress + "/query?db=db&q=" + url.QueryEscape("SELECT count(v) FROM m") + params)
	if err != nil {
		m.t.Fatal(err)
	}
	rs.Body.Close()
	if rs.StatusCode != http.StatusOK {
		m.t.Errorf("%s: %s", params, rs.Status)
	}
	return rs.Header.Get("X-Dsdb-Staleness")
}

func (m *machine) stalenessWithin(params string, least, most float64) {
	m.t.Helper()
	if text := m.staleness(params); text == "" {
		m.t.Errorf("%s: no age is told", params)
	} else if s, err := strconv.ParseFloat(text, 64); err != nil || s < least || s > most {
		m.t.Errorf("%s: %q, want %v to %v", params, text, least, most)
	}
}

// A stale answer says how old it is at most, whoever has the copies: about
// nothing while there is a leader to ask, and more and more without.
func TestStaleAnswersTellTheirAge(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	nodes := []*machine{first, newMachine(t, joins(first)).start(), newMachine(t, joins(first)).start()}
	clerk := newMachine(t, joins(first), func(c *config.Config) { c.Data.Enabled = false }).start() // holds no points
	agree(t, append(nodes, clerk)...)
	allVote(t, nodes...)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	eventually(t, "a write", func() bool { return first.write("db", "m v=1 1") == nil })
	patient := patience.Seconds()
	for _, m := range append(nodes, clerk) {
		eventually(t, "it knows", func() bool { return m.staleness("&read_consistency=stale") != "unknown" })
		m.stalenessWithin("&read_consistency=stale", 0, patient)
		m.stalenessWithin("&read_consistency=stale&max_staleness=1h", 0, patient)
		for _, level := range []string{"", "&read_consistency=leader"} {
			if got := m.staleness(level); got != "" {
				t.Errorf("%q: not stale, and %q old", level, got)
			}
		}
	}
	alone := time.Now()
	nodes[1].halt()
	nodes[2].halt()
	time.Sleep(1200 * time.Millisecond) // no age is decided by it but the least
	for _, m := range []*machine{first, clerk} {
		least := time.Since(alone).Seconds() - 1
		m.stalenessWithin("&read_consistency=stale", min(least, 1), 2*patient)
	}
}

// Of a replica that is read only if it is at most so far behind no greater age is
// told, nor that its age is not known: it catches up before it is read.
func TestAgeWithinTheBoundThatWasAskedFor(t *testing.T) {
	for _, c := range []struct {
		limit, asked, asOf time.Duration
		known              bool
		at                 time.Duration
		ok                 bool
	}{
		{0, 10, 3, true, 3, true},
		{0, 10, 0, false, 0, false},
		{2, 10, 3, true, 8, true},
		{2, 10, 8, true, 8, true},
		{2, 10, 9, true, 9, true},
		{2, 10, 0, false, 8, true},
	} {
		if at, ok := atMost(c.limit, c.asked, c.asOf, c.known); at != c.at || ok != c.ok {
			t.Errorf("%+v: %d %v", c, at, ok)
		}
	}
}
