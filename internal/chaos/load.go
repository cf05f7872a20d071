package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	database  = "chaos"
	registers = 100 // keys that are overwritten and read
	week      = int64(7 * 24 * time.Hour)
)

// Load is clients that write and read through all nodes at once, and remember
// what they were told.
type Load struct {
	c       *Cluster
	started time.Time
	base    int64 // time of the first point

	next  atomic.Int64 // number of the next point or register value
	acked atomic.Int64 // operations

	mu     sync.Mutex
	points map[int64]fate // guarded by mu; number of a point → what its client knows
	ops    []Op           // guarded by mu; on registers
	odd    []string       // guarded by mu; answers that no fault explains
}

// fate is what a client knows of a point that it wrote.
type fate uint8

const (
	unknown fate = iota
	stored
	hinted // durable on one node only, until there is a leader
)

// Op is an operation on a register as its client saw it: a write of Value, or a
// read that found it (0: nothing). A write without an outcome has no End.
type Op struct {
	Client, Key int
	Write       bool
	Value       int64
	Start, End  time.Duration // since the load began; End 0: never
}

// NewLoad makes clients for a cluster that is ready, and their database.
func NewLoad(ctx context.Context, c *Cluster, replicas int) (*Load, error) {
	l := &Load{c: c, points: map[int64]fate{}, started: time.Now()}
	l.base = time.Now().Add(-4 * time.Duration(week)).UnixNano()
	q := fmt.Sprintf(`CREATE DATABASE %s WITH REPLICATION %d NAME "rp"`, database, replicas)
	_, err := l.query(ctx, c.Nodes[0], q, nil)
	return l, err
}

// Run keeps some clients busy until ctx ends.
func (l *Load) Run(ctx context.Context, clients int, seed uint64) {
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				switch r.IntN(10) {
				case 0:
					l.writeRegister(ctx, i, r)
				case 1:
					l.readRegister(ctx, i, r)
				default:
					l.writePoints(ctx, i, r)
				}
			}
		})
	}
	wg.Wait()
}

// Acked is the number of operations that were answered with success.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Odd returns answers that no fault explains.
func (l *Load) Odd() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.odd
}

// Ops returns the operations on registers.
func (l *Load) Ops() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops
}

func (l *Load) node(r *rand.Rand) *Process { return l.c.Nodes[r.IntN(len(l.c.Nodes))] }

// time is where a point lies: the points are spread over four weeks, each a
// time group, which appear one after the other.
func (l *Load) time(number int64) int64 { return l.base + number + number/5000%4*week }

func (l *Load) writePoints(ctx context.Context, client int, r *rand.Rand) {
	n := int64(1 + r.IntN(5))
	first := l.next.Add(n) - n + 1
	var body strings.Builder
	l.mu.Lock()
	for i := first; i < first+n; i++ {
		l.points[i] = unknown
		fmt.Fprintf(&body, "point,client=%d v=%di %d\n", client, i, l.time(i))
	}
	l.mu.Unlock()
	level := ""
	if r.IntN(4) == 0 {
		level = "any"
	}
	known := stored
	switch l.write(ctx, l.node(r), level, body.String()) {
	case written:
	case kept:
		known = hinted
	default:
		return
	}
	l.acked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := first; i < first+n; i++ {
		l.points[i] = known
	}
}

func (l *Load) writeRegister(ctx context.Context, client int, r *rand.Rand) {
	op := Op{Client: client, Key: r.IntN(registers), Write: true, Value: l.next.Add(1), Start: time.Since(l.started)}
	outcome := l.write(ctx, l.node(r), "", fmt.Sprintf("register,key=%d v=%di %d\n", op.Key, op.Value, l.base))
	if outcome == refused {
		return
	}
	if outcome == written {
		op.End = time.Since(l.started)
		l.acked.Add(1)
	}
	l.record(op)
}

