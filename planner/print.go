package planner

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
)

// printer writes the lines of a plan.
type printer struct {
	strings.Builder
	p *Select // whose Refs and Calls expressions name
}

// line writes one indented line.
func (w *printer) line(format string, args ...any) {
	w.WriteString("  ")
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

// String prints the plan.
func (p *Select) String() string {
	w := &printer{p: p}
	w.WriteString("select\n")
	for _, s := range p.Sources {
		w.line("from %s.%s.%s shards %s", name(s.Database), name(s.Policy), name(s.Measurement), shardList(s.Shards))
	}
	if len(p.Sources) == 0 {
		w.line("from nothing")
	}
	w.line("range %s", rangeText(p.Range))
	if p.Where != nil {
		w.line("where %s", w.expr(p.Where))
	}
	if p.Tags != nil {
		w.line("tags %s", tagText(p.Tags))
	}
	if p.Residual != nil && p.Tags != nil {
		w.line("test rows %s", w.expr(p.Residual))
	}
	w.grouping()
	for i, c := range p.Calls {
		w.line("call %d %s %s", i, w.call(c), typeText(c.Type))
	}
	w.line("column %s time", name(p.Time))
	for _, c := range p.Columns {
		w.line("column %s = %s %s", name(c.Name), w.expr(c.Expr), typeText(c.Expr.Type))
	}
	w.ordering()
	return w.Builder.String()
}

func (w *printer) grouping() {
	p := w.p
	if len(p.Dims) > 0 {
		names := make([]string, len(p.Dims))
		for i, d := range p.Dims {
			names[i] = name(d)
		}
		w.line("group by %s", strings.Join(names, ", "))
	}
	if p.Interval.Every != 0 {
		w.line("windows of %s offset %s fill %s", time.Duration(p.Interval.Every),
			time.Duration(p.Interval.Offset), fillText(p.Fill))
	}
	switch {
	case p.Selector:
		w.line("selector")
	case p.DistinctRows:
		w.line("distinct rows")
	}
}

func (w *printer) ordering() {
	p := w.p
	if p.Descending {
		w.line("order by time desc")
	}
	w.page(Page{p.Limit, p.Offset, p.SLimit, p.SOffset})
	if p.Location != nil {
		w.line("zone %s", p.Location)
	}
}

func (w *printer) page(p Page) {
	for _, l := range []struct {
		name string
		n    int
	}{{"limit", p.Limit}, {"offset", p.Offset}, {"slimit", p.SLimit}, {"soffset", p.SOffset}} {
		if l.n != 0 {
			w.line("%s %d", l.name, l.n)
		}
	}
}

var opText = [...]string{
	OpAdd: "+", OpSub: "-", OpMul: "*", OpDiv: "/", OpMod: "%", OpBitAnd: "&", OpBitOr: "|", OpBitXor: "^",
	OpEqual: "=", OpNotEqual: "!=", OpLess: "<", OpLessEqual: "<=", OpGreater: ">", OpGreaterEqual: ">=",
	OpMatch: "=~", OpNotMatch: "!~", OpAnd: "and", OpOr: "or",
}

func (w *printer) expr(e *Expr) string {
	switch e.Op {
	case OpConst:
		return valueText(e.Value)
	case OpRef:
		return w.ref(w.p.Refs[e.Index])
	case OpCall:
		return w.call(w.p.Calls[e.Index])
	case OpMatch, OpNotMatch:
		return fmt.Sprintf("(%s %s %s)", w.expr(e.Left), opText[e.Op], regexText(e.Regex))
	}
	return fmt.Sprintf("(%s %s %s)", w.expr(e.Left), opText[e.Op], w.expr(e.Right))
}

func (w *printer) ref(r Ref) string {
	t := typeText(r.Type)
	if r.Tag {
		t = "tag"
	}
	return name(r.Name) + "::" + t
}

var funcNames = [...]string{
	"count", "sum", "mean", "min", "max", "first", "last", "spread", "stddev", "median",
	"percentile", "distinct", "count distinct", "mode",
}

// String returns the name of the function.
func (f Func) String() string { return funcNames[f] }

func (w *printer) call(c Call) string {
	arg := w.ref(w.p.Refs[c.Ref])
	if c.Func == Percentile {
		arg += ", " + strconv.FormatFloat(c.N, 'g', -1, 64)
	}
	return c.Func.String() + "(" + arg + ")"
}

func typeText(t dsdb.FieldType) string {
	if t == dsdb.NoType {
		return "none"
	}
	return t.String()
}

func valueText(v Value) string {
	switch v.Type {
	case dsdb.Float:
		s := strconv.FormatFloat(v.Float, 'g', -1, 64)
		if !strings.ContainsAny(s, ".eIN") {
			s += ".0"
		}
		return s
	case dsdb.Integer:
		return strconv.FormatInt(v.Int, 10)
	case dsdb.Unsigned:
		return strconv.FormatUint(uint64(v.Int), 10) + "u"
	case dsdb.Boolean:
		return strconv.FormatBool(v.Int != 0)
	case dsdb.String:
		return strconv.Quote(v.Str)
	}
	return "null"
}

func fillText(f Fill) string {
	switch f.Kind {
	case FillNone:
		return "none"
	case FillPrevious:
		return "previous"
	case FillLinear:
		return "linear"
	case FillNumber:
		return strconv.FormatFloat(f.Number, 'g', -1, 64)
	}
	return "null"
}

// name prints an identifier, quoted where it could be misread.
func name(s string) string {
	if s == "" || strings.ContainsAny(s, " .,\"'()=:\n\t") {
		return strconv.Quote(s)
	}
	return s
}

func regexText(re *regexp.Regexp) string { return "/" + re.String() + "/" }

// rangeText prints a range; an open side is "-".
func rangeText(r dsdb.TimeRange) string {
	start, end := "-", "-"
	if r.Start != dsdb.AllTime.Start {
		start = time.Unix(0, r.Start).UTC().Format(time.RFC3339Nano)
	}
	if r.End != dsdb.AllTime.End {
		end = time.Unix(0, r.End).UTC().Format(time.RFC3339Nano)
	}
	return "[" + start + ", " + end + ")"
}

func shardList(shards []Shard) string {
	if len(shards) == 0 {
		return "none"
	}
	ids := make([]string, len(shards))
	for i, s := range shards {
		ids[i] = strconv.FormatUint(uint64(s.ID), 10)
	}
	return strings.Join(ids, ",")
}

// tagText prints a condition on tags.
func tagText(t *dsdb.TagExpr) string {
	switch t.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		word := " and "
		if t.Op == dsdb.TagOr {
			word = " or "
		}
		parts := make([]string, len(t.Args))
		for i, a := range t.Args {
			parts[i] = tagText(a)
		}
		return "(" + strings.Join(parts, word) + ")"
	case dsdb.TagMatch:
		return name(t.Key) + " =~ " + regexText(t.Regex)
	case dsdb.TagNotMatch:
		return name(t.Key) + " !~ " + regexText(t.Regex)
	case dsdb.TagNotEqual:
		return name(t.Key) + " != " + strconv.Quote(t.Value)
	}
	return name(t.Key) + " = " + strconv.Quote(t.Value)
}
