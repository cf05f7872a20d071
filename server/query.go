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
// If a node fails before the first frame, the statement is begun again without it.
func (n *Node) Execute(ctx context.Context, r *httpd.QueryRequest) (exec.Result, error) {
	began := time.Now()
	if n.cfg.Data.QueryLog {
		n.log.Info("query", "statement", ql.Sanitize(r.Statement.String()), "database", r.Database)
	}
	res, err := n.answer(ctx, r, began)
	if err != nil {
		return nil, err
	}
	if slow := time.Duration(n.cfg.Coordinator.LogQueriesAfter); slow > 0 && res != nil {
		res = &timedResult{Result: res, began: began, slow: slow, n: n, text: r.Statement.String()}
	}
	return res, nil
}

// retryFor is how long a statement is begun again because nodes fail, pardonPause
// how long it waits before it asks those again that have failed it, for want of others.
const (
	retryFor    = 10 * time.Second
	pardonPause = 100 * time.Millisecond
)

// retryDamaged is how often a statement is begun again because it has met damage
// that it had met before. Each new one is a step on: the replica that the file
// belongs to answers nothing more if there are others.
const retryDamaged = 3

// statement is what is the same of a statement when it is begun again.
type statement struct {
	now     int64 // nanoseconds since 1970
	deleted deletion
}

// answer runs a statement up to its first frame, again and without the replicas
// that have failed if there is hope.
func (n *Node) answer(ctx context.Context, r *httpd.QueryRequest, began time.Time) (exec.Result, error) {
	failed := outages{}
	damage := map[string]bool{} // that was met, by its text
	st := &statement{now: n.opt.Wall().UnixNano()}
	for repeated := 0; ; {
		s, err := n.openSession(ctx, readLevel{r.Read, r.MaxStaleness}, failed)
		if err != nil && aboutNodes(r.Statement) { // is what one asks when there is no quorum
			s, err = n.openSession(ctx, readLevel{Read: httpd.ReadStale}, failed)
		}
		if err != nil {
			return nil, err
		}
		s.statement = st
		res, err := n.run(ctx, s, r, began)
		if err == nil && res != nil {
			s.staleness.tell(r, n.routes.age())
			return res, nil
		}
		again := s.lost(err, failed) || s.pardon(err, failed)
		if meansDamage(err) {
			if damage[err.Error()] {
				repeated++
			}
			damage[err.Error()] = true
			again = again || repeated < retryDamaged
		}
		again = again && time.Since(began) < retryFor && !st.deleted.doubtful()
		if err2 := s.Close(); err == nil {
			err = err2
		}
		if !again {
			return nil, n.explain(err, s.view)
		}
	}
}

// run plans and runs a statement, up to its first frame. The result closes the session.
func (n *Node) run(ctx context.Context, s *session, r *httpd.QueryRequest, began time.Time) (res exec.Result, err error) {
	plan, err := planner.Compile(r.Statement, &catalog{ctx, s}, planner.Options{
		Now: s.now, DefaultDB: r.Database, DefaultRP: r.Policy})
	if err != nil {
		return nil, err
	}
	switch p := plan.(type) {
	case *planner.Select:
		s.prepareAll(ctx, p)
		res, err = exec.Run(ctx, p, s.open, n.execOptions(r.ChunkRows))
	case *planner.Explain:
		res, err = exec.Explain(ctx, p, s.open, n.execOptions(r.ChunkRows))
	case *planner.Show:
		res, err = exec.Show(ctx, p, &showEnv{s, r.User})
	case *planner.Command:
		if err = n.execute(ctx, s, p, began); err == nil && p.Kind == planner.DropDataServer && p.Force {
			r.Warning = n.leftOver(p.Node)
		}
		n.audit(ctx, r, err)
	}
	if err != nil || res == nil {
		return nil, err
	}
	first, err := res.Next(ctx)
	if err != nil {
		_ = res.Close() // the error that matters is the first one
		return nil, err
	}
	return &sessionResult{Result: res, session: s, first: first, began: true}, nil
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
	return exec.Options{MemoryLimit: int64(c.QueryMemory), Memory: &n.queries, MaxBuckets: c.MaxSelectBuckets,
		MaxSeries: c.MaxSelectSeries, MaxPoints: c.MaxSelectPoint, ChunkRows: chunkRows}
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

// sessionResult is a result of which the first frame was taken. It ends its
// session, and explains errors.
type sessionResult struct {
	exec.Result
	session *session
	first   *column.Frame
	began   bool // first is still to be handed out
}

// Next implements exec.Result.
func (r *sessionResult) Next(ctx context.Context) (*column.Frame, error) {
	if r.began {
		r.began = false
		return r.first, nil
	}
	f, err := r.Result.Next(ctx)
	if err != nil {
		err = r.session.n.explain(err, r.session.view)
	}
	return f, err
}

// Close implements exec.Result.
func (r *sessionResult) Close() error { return errors.Join(r.Result.Close(), r.session.Close()) }

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
