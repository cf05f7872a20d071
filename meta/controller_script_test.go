package meta

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
)

// TestControllerScripts runs the scripts in testdata/controller on a world
// without losses. What the controller does is printed with its time in seconds;
// leaders and matches are those of the world, in which time is fast: a process
// is dead after 20 s.
func TestControllerScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/controller", func(t *testing.T, path string) {
		w := newWorld(t, 1, 0)
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			s := script{t, td}
			before := len(w.log)
			switch td.Cmd {
			case "join":
				for range max(1, s.optional("count")) {
					w.join(!s.has("data-only"), !s.has("meta-only"))
				}
				return fmt.Sprintf("%d processes\n", len(w.procs))
			case "create":
				n := int(s.number("replicas"))
				w.try(&CreateDatabase{Name: s.str("db"), Policy: &PolicySpec{ReplicaN: &n}})
				w.try(&EnsureShardGroups{Database: s.str("db"), Times: s.times("times"), Now: s.now(), Witness: true})
				return w.placement()
			case "alter":
				n := int(s.number("replicas"))
				w.try(&UpdateRetentionPolicy{Database: s.str("db"), Name: AutoPolicy, ReplicaN: &n})
				return "ok\n"
			case "up", "down":
				w.procs[s.number("process")].up = td.Cmd == "up"
				return "ok\n"
			case "full", "roomy":
				w.procs[s.number("process")].full = td.Cmd == "full"
				return "ok\n"
			case "replace":
				return w.replaceProcess(int(s.number("process")))
			case "large":
				g := w.groups[dsdb.GroupID(s.number("group"))]
				g.size, g.queue, g.sent = int(s.number("seconds")), int(s.optional("queue")), make(map[dsdb.ReplicaID]int)
				return "ok\n"
			case "damage":
				w.groups[dsdb.GroupID(s.number("group"))].broken[dsdb.ReplicaID(s.number("replica"))] = true
				return "ok\n"
			case "rot":
				w.groups[dsdb.GroupID(s.number("group"))].rotten[dsdb.ReplicaID(s.number("replica"))] = true
				return "ok\n"
			case "behind": // the replica lacks the newest entries of its group
				g := w.groups[dsdb.GroupID(s.number("group"))]
				g.match[dsdb.ReplicaID(s.number("replica"))] = g.commit - s.number("entries")
				return "ok\n"
			case "split", "reunite":
				w.groups[dsdb.GroupID(s.number("group"))].split = td.Cmd == "split"
				return "ok\n"
			case "joint": // a joint change has brought the learners of a group in the place of these voters, and was not left yet
				g := w.groups[dsdb.GroupID(s.number("group"))]
				g.outgoing = slices.Clone(g.voters)
				for _, id := range numbers[dsdb.ReplicaID](s, "without") {
					g.voters = slices.DeleteFunc(slices.Clone(g.voters), func(m Member) bool { return m.Replica == id })
				}
				g.voters, g.learners = append(g.voters, g.learners...), nil
				return "ok\n"
			case "leave": // the joint change is over; the catalogue, and who left by it, have not heard of it
				g := w.groups[dsdb.GroupID(s.number("group"))]
				g.former, g.outgoing = g.outgoing, nil
				return "ok\n"
			case "new-controller":
				w.c = NewController(testOptions())
				return "ok\n"
			case "run":
				for range s.number("seconds") {
					w.second(false)
				}
				return w.told(before)
			case "show":
				return w.placement()
			case "show-delays":
				return w.delays()
			}
			if td.Cmd == "show-nodes" {
				return s.read(w.d)
			}
			if c := s.memberCommand(); c != nil {
				_, verdict := w.d.Apply(Encode(dsdb.ProposalID{}, c))
				w.try(c)
				return strings.TrimSpace("ok "+verdict.Reason) + "\n"
			}
			t.Fatalf("%s: unknown command %s", td.Pos, td.Cmd)
			return ""
		})
	})
}

// replaceProcess ends a process and has a new one join at its addresses.
func (w *world) replaceProcess(i int) string {
	w.procs[i].up = false
	old, _ := w.d.Process(w.procs[i].name)
	c := join(fmt.Sprint(old.UUID, "-new"))
	c.Addresses = old.Addresses
	if w.try(c) {
		w.t.Fatal("an address was given away")
	}
	if c.Replace = old.ID(); !w.try(c) {
		w.t.Fatal("an address was not taken over")
	}
	w.procs = append(w.procs, &fakeProcess{name: c.UUID, up: true})
	return fmt.Sprintf("process %d\n", len(w.procs)-1)
}

// told returns what was logged since.
func (w *world) told(since int) string {
	lines := slices.Clone(w.log[since:])
	for i, line := range lines {
		at, rest, _ := strings.Cut(line, " ")
		lines[i] = strings.TrimSuffix(at, "000") + "s " + strings.TrimSpace(rest)
	}
	if len(lines) == 0 {
		return "nothing\n"
	}
	return strings.Join(lines, "\n") + "\n"
}

// delays prints what the last step could do nothing about, and whose copies are meant.
func (w *world) delays() string {
	var b strings.Builder
	for _, d := range w.c.Delays() {
		fmt.Fprintln(&b, d.Reason, d.Nodes)
	}
	return cmp.Or(b.String(), "none\n")
}

// placement prints for each group replica@node of its members; L leads, l learns, w is a
// witness.
func (w *world) placement() string {
	var b strings.Builder
	for _, g := range w.sorted() {
		fmt.Fprintf(&b, "%d:", g.id)
		for _, m := range g.voters {
			mark := ""
			if w.witness(m.Replica) {
				mark = "w"
			}
			if m.Replica == g.leader {
				mark = "L"
			}
			fmt.Fprintf(&b, " %d@%d%s", m.Replica, m.Node, mark)
		}
		for _, m := range g.learners {
			fmt.Fprintf(&b, " %d@%dl", m.Replica, m.Node)
		}
		b.WriteString("\n")
	}
	return b.String()
}
