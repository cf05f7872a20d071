package exec

import (
	"context"
	"testing"

	"github.com/dasudian/dsdb"
)

// What all queries hold together has a bound: one for which nothing is left is
// refused, and told to come again; and whatever becomes of a query, what it held
// is given back, on the nodes that answered parts of it too.
func TestQueriesShareTheirMemory(t *testing.T) {
	w := manyRows(20, 500)
	mem := &Memory{Limit: 4 << 20}
	o := Options{Memory: mem, ChunkRows: 100}
	for _, text := range []string{"SELECT v, w, h FROM m", "SELECT median(v) FROM m GROUP BY h", "SELECT mean(v) FROM m GROUP BY time(1m), h"} {
		want, err := answer(w, text, Options{ChunkRows: 100})
		if err != nil {
			t.Fatal(err)
		}
		others := &budget{limit: mem.Limit, shared: mem}
		if err := others.take(mem.Limit - 10); err != nil {
			t.Fatal(err)
		}
		for name, ask := range map[string]func() (string, error){
			"here": func() (string, error) { return answer(w, text, o) },
			"far":  func() (string, error) { return farAnswer(w, text, everywhere(w), o) },
		} {
			if _, err := ask(); dsdb.KindOf(err) != dsdb.KindUnavailable {
				t.Errorf("%s %s, with nothing left: %v", text, name, err)
			}
			if left := mem.Used(); left != mem.Limit-10 {
				t.Errorf("%s %s: a query that failed keeps %d bytes", text, name, left-mem.Limit+10)
			}
		}
		others.close()
		for name, ask := range map[string]func() (string, error){
			"here": func() (string, error) { return answer(w, text, o) },
			"far":  func() (string, error) { return farAnswer(w, text, everywhere(w), o) },
		} {
			if got, err := ask(); err != nil || got != want {
				t.Errorf("%s %s: %v", text, name, err)
			}
			if left := mem.Used(); left != 0 {
				t.Errorf("%s %s: a query that is over keeps %d bytes", text, name, left)
			}
		}
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(context.Background(), p, w.open, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(context.Background()); err != nil || mem.Used() == 0 {
			t.Errorf("%s: a query under way holds %d bytes, error %v", text, mem.Used(), err)
		}
		if err := r.Close(); err != nil || mem.Used() != 0 {
			t.Errorf("%s: a query that was given up keeps %d bytes, error %v", text, mem.Used(), err)
		}
	}
}
