// Package ql turns statement text into parsed statements. The language is
// InfluxQL, as github.com/influxdata/influxql parses it, and what that module
// refuses but clients of InfluxDB 0.10 and DSDB send. The package bounds what
// a text may cost (length, statements, nesting, operators, regular
// expressions) and words errors as InfluxDB's server does. It knows neither
// the catalogue nor how a statement is executed.
//
//	text, bound parameters ─ Parse ─→ []Statement ─→ planner, server
//
// A statement of DSDB's own is a struct that embeds influxql.Statement, has
// its own String and RequiredPrivileges, and is hooked into the tree that
// language returns.
package ql

import (
	"errors"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// Statement is a parsed statement. RequiredPrivileges says who may execute it.
type Statement = influxql.Statement

// The bounds on one text.
const (
	MaxText       = 1 << 20 // bytes
	MaxStatements = 100
	MaxDepth      = 100    // of parentheses, calls and subqueries within each other
	MaxOperators  = 10_000 // in one expression
	MaxRegex      = 1 << 10
	// maxParens bounds the recursion of the parser, before anything is known
	// about the text. Each parenthesis takes it under 2 KiB of stack.
	maxParens = 20_000
)

// Parse parses statements that are separated by semicolons. params are the
// values of bound parameters ($name): strings, booleans, float64, int64 and
// json.Number, or an object with one member of those that names the type:
// {"duration": "1h"}, {"regex": "…"}, {"integer": 1}, {"float": 1},
// {"string": "…"}, {"identifier": "…"}. Decode JSON with UseNumber, since a
// float64 is always a float. An error has KindInvalid, the text that InfluxDB
// answers with, and perhaps a Position; then no statement is returned. Like
// InfluxDB's server Parse drops white space at both ends of the text, and
// counts positions from what is left.
func Parse(text string, params map[string]any) ([]Statement, error) {
	statements, err := parse(text, params)
	if err != nil {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "error parsing query: %w", err)
	}
	return statements, nil
}

func parse(text string, params map[string]any) ([]Statement, error) {
	if len(text) > MaxText {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "text of %d bytes exceeds %d", len(text), MaxText)
	}
	if n := strings.Count(text, "("); n > maxParens {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "%d parentheses exceed %d", n, maxParens)
	}
	p := influxql.NewParser(strings.NewReader(strings.TrimSpace(text)))
	p.SetParams(params)
	var statements []Statement
	separated := true
	for {
		tok, pos, lit := p.ScanIgnoreWhitespace()
		switch {
		case tok == influxql.EOF:
			return statements, nil
		case tok == influxql.SEMICOLON:
			separated = true
			continue
		case !separated:
			return nil, unexpected(tok, pos, lit, ";")
		case len(statements) == MaxStatements:
			return nil, &influxql.ParseError{Message: "more than 100 statements", Pos: pos}
		}
		p.Unscan()
		s, err := tree.Parse(p)
		if err != nil {
			return nil, err
		}
		if err := checkLimits(s); err != nil {
			return nil, err
		}
		statements = append(statements, s)
		separated = false
	}
}

// unexpected is the error for a token that the grammar does not allow here.
func unexpected(tok influxql.Token, pos influxql.Pos, lit string, expected ...string) error {
	if lit == "" {
		lit = tok.String()
	}
	return &influxql.ParseError{Found: lit, Expected: expected, Pos: pos}
}

// Position returns where in the text an error of Parse lies; both count from
// 1, and char counts characters. ok is false if the error has no place.
func Position(err error) (line, char int, ok bool) {
	var e *influxql.ParseError
	if !errors.As(err, &e) {
		return 0, 0, false
	}
	return e.Pos.Line + 1, e.Pos.Char + 1, true
}

// Privileges returns what a user needs to execute the statement. A privilege
// without a database name is on the default database of the request.
func Privileges(s Statement) (influxql.ExecutionPrivileges, error) {
	return s.RequiredPrivileges()
}
