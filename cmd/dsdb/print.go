package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// printer lays out the parts of an answer in one of the formats column, csv and line.
type printer struct {
	out    *bufio.Writer
	format string
	rows   int
	series int    // begun so far
	open   bool   // the last series goes on
	header string // csv: of the last series
	schema schema // line: what the columns are
}

// schema says what JSON does not: the types of fields, and which columns are tags.
type schema struct {
	types map[columnName]string
	tags  map[columnName]bool
}

type columnName struct{ measurement, column string }

func newPrinter(out io.Writer, format string) *printer {
	return &printer{out: bufio.NewWriterSize(out, 64<<10), format: format}
}

// part prints one part of an answer.
func (p *printer) part(r *result) error {
	for i := range r.Series {
		s := &r.Series[i]
		switch p.format {
		case "csv":
			p.csv(s)
		case "line":
			if err := p.line(s); err != nil {
				return err
			}
		default:
			p.column(s)
		}
		p.rows += len(s.Values)
		p.open = s.Partial
	}
	for _, m := range r.Messages {
		fmt.Fprintf(p.out, "%s: %s.\n", strings.ToUpper(m.Level), m.Text)
	}
	return p.out.Flush()
}

// column prints as InfluxDB 0.10's shell did: a name underlined, or name and
// tags and an underlined header; columns aligned by tabs.
func (p *printer) column(s *series) {
	if p.open {
		p.table(s, nil)
		return
	}
	if p.series > 0 {
		fmt.Fprintln(p.out)
	}
	p.series++
	var head [][]string
	if s.Name != "" {
		fmt.Fprintln(p.out, "name: "+s.Name)
		if len(s.Tags) == 0 {
			fmt.Fprintln(p.out, strings.Repeat("-", len("name: "+s.Name)))
		}
	}
	head = append(head, s.Columns)
	if len(s.Tags) > 0 {
		fmt.Fprintln(p.out, "tags: "+tagList(s.Tags, ", "))
		dashes := make([]string, len(s.Columns))
		for i, c := range s.Columns {
			dashes[i] = strings.Repeat("-", len(c))
		}
		head = append(head, dashes)
	}
	p.table(s, head)
}

func (p *printer) table(s *series, head [][]string) {
	w := tabwriter.NewWriter(p.out, 0, 8, 1, '\t', 0)
	for _, h := range head {
		fmt.Fprintln(w, strings.Join(h, "\t"))
	}
	cells := make([]string, len(s.Columns))
	for _, row := range s.Values {
		for i, v := range row {
			cells[i] = text(v)
		}
		fmt.Fprintln(w, strings.Join(cells[:len(row)], "\t"))
	}
	w.Flush()
}

func (p *printer) csv(s *series) {
	w := csv.NewWriter(p.out)
	head := []string{"name"}
	if len(s.Tags) > 0 {
		head = append(head, "tags")
	}
	head = append(head, s.Columns...)
	if h := strings.Join(head, ","); h != p.header {
		if p.header != "" {
			fmt.Fprintln(p.out)
		}
		_ = w.Write(head) // an error stays in the bufio.Writer
		p.header = h
	}
	for _, row := range s.Values {
		rec := []string{s.Name}
		if len(s.Tags) > 0 {
			rec = append(rec, tagList(s.Tags, ","))
		}
		for _, v := range row {
			rec = append(rec, text(v))
		}
		_ = w.Write(rec)
	}
	w.Flush()
}

// line prints rows as line protocol that can be imported again.
func (p *printer) line(s *series) error {
	at := slices.Index(s.Columns, "time")
	if at < 0 || s.Name == "" {
		return errors.New("format line is for points, as of SELECT * FROM cpu: this answer has no measurement or no time")
	}
	for _, row := range s.Values {
		tags := maps.Clone(s.Tags)
		var fields []string
		for i, v := range row {
			name := columnName{s.Name, s.Columns[i]}
			switch {
			case i == at || v == nil:
			case p.schema.tags[name]:
				if tags == nil {
					tags = map[string]string{}
				}
				tags[name.column] = text(v)
			default:
				fields = append(fields, escape(name.column, ",= ")+"="+p.literal(name, v))
			}
		}
		if len(fields) > 0 {
			fmt.Fprintf(p.out, "%s %s %s\n", seriesKey(s.Name, tags), strings.Join(fields, ","), text(row[at]))
		}
	}
	return nil
}

func seriesKey(measurement string, tags map[string]string) string {
	key := escape(measurement, ", ")
	for _, k := range tagKeys(tags) {
		if tags[k] != "" {
			key += "," + escape(k, ",= ") + "=" + escape(tags[k], ",= ")
		}
	}
	return key
}

// literal writes a value as line protocol does. JSON has lost whether a whole
// number was an integer: the schema tells.
func (p *printer) literal(name columnName, v any) string {
	switch v := v.(type) {
	case string:
		return `"` + escape(v, `"\`) + `"`
	case json.Number:
		switch p.schema.types[name] {
		case "integer":
			return v.String() + "i"
		case "unsigned":
			return v.String() + "u"
		}
		return v.String()
	}
	return text(v)
}

func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func tagKeys(tags map[string]string) []string {
	keys := make([]string, 0, len(tags))
	for k := range tags {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func tagList(tags map[string]string, sep string) string {
	var out []string
	for _, k := range tagKeys(tags) {
		out = append(out, k+"="+tags[k])
	}
	return strings.Join(out, sep)
}

// text is a value as a person reads it.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	}
	return fmt.Sprint(v)
}
