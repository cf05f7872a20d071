package server

import (
	"context"
	"errors"
	iofs "io/fs"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/server/httpd"
)

// Execute plans and runs one statement. A nil Result means that it has no rows.
func (n *Node) Execute(ctx context.Context, r *httpd.QueryRequest) (exec.Result, error) {
	began := time.Now()
	if n.cfg.Data.QueryLog {
		n.log.Info("query", "statement", ql.Sanitize(r.Statement.String()), "database", r.Database)
	}
	if err := n.readIndex(ctx, dsdb.MetaGroup); err != nil {
		return nil, err
	}
	view := n.meta.View()
	plan, err := planner.Compile(r.Statement, &catalog{view, n.shards}, planner.Options{
		Now: began.UnixNano(), DefaultDB: r.Database, DefaultRP: r.Policy})
	if err != nil {
		return nil, err
	}
	var res exec.Result
	switch p := plan.(type) {
	case *planner.Select:
		res, err = exec.Run(ctx, p, n.openSource, n.execOptions(r.ChunkRows))
	case *planner.Explain:
		res, err = exec.Explain(ctx, p, n.openSource, n.execOptions(r.ChunkRows))
	case *planner.Show:
		res, err = exec.Show(ctx, p, &showEnv{n, r.User})
	case *planner.Command:
		err = n.execute(ctx, p)
		n.audit(ctx, r, err)
	}
	if err != nil {
		return nil, n.explain(err, view)
	}
	if res != nil {
		res = &explainedResult{res, n, view}
	}
	if slow := time.Duration(n.cfg.Coordinator.LogQueriesAfter); slow > 0 && res != nil {
		res = &timedResult{Result: res, began: began, slow: slow, n: n, text: r.Statement.String()}
	}
	return res, nil
}

// audit logs who changed what, where there are users to be told apart.
func (n *Node) audit(ctx context.Context, r *httpd.QueryRequest, err error) {
	if !n.cfg.HTTP.AuthEnabled || r.User == nil {
		return
	}
	attrs := []any{"user", r.User.Name, "database", r.Database, "statement", ql.Sanitize(r.Statement.String())}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	n.log.InfoContext(ctx, "change", attrs...)
}

func (n *Node) execOptions(chunkRows int) exec.Options {
	c := n.cfg.Coordinator
	return exec.Options{MemoryLimit: int64(c.QueryMemory), MaxBuckets: c.MaxSelectBuckets,
		MaxSeries: c.MaxSelectSeries, MaxPoints: c.MaxSelectPoint, ChunkRows: chunkRows}
}

// openSource opens a snapshot of a shard that includes every write
// acknowledged before the query.
func (n *Node) openSource(ctx context.Context, id dsdb.ShardID) (exec.Source, error) {
	sh, err := n.shards.get(id)
	if err != nil {
		return nil, err
	}
	if err := n.readIndex(ctx, id.Group()); err != nil {
		return nil, err
	}
	return sh.Source()
}

// readIndex returns when the local replica of a group holds everything that was
// acknowledged before the call.
func (n *Node) readIndex(ctx context.Context, g dsdb.GroupID) error {
	index, err := n.host.ReadIndex(ctx, g)
	if err != nil {
		return err
	}
	return n.host.Applied(ctx, g, index)
}

// explain words the error of a statement that was planned by view: the files
// of a shard that was dropped meanwhile are gone.
func (n *Node) explain(err error, view *meta.Data) error {
	if !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	now := n.meta.View()
	for _, g := range view.Groups() {
		for _, s := range g.Group.Shards {
			if now.ShardDropped(s.ID) {
				return dsdb.Errorf(dsdb.KindNotFound, "shard %d was dropped while it was read: %w", s.ID, err)
			}
		}
	}
	return err
}

// explainedResult explains the errors of a result.
type explainedResult struct {
	exec.Result
	n    *Node
	view *meta.Data // by which the statement was planned
}

// Next implements exec.Result.
func (r *explainedResult) Next(ctx context.Context) (*column.Frame, error) {
	f, err := r.Result.Next(ctx)
	if err != nil {
		err = r.n.explain(err, r.view)
	}
	return f, err
}

// timedResult logs a query that took long, once it is over.
type timedResult struct {
	exec.Result
	began time.Time
	slow  time.Duration
	n     *Node
	text  string
}

// Close implements exec.Result.
func (t *timedResult) Close() error {
	if d := time.Since(t.began); d > t.slow && t.text != "" {
		t.n.log.Warn("slow query", "statement", ql.Sanitize(t.text), "duration", d.Seconds())
		t.text = ""
	}
	return t.Result.Close()
}
