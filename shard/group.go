package shard

import (
	"sort"

	"github.com/dasudian/dsdb"
)

// At most maxStageRows rows are staged at once, such that the values of a column
// stay in the second-level cache, and fewer if the columns are many, but at least
// minStageRows: all together take about stageBytes.
const (
	minStageRows = 1 << 10
	maxStageRows = 64 << 10
	stageBytes   = 32 << 20
)

// groups are the rows of a table by series of a scan, for who reads all rows of
// all series: chains are slower to follow.
//
// The rows of one series lie far apart in the table, and to gather them series
// by series costs a cache miss per value. So the values of some consecutive
// series, a stage, are copied together, in the order in which the table has them.
type groups struct {
	ends   []uint32 // per series: the end of its rows in places
	places []place  // series by series, in the order of writing

	stages []uint32 // end of each stage in places
	from   []place  // stage by stage: its rows in the order of the table
	to     []uint32 // and where each of them lies in places
	room   int      // rows of a stage, but if one series has more
	at     int      // the stage that is staged; -1: none
	staged [][]uint64
}

// start returns where the rows of the i-th series begin.
func (g *groups) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return g.ends[i-1]
}

// of returns the rows of the i-th series.
func (g *groups) of(i int) []place { return g.places[g.start(i):g.ends[i]] }

// group sorts the rows below row number rows by series, by counting.
func (mt *memTable) group(rows uint32, series []dsdb.SeriesID) *groups {
	index := make([]uint32, series[len(series)-1]+1) // id → place in series + 1
	for i, id := range series {
		index[id] = uint32(i) + 1
	}
	g := &groups{ends: make([]uint32, len(series)), at: -1}
	mt.eachRow(rows, index, func(i uint32, _ place) { g.ends[i]++ })
	next := make([]uint32, len(series)) // per series: where its next row goes
	sum := uint32(0)
	for i, n := range g.ends {
		next[i] = sum
		sum += n
		g.ends[i] = sum
	}
	g.room = min(max(stageBytes/8/max(len(mt.columns), 1), minStageRows), maxStageRows, int(sum))
	stageOf, nextRow := g.cutStages()
	g.places, g.from, g.to = make([]place, sum), make([]place, sum), make([]uint32, sum)
	mt.eachRow(rows, index, func(i uint32, p place) {
		g.places[next[i]] = p
		n := nextRow[stageOf[i]]
		g.from[n], g.to[n] = p, next[i]
		nextRow[stageOf[i]]++
		next[i]++
	})
	return g
}

// cutStages divides the series into stages. It returns the stage of each
// series and where each stage begins.
func (g *groups) cutStages() (stageOf, begin []uint32) {
	stageOf = make([]uint32, len(g.ends))
	first := uint32(0)
	for i, end := range g.ends {
		if begin == nil || int(end-first) > g.room {
			first = g.start(i)
			begin = append(begin, first)
		}
		stageOf[i] = uint32(len(begin)) - 1
	}
	if len(begin) > 0 {
		g.stages = append(append(g.stages, begin[1:]...), g.ends[len(g.ends)-1])
	}
	return stageOf, begin
}

// stage stages the values of the i-th series, if they are not, and returns
// where they begin. Series are asked for in order.
func (g *groups) stage(s *memScan, i int) int {
	start := g.start(i)
	for g.at < 0 || start >= g.stages[g.at] && g.at+1 < len(g.stages) {
		g.at++
		if start < g.stages[g.at] {
			g.copyStage(s)
		}
	}
	return int(start - g.begin())
}

// begin returns where the stage at hand begins.
func (g *groups) begin() uint32 {
	if g.at == 0 {
		return 0
	}
	return g.stages[g.at-1]
}

// copyStage copies the values of the columns of numbers that have no null.
func (g *groups) copyStage(s *memScan) {
	if g.staged == nil {
		g.staged = make([][]uint64, len(s.slots))
	}
	begin, end := g.begin(), g.stages[g.at]
	for slot := range s.slots {
		if !s.dense[slot] || s.slots[slot].typ == dsdb.String {
			continue
		}
		if len(g.staged[slot]) < int(end-begin) {
			g.staged[slot] = make([]uint64, max(int(end-begin), g.room))
		}
		staged, from, to := g.staged[slot], g.from[begin:end], g.to[begin:end]
		for len(from) > 0 {
			n := sameChunk(from)
			bits := s.chunks[from[0]>>16].values[slot].bits
			for i, p := range from[:n] {
				staged[to[i]-begin] = bits[p&0xffff]
			}
			from, to = from[n:], to[n:]
		}
	}
}

// sameChunk returns how many of the first places, which ascend, lie in one chunk.
func sameChunk(places []place) int {
	end := (places[0]>>16 + 1) << 16
	if end == 0 || places[len(places)-1] < end {
		return len(places)
	}
	return sort.Search(len(places), func(i int) bool { return places[i] >= end })
}

// eachRow calls fn for each row below rows of a series that has an index, with
// that less one.
func (mt *memTable) eachRow(rows uint32, index []uint32, fn func(i uint32, p place)) {
	for row := uint32(0); row < rows; {
		chunk, first := chunkOf(row)
		c := mt.chunks[chunk]
		n := min(rows-first, uint32(len(c.series)))
		for at, id := range c.series[:n] {
			if int(id) < len(index) && index[id] != 0 {
				fn(index[id]-1, place(chunk<<16)|place(at))
			}
		}
		row = first + n
	}
}
