package shard

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Queries see whole entries: every entry writes or deletes the same times in
// all series, so all series of a snapshot have the same rows, while entries are
// applied, flushed and merged, and the index is let go of.
func TestSnapshotsAreConsistent(t *testing.T) {
	m := newMachine(t, 5)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(fn func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := fn(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	loop(func() error { return sameTimes(m.shard, false) })
	loop(func() error { return sameTimes(m.shard, true) })
	loop(func() error { _, err := m.shard.Flush(); return err })
	loop(func() error { _, err := m.shard.Compact(m.shard.Stats().Deletes%2 == 0); return err })
	loop(func() error {
		m.shard.rest.used.Store(false) // it is used all the time
		m.shard.Rest()
		return nil
	})
	loop(func() error {
		_, release, err := m.shard.Snapshot()
		if err == nil {
			release()
		}
		return err
	})
	for i := range 400 {
		if i%40 == 39 {
			m.apply(AppendDelete(nil, dsdb.ProposalID{}, Delete{Range: dsdb.TimeRange{Start: int64(i) - 30, End: int64(i) - 20}}))
			continue
		}
		var points []point
		for h := range 5 {
			points = append(points, point{"cpu", dsdb.Tags{{Key: "host", Value: fmt.Sprint(h)}}, int64(i - i%7), []field{{"i", dsdb.Integer, fmt.Sprintf("%di", i)}}})
		}
		m.apply(AppendWrite(nil, dsdb.ProposalID{}, batchOf(points)))
	}
	close(stop)
	wg.Wait()
	check(t, m.shard.Close())
}

// sameTimes reports an error unless all series of a snapshot have the same times.
func sameTimes(s *Shard, descending bool) error {
	src, err := s.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	set, err := src.Series(context.Background(), "cpu", nil, []string{"host"})
	if err != nil {
		return err
	}
	cur, err := src.Scan(context.Background(), dsdb.Scan{Measurement: "cpu", Series: set.IDs, Fields: []string{"i"}, Range: dsdb.AllTime, Descending: descending})
	if err != nil {
		return err
	}
	defer cur.Close()
	times := map[dsdb.SeriesID][]int64{}
	for {
		tile, err := cur.Next()
		if err != nil {
			return err
		}
		if tile == nil {
			break
		}
		if err := tile.LoadTimes(); err != nil {
			return err
		}
		if err := tile.Load(0); err != nil {
			return err
		}
		for i, at := range tile.Times {
			if v := tile.Cols[0].Ints[i]; v-v%7 != at {
				return fmt.Errorf("value %d at time %d", v, at)
			}
		}
		times[tile.Series] = append(times[tile.Series], tile.Times...)
	}
	for _, id := range set.IDs {
		slices.Sort(times[id])
		if !slices.Equal(times[id], times[set.IDs[0]]) {
			return fmt.Errorf("series %d has times %v, series %d %v", id, times[id], set.IDs[0], times[set.IDs[0]])
		}
	}
	return nil
}

// Who has looked a shard up before it was closed is told so, and not given what is
// left of it without its files.
func TestAClosedShardIsNotRead(t *testing.T) {
	m := newMachine(t, 5)
	m.apply(AppendWrite(nil, m.id(), hosts(100)))
	m.flush()
	m.apply(AppendWrite(nil, m.id(), hosts(1)))
	check(t, m.shard.Close())
	if _, err := m.shard.Source(); dsdb.KindOf(err) != dsdb.KindNotLeader {
		t.Errorf("a source of a closed shard: %v", err)
	}
}
