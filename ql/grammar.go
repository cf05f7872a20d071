package ql

import (
	"slices"
	"strings"

	"github.com/influxdata/influxql"
)

type handler = func(*influxql.Parser) (influxql.Statement, error)

// tree is the grammar: which handler parses what follows which keywords.
var tree = language()

// language returns influxql's grammar and our additions to it: CREATE DATABASE
// IF NOT EXISTS and DROP DATABASE IF EXISTS, which InfluxDB 0.10 knew and whose
// meaning the statements without these words have had since, and the statements
// about the nodes of a cluster.
func language() *influxql.ParseTree {
	t := clone(influxql.Language)
	create, drop := t.Tokens[influxql.CREATE], t.Tokens[influxql.DROP]
	create.Handlers[influxql.DATABASE] = skipping(create.Handlers[influxql.DATABASE], "NOT", "EXISTS")
	drop.Handlers[influxql.DATABASE] = skipping(drop.Handlers[influxql.DATABASE], "EXISTS")
	addClusterStatements(t)
	return t
}

// clone copies a grammar with the order of its keywords, which error texts list.
func clone(t *influxql.ParseTree) *influxql.ParseTree {
	c := &influxql.ParseTree{
		Handlers: make(map[influxql.Token]handler, len(t.Handlers)),
		Tokens:   make(map[influxql.Token]*influxql.ParseTree, len(t.Tokens)),
		Keys:     slices.Clone(t.Keys),
	}
	for tok, h := range t.Handlers {
		c.Handlers[tok] = h
	}
	for tok, sub := range t.Tokens {
		c.Tokens[tok] = clone(sub)
	}
	return c
}

// skipping returns a handler that accepts IF and the words before what next
// parses. IF is no keyword, so that a database may have that name: it is one
// unless the first of the words follows.
func skipping(next handler, words ...string) handler {
	return func(p *influxql.Parser) (influxql.Statement, error) {
		tok, _, lit := p.ScanIgnoreWhitespace()
		if !isWord(tok, lit, "IF") {
			p.Unscan()
			return next(p)
		}
		// The parser can step back over three tokens, no more.
		if tok, _, _ := p.Scan(); tok != influxql.WS {
			p.Unscan()
			p.Unscan()
			return next(p)
		}
		if tok, _, lit := p.Scan(); !isWord(tok, lit, words[0]) {
			p.Unscan()
			p.Unscan()
			p.Unscan()
			return next(p)
		}
		for _, word := range words[1:] {
			if tok, pos, lit := p.ScanIgnoreWhitespace(); !isWord(tok, lit, word) {
				return nil, unexpected(tok, pos, lit, word)
			}
		}
		return next(p)
	}
}

func isWord(tok influxql.Token, lit, word string) bool {
	return tok == influxql.IDENT && strings.EqualFold(lit, word)
}
