//go:build packages

package chaos

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// step is a command of a guide, where to type it, and what it is to print.
type step struct {
	line    int
	hosts   []string
	command string
	want    string // "": whatever
}

// steps reads the blocks of a guide that are marked console, also those in
// comments, which set the scene for what follows. A line "host,host$ command" is
// typed on these hosts; the lines after it are what it prints, in which … stands
// for anything, and for any lines if it is alone.
func steps(text string) []step {
	var out []step
	prompt := regexp.MustCompile(`^((?:influx\d,?)+)\$ (.*)$`)
	inside := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case line == "```console" || line == "<!--console":
			inside = true
		case line == "```" || line == "-->":
			inside = false
		case !inside:
		case prompt.MatchString(line):
			m := prompt.FindStringSubmatch(line)
			out = append(out, step{line: i + 1, hosts: strings.Split(m[1], ","), command: m[2]})
		case len(out) > 0:
			out[len(out)-1].want += line + "\n"
		}
	}
	for i := range out {
		out[i].want = strings.TrimSpace(out[i].want)
	}
	return out
}

// pattern is what the output of a step has to match.
func (s *step) pattern() *regexp.Regexp {
	if s.want == "…" {
		return regexp.MustCompile("")
	}
	p := regexp.QuoteMeta(s.want)
	p = regexp.MustCompile(`(?m)^…\n`).ReplaceAllString(p, `(?:.*\n)*?`)
	p = regexp.MustCompile(`\n…\z`).ReplaceAllString(p, `(?:\n.*)*`)
	return regexp.MustCompile(`\A` + strings.ReplaceAll(p, "…", `.*`) + `\z`)
}

// asks matches the commands that change nothing, or may be typed again: a
// cluster takes its time.
var asks = regexp.MustCompile(`^(sudo )?(dsdb|curl|tail|grep|du) `)

// TestClusteringGuide types every command of docs/clustering.md, in their order,
// and compares what they print.
func TestClusteringGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/clustering.md")
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[string]*Host{}
	for _, h := range machines(t, 5) {
		hosts[h.Name] = h
		prepare(t, h)
		must(t, h, `command -v sudo >/dev/null || { printf '#!/bin/sh\nexec "$@"\n' >/usr/bin/sudo && chmod 755 /usr/bin/sudo; }`)
	}
	all := steps(string(text))
	if len(all) < 50 {
		t.Fatalf("%d commands were found", len(all))
	}
	for _, s := range all {
		for _, name := range s.hosts {
			s.run(t, hosts[name])
		}
	}
	t.Logf("%d commands", len(all))
}

func (s *step) run(t *testing.T, h *Host) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
		out, err := h.Run("exec 2>&1\n" + s.command)
		out = strings.TrimSpace(out)
		if s.want == "" && err == nil || s.want != "" && s.pattern().MatchString(out) {
			return
		}
		if !asks.MatchString(s.command) || time.Now().After(deadline) {
			t.Fatalf("docs/clustering.md:%d: on %s: %s\nprints (%v):\n%s\nnot:\n%s", s.line, h.Name, s.command, err, out, s.want)
		}
	}
}
