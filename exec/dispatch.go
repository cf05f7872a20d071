package exec

import (
	"context"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/planner"
)

// remotes returns the nodes on which some of the shards lie, each with the
// indexes of its shards.
func remotes(shards []openShard) (nodes []*Remote, of map[*Remote][]int) {
	for i, s := range shards {
		if s.remote == nil {
			continue
		}
		if of == nil {
			of = make(map[*Remote][]int)
		}
		if of[s.remote] == nil {
			nodes = append(nodes, s.remote)
		}
		of[s.remote] = append(of[s.remote], i)
	}
	return nodes, of
}

// askAll calls do for each node, at once if there are several, and waits. It
// returns the error of the first that has one.
func askAll(ctx context.Context, nodes []*Remote, do func(ctx context.Context, r *Remote) error) error {
	if len(nodes) == 1 {
		return do(ctx, nodes[0])
	}
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, r := range nodes {
		wg.Go(func() { errs[i] = do(ctx, r) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Unopened is the error of a query some of whose shards could not be opened on one
// node: it reads and unwraps like the first.
type Unopened struct {
	First error
	All   []error // at least two, First too
}

// Error implements error.
func (u *Unopened) Error() string { return u.First.Error() }

// Unwrap returns the first error.
func (u *Unopened) Unwrap() error { return u.First }

// together returns errors as one, nil if there are none.
func together(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return &Unopened{errs[0], errs}
}

// openRemote drops the shards that other nodes do not have any more.
func (q *query) openRemote(ctx context.Context, shards []openShard) ([]openShard, error) {
	nodes, of := remotes(shards)
	if nodes == nil {
		return shards, nil
	}
	gone := make([]bool, len(shards))
	err := askAll(ctx, nodes, func(ctx context.Context, r *Remote) error {
		var ids []dsdb.ShardID
		for _, i := range of[r] {
			ids = append(ids, shards[i].id)
		}
		results, err := r.opened(ctx, ids)
		if err != nil {
			return err
		}
		var failed []error
		for n, i := range of[r] {
			if err := results[n]; dsdb.KindOf(err) == dsdb.KindNotFound && err != nil {
				gone[i] = true
			} else if err != nil {
				failed = append(failed, err)
			}
		}
		return together(failed)
	})
	kept := shards[:0]
	for i, s := range shards {
		if !gone[i] {
			kept = append(kept, s)
		}
	}
	return kept, err
}

func countLocal(shards []openShard) int {
	n := 0
	for _, s := range shards {
		if s.remote == nil {
			n++
		}
	}
	return n
}

// remoteSeries lists the series of the shards on other nodes into sets; those
// nodes remember them, for what is asked of s later.
func (s *sourceRun) remoteSeries(ctx context.Context, keys []string, sets []*column.SeriesSet) error {
	nodes, of := remotes(s.shards)
	if nodes == nil {
		return nil
	}
	return askAll(ctx, nodes, func(ctx context.Context, r *Remote) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		body := wire.AppendBool(nil, !r.planned)
		if !r.planned {
			body = planner.AppendFragment(body, s.q.p)
		}
		body = wire.AppendStrings(wire.AppendString(body, s.name), keys)
		body = wire.AppendUint(body, uint64(len(of[r])))
		for _, i := range of[r] {
			body = wire.AppendUint(body, uint64(s.shards[i].id))
			body = appendRange(body, s.shards[i].rng)
		}
		n := 0
		_, err := r.exchange(ctx, listRequest, body, func(b []byte) (err error) {
			if n == len(of[r]) {
				return wrongAnswers(n+1, n)
			}
			sets[of[r][n]], err = decodeSet(wire.NewReader(b), keys)
			n++
			return err
		})
		if err == nil && n != len(of[r]) {
			err = wrongAnswers(n, len(of[r]))
		}
		r.planned, r.laid = true, false
		return err
	})
}

func appendRange(dst []byte, r dsdb.TimeRange) []byte {
	return wire.AppendInt(wire.AppendInt(dst, r.Start), r.End)
}

// placeOn returns the number of a shard among those that its node has listed.
func (s *sourceRun) placeOn(r *Remote, shard int) int {
	n := 0
	for _, sh := range s.shards[:shard] {
		if sh.remote == r {
			n++
		}
	}
	return n
}

// dispatched is what other nodes have been asked for a batch.
type dispatched struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	got    map[*Remote]chan *partial
	of     func(fragment int) *Remote

	mu       sync.Mutex // guards what follows
	counters Counters
	err      error // the first
}

// dispatch asks other nodes for their fragments of a batch, nil if there are
// none. What comes back is to be taken by next, in the order of the fragments.
func (a *aggregateOperator) dispatch(ctx context.Context, fs []fragment, lo, hi int) *dispatched {
	byNode := fragmentsOf(fs)
	if byNode == nil {
		return nil
	}
	d := &dispatched{got: make(map[*Remote]chan *partial), of: func(i int) *Remote { return fs[i].remote }}
	ctx, d.cancel = context.WithCancel(ctx)
	for r, mine := range byNode {
		got := make(chan *partial, 2)
		d.got[r] = got
		d.wg.Go(func() {
			defer close(got)
			c, err := a.ask(ctx, r, mine, lo, hi, got)
			d.end(c, err)
		})
	}
	return d
}

// fragmentsOf returns the fragments of each other node, nil if there are none.
func fragmentsOf(fs []fragment) map[*Remote][]*fragment {
	var out map[*Remote][]*fragment
	for i := range fs {
		if r := fs[i].remote; r != nil {
			if out == nil {
				out = make(map[*Remote][]*fragment)
			}
			out[r] = append(out[r], &fs[i])
		}
	}
	return out
}

// end notes how a node has answered.
func (d *dispatched) end(c Counters, err error) {
	d.mu.Lock()
	d.counters.plus(&c)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.mu.Unlock()
	if err != nil {
		d.cancel()
	}
}

// next waits for the partial of a fragment.
func (d *dispatched) next(fragment int) (*partial, error) {
	p := <-d.got[d.of(fragment)]
	if p == nil {
		return nil, d.failure()
	}
	return p, nil
}

func (d *dispatched) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// join ends what still goes on if err is set, waits and adds up what was read.
// It returns err, if that is nil the error of a node.
func (d *dispatched) join(c *Counters, err error) error {
	if d == nil {
		return err
	}
	if err != nil {
		d.cancel()
	}
	d.wg.Wait()
	d.cancel()
	c.plus(&d.counters)
	if err == nil {
		err = d.err
	}
	return err
}

// ask has a node answer fragments and sends their partials to got.
func (a *aggregateOperator) ask(ctx context.Context, r *Remote, fs []*fragment, lo, hi int, got chan<- *partial) (Counters, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body := wire.AppendBool(nil, !r.laid)
	if !r.laid {
		body = appendWindows(body, &a.win)
	}
	body = wire.AppendUint(wire.AppendUint(body, uint64(lo)), uint64(hi))
	body = wire.AppendUint(body, uint64(len(fs)))
	numbers := make([][]int32, len(fs))
	for i, f := range fs {
		body = wire.AppendUint(body, uint64(a.placeOn(r, f.shard)))
		body, numbers[i] = appendMembers(body, f.members, a.table.place)
	}
	r.laid = true
	n := 0
	c, err := r.exchange(ctx, aggregateRequest, body, func(b []byte) error {
		if n == len(fs) {
			return wrongAnswers(n+1, n)
		}
		p, err := a.decodePartial(b, fs[n], numbers[n])
		if err != nil {
			return err
		}
		n++
		select {
		case got <- p:
			return nil
		case <-ctx.Done():
			return canceled(ctx.Err())
		}
	})
	if err == nil && n != len(fs) {
		err = wrongAnswers(n, len(fs))
	}
	c.Fragments = int64(len(fs))
	return c, err
}

// farRows are row buffers that come from other nodes.
type farRows struct {
	dispatched
	buffers []*rowBuffer
}

// dispatch asks other nodes for the rows of their fragments, nil if there are none.
func (g *gathering) dispatch(ctx context.Context, fs []fragment) *farRows {
	byNode := fragmentsOf(fs)
	if byNode == nil {
		return nil
	}
	d := &farRows{}
	ctx, d.cancel = context.WithCancel(ctx)
	for r, mine := range byNode {
		d.wg.Go(func() {
			buffers, c, err := g.ask(ctx, r, mine)
			d.mu.Lock()
			d.buffers = append(d.buffers, buffers...)
			d.mu.Unlock()
			d.end(c, err)
		})
	}
	return d
}

// end notes how a node has answered; rows that are too many are no reason to break off.
func (d *farRows) end(c Counters, err error) {
	if err != errTooMuch {
		d.dispatched.end(c, err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counters.plus(&c)
	if d.err == nil {
		d.err = err
	}
}

// join waits for the rows. err is what has become of those of this node.
func (d *farRows) join(c *Counters, err error) ([]*rowBuffer, error) {
	if err != nil && err != errTooMuch {
		return nil, d.dispatched.join(c, err)
	}
	d.wg.Wait()
	if e := d.dispatched.join(c, nil); e != nil {
		err = e
	}
	return d.buffers, err
}

// ask has a node gather the rows of fragments.
func (g *gathering) ask(ctx context.Context, r *Remote, fs []*fragment) (out []*rowBuffer, c Counters, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body := wire.AppendBool(wire.AppendUint(nil, uint64(g.limit)), g.fixed)
	body = wire.AppendUint(body, uint64(len(fs)))
	for _, f := range fs {
		body = wire.AppendUint(body, uint64(g.r.placeOn(r, f.shard)))
		body = appendRange(body, f.rng)
		body, _ = appendMembers(body, f.members, g.r.table.place)
	}
	c, err = r.exchange(ctx, rowsRequest, body, func(b []byte) error {
		if g.over.Load() {
			return errTooMuch
		}
		g.begun.Add(1)
		m := wire.NewReader(b)
		f := m.Size(len(fs) - 1)
		if m.Err() != nil {
			return m.Err()
		}
		buffer, err := g.r.decodeRows(m, fs[f].members)
		if err != nil {
			return err
		}
		out = append(out, buffer)
		return g.grow(buffer.bytes())
	})
	if err == errTooMuch && g.fixed {
		err = dsdb.Errorf(dsdb.KindTooLarge, "query memory limit exceeded: one nanosecond of a series does not fit")
	}
	c.Fragments = int64(len(fs))
	return out, c, err
}
