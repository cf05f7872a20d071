package main

import (
	"context"
	"strings"
	"time"
)

// keywords begin or continue statements.
var keywords = strings.Fields("SELECT FROM WHERE GROUP BY ORDER LIMIT OFFSET SLIMIT SOFFSET fill( time( AND OR ASC DESC AS " +
	"SHOW DATABASES MEASUREMENTS SERIES TAG FIELD KEYS VALUES WITH KEY RETENTION POLICIES SHARDS SHARD GROUPS USERS GRANTS FOR " +
	"CREATE DATABASE POLICY ON DURATION REPLICATION DEFAULT USER PASSWORD ALTER DROP MEASUREMENT DELETE EXPLAIN ANALYZE INTO " +
	"count( sum( mean( median( min( max( first( last( spread( stddev( percentile( distinct( now() " +
	"use insert format precision settings help exit")

// completer offers keywords and the names of the database in use. It asks the
// server for names when it first needs them, and again after forget.
type completer struct {
	s     *shell
	names []string
	known bool
}

func (c *completer) forget() { c.known = false }

// complete is liner's word completer: it splits line at the word that ends at pos.
func (c *completer) complete(line string, pos int) (head string, words []string, tail string) {
	start := strings.LastIndexAny(line[:pos], " ,(\"'=") + 1
	head, tail = line[:start], line[pos:]
	prefix := line[start:pos]
	if prefix == "" {
		return head, nil, tail
	}
	if !c.known {
		c.load()
	}
	for _, list := range [][]string{c.names, keywords} {
		for _, w := range list {
			if len(w) >= len(prefix) && strings.EqualFold(w[:len(prefix)], prefix) {
				words = append(words, w)
			}
		}
	}
	return head, words, tail
}

// load asks for names; without a quick answer only keywords are offered.
func (c *completer) load() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c.names, c.known = nil, true
	statements := []string{"SHOW DATABASES"}
	if c.s.database != "" {
		statements = append(statements, "SHOW MEASUREMENTS LIMIT 1000", "SHOW TAG KEYS", "SHOW FIELD KEYS")
	}
	seen := map[string]bool{}
	for _, q := range statements {
		names, err := c.s.names(ctx, q)
		if err != nil {
			continue
		}
		for _, n := range names {
			if !seen[n] {
				seen[n] = true
				c.names = append(c.names, n)
			}
		}
	}
}