func (l *Load) readRegister(ctx context.Context, client int, r *rand.Rand) {
	op := Op{Client: client, Key: r.IntN(registers), Start: time.Since(l.started)}
	rows, err := l.query(ctx, l.node(r), fmt.Sprintf("SELECT v FROM register WHERE key='%d'", op.Key), nil)
	if err != nil {
		return
	}
	if op.End = time.Since(l.started); len(rows) > 0 {
		op.Value = rows[0].value
	}
	l.acked.Add(1)
	l.record(op)
}

func (l *Load) record(op Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, op)
}

// outcome is how a write ended.
type outcome uint8

const (
	unsure  outcome = iota // it may be stored
	written                // it is
	refused                // it certainly is not
	kept                   // it is on one node
)

func (l *Load) write(ctx context.Context, p *Process, level, body string) outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/write?db="+database+"&consistency="+level, strings.NewReader(body))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	resp, err := l.c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			time.Sleep(5 * time.Millisecond)
			return refused
		}
		return unsure
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // what is there is enough to say what happened
	switch resp.StatusCode {
	case http.StatusNoContent:
		if resp.Header.Get("X-DSDB-Hinted") != "" {
			return kept
		}
		return written
	case http.StatusServiceUnavailable:
		time.Sleep(5 * time.Millisecond)
	default:
		l.oddAnswer("write through node %d: %s: %s", p.ID, resp.Status, text)
	}
	return unsure
}

func (l *Load) oddAnswer(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.odd) < 20 {
		l.odd = append(l.odd, fmt.Sprintf(format, args...))
	}
}

// row is one row of an answer with a single integer field.
type row struct{ time, value int64 }

// query asks one node and returns the rows of all series.
func (l *Load) query(ctx context.Context, p *Process, q string, more url.Values) ([]row, error) {
	form := url.Values{"db": {database}, "q": {q}, "epoch": {"ns"}}
	for k, v := range more {
		form[k] = v
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/query", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := l.c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error   string
		Results []struct {
			Error  string
			Series []struct{ Values [][]json.Number }
		}
	}
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	if err := dec.Decode(&answer); err != nil {
		return nil, fmt.Errorf("node %d: %s: %w", p.ID, resp.Status, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("node %d: %s", p.ID, answer.Error)
	}
	var rows []row
	for _, res := range answer.Results {
		if res.Error != "" {
			return nil, fmt.Errorf("node %d: %s", p.ID, res.Error)
		}
		for _, s := range res.Series {
			for _, v := range s.Values {
				var r row
				if r.time, err = v[0].Int64(); err == nil {
					r.value, err = v[1].Int64()
				}
				if err != nil {
					return nil, fmt.Errorf("node %d: %w", p.ID, err)
				}
				rows = append(rows, r)
			}
		}
	}
	return rows, nil
}

// Report is what a node holds, compared with what the clients know.
type Report struct {
	Points int
	Hinted int     // acknowledged as durable on one node only
	Lost   []int64 // acknowledged, but not there
	Gone   []int64 // likewise, of those hinted: a disk that is lost may take them along
	Odd    []int64 // there, but never written, or with another time or value
}

// Check compares the points as one node answers them.
func (l *Load) Check(ctx context.Context, p *Process) (Report, error) {
	rows, err := l.query(ctx, p, "SELECT v FROM point GROUP BY client", url.Values{"chunked": {"false"}})
	if err != nil {
		return Report{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Report{Points: len(rows)}
	seen := make(map[int64]bool, len(rows))
	for _, row := range rows {
		if _, sent := l.points[row.value]; !sent || row.time != l.time(row.value) || seen[row.value] {
			r.Odd = append(r.Odd, row.value)
		}
		seen[row.value] = true
	}
	for number, f := range l.points {
		switch {
		case f == hinted:
			if r.Hinted++; !seen[number] {
				r.Gone = append(r.Gone, number)
			}
		case f == stored && !seen[number]:
			r.Lost = append(r.Lost, number)
		}
	}
	return r, nil
}
