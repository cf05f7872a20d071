package planner

import (
	"strconv"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
)

// String prints the plan that is explained.
func (e *Explain) String() string {
	if e.Analyze {
		return "explain analyze\n" + indent(e.Select.String())
	}
	return "explain\n" + indent(e.Select.String())
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n  ") + "\n"
}

// String prints the plan.
func (s *Show) String() string {
	w := &printer{}
	w.WriteString("show " + s.Kind.String() + "\n")
	if s.Database != "" {
		w.line("database %s", name(s.Database))
	}
	if s.User != "" {
		w.line("user %s", name(s.User))
	}
	w.targets(s.Targets)
	if s.Kind >= ShowMeasurements {
		w.line("range %s", rangeText(s.Range))
	}
	w.tagsLine("where", s.Where, s.Nothing)
	if s.Keys != nil {
		w.line("keys %s", keyText(s.Keys, "key"))
	}
	for _, v := range s.Values {
		w.line("values %s", keyText(v, "value"))
	}
	if s.Scoped {
		w.line("with database and policy")
	}
	if s.Count {
		w.line("by measurement")
	}
	w.page(s.Page)
	return w.Builder.String()
}

func (w *printer) targets(ts []Target) {
	for _, t := range ts {
		what := "every measurement"
		switch {
		case t.Regex != nil:
			what = regexText(t.Regex)
		case t.Name != "":
			what = name(t.Name)
		}
		policy := "*"
		if t.Policy != "" {
			policy = name(t.Policy)
		}
		w.line("from %s.%s %s shards %s", name(t.Database), policy, what, shardList(t.Shards))
	}
}

func (w *printer) tagsLine(word string, t *dsdb.TagExpr, nothing bool) {
	switch {
	case nothing:
		w.line("%s false", word)
	case t != nil:
		w.line("%s %s", word, tagText(t))
	}
}

// keyText prints a condition on one name, which stands for every key.
func keyText(t *dsdb.TagExpr, as string) string {
	c := *t
	c.Key = as
	c.Args = nil
	for _, a := range t.Args {
		n := *a
		n.Key = as
		c.Args = append(c.Args, &n)
	}
	return tagText(&c)
}

// String prints the plan; a password is not shown.
func (c *Command) String() string {
	w := &printer{}
	w.WriteString(c.Kind.String() + "\n")
	if c.Database != "" {
		w.line("database %s", name(c.Database))
	}
	if c.Name != "" {
		w.line("name %s", name(c.Name))
	}
	if c.Policy != nil {
		w.policy(c.Policy)
	}
	if c.Delete != nil {
		w.targets(c.Delete.Targets)
		w.line("range %s", rangeText(c.Delete.Range))
		w.tagsLine("where", c.Delete.Where, c.Delete.Nothing)
	}
	if c.Kind == DropShard {
		w.line("shard %d", c.Shard)
	}
	if c.Node != 0 {
		w.line("node %d", c.Node)
	}
	if c.Force {
		w.line("force")
	}
	if c.Admin {
		w.line("admin")
	}
	if (c.Kind == Grant || c.Kind == Revoke) && !c.Admin {
		w.line("right %s", c.Right)
	}
	return w.Builder.String()
}

func (w *printer) policy(p *PolicySpec) {
	span := func(d *time.Duration) string {
		if d == nil {
			return "unsaid"
		}
		return d.String()
	}
	replication := "unsaid"
	if p.Replication != nil {
		replication = strconv.Itoa(*p.Replication)
	}
	w.line("policy %s duration %s replication %s shard duration %s default %t",
		name(p.Name), span(p.Duration), replication, span(p.ShardDuration), p.Default)
}
