package wal

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Readers, the goroutine that prepares spares and the one that recycles run
// beside the writer. Every read gives the right bytes or says that they are
// gone, also when the segment is written again while it is read.
func TestReadersBesideWriter(t *testing.T) {
	o := small()
	o.CacheBytes = 8 << 10
	l, _ := open(t, vfs.NewMem(1), o)
	write(t, l, create(1, 1), create(2, 2))
	done := make(chan struct{})
	var wg sync.WaitGroup
	background := func(step func(rng *rand.Rand) error) {
		rng := rand.New(rand.NewPCG(1, 1))
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := step(rng); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	background(func(*rand.Rand) error { return l.PrepareSpare() })
	background(func(*rand.Rand) error { return l.Recycle() })
	for g := range dsdb.GroupID(2) {
		background(func(rng *rand.Rand) error { return readSome(l, g+1, rng) })
	}
	next := uint64(11)
	for range 1500 {
		es := entries(next, next+3, 2, 700)
		next += 3
		us := []Update{{Group: 1, Entries: es}, {Group: 2, Entries: es}}
		if next%5 == 0 {
			us[0].Truncate, us[1].Truncate = &Position{next - 15, 2}, &Position{next - 9, 2}
		}
		if next < 50 {
			us[0].Truncate, us[1].Truncate = nil, nil
		}
		write(t, l, us...)
	}
	close(done)
	wg.Wait()
	if err := l.Recycle(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Segments > 5 {
		t.Errorf("%d segments left", s.Segments)
	}
	l.Close()
}

func readSome(l *Log, g dsdb.GroupID, rng *rand.Rand) error {
	first, last := l.Bounds(g)
	if last < first {
		return nil
	}
	lo := first + rng.Uint64N(last-first+1)
	got, err := l.Entries(g, lo, last+1, 1<<20, nil)
	if errors.Is(err, ErrCompacted) {
		return nil
	}
	if err != nil {
		return err
	}
	if term, err := l.Term(g, last); err == nil && term != 2 {
		return errors.New("wrong term")
	}
	return sameEntries(got, entries(lo, last+1, 2, 700))
}
