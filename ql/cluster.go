package ql

import (
	"strconv"

	"github.com/influxdata/influxql"
)

// The statements about the nodes of a cluster. InfluxDB 0.10 had SHOW SERVERS
// and DROP META|DATA SERVER, later versions have neither; the rest is ours.
type (
	// ShowServers is SHOW SERVERS.
	ShowServers struct{ clusterStatement }
	// ShowCluster is SHOW CLUSTER: how each process is.
	ShowCluster struct{ clusterStatement }
	// DropServer is DROP META SERVER id and DROP DATA SERVER id [FORCE].
	DropServer struct {
		clusterStatement
		Meta  bool // else DATA
		ID    uint64
		Force bool // of a data node: though it holds the last copy of a shard
	}
)

// clusterStatement is what the statements have in common: only admins may.
type clusterStatement struct{ influxql.Statement }

// RequiredPrivileges implements Statement.
func (clusterStatement) RequiredPrivileges() (influxql.ExecutionPrivileges, error) {
	return influxql.ExecutionPrivileges{{Admin: true, Privilege: influxql.AllPrivileges}}, nil
}

func (*ShowServers) String() string { return "SHOW SERVERS" }
func (*ShowCluster) String() string { return "SHOW CLUSTER" }

func (s *DropServer) String() string {
	text := "DROP DATA SERVER "
	if s.Meta {
		text = "DROP META SERVER "
	}
	text += strconv.FormatUint(s.ID, 10)
	if s.Force {
		text += " FORCE"
	}
	return text
}

// addClusterStatements hooks the statements into a grammar. Their words are no
// keywords, so that tags and fields may go by these names.
func addClusterStatements(t *influxql.ParseTree) {
	show, drop := t.Tokens[influxql.SHOW], t.Tokens[influxql.DROP]
	show.Handlers[influxql.IDENT] = func(p *influxql.Parser) (influxql.Statement, error) {
		p.Unscan()
		tok, pos, lit := p.ScanIgnoreWhitespace()
		switch {
		case isWord(tok, lit, "SERVERS"):
			return &ShowServers{}, nil
		case isWord(tok, lit, "CLUSTER"):
			return &ShowCluster{}, nil
		}
		return nil, unexpected(tok, pos, lit, show.Keys...)
	}
	drop.Handlers[influxql.IDENT] = func(p *influxql.Parser) (influxql.Statement, error) {
		p.Unscan()
		tok, pos, lit := p.ScanIgnoreWhitespace()
		if !isWord(tok, lit, "META") && !isWord(tok, lit, "DATA") {
			return nil, unexpected(tok, pos, lit, drop.Keys...)
		}
		return dropServer(p, isWord(tok, lit, "META"))
	}
}

// dropServer parses what follows DROP META or DROP DATA.
func dropServer(p *influxql.Parser, meta bool) (influxql.Statement, error) {
	if tok, pos, lit := p.ScanIgnoreWhitespace(); !isWord(tok, lit, "SERVER") {
		return nil, unexpected(tok, pos, lit, "SERVER")
	}
	id, err := p.ParseUInt64()
	if err != nil {
		return nil, err
	}
	s := &DropServer{Meta: meta, ID: id}
	if tok, _, lit := p.ScanIgnoreWhitespace(); !meta && isWord(tok, lit, "FORCE") {
		s.Force = true
	} else {
		p.Unscan()
	}
	return s, nil
}
