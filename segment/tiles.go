package segment

import "github.com/dasudian/dsdb/column"

const (
	second = 1_000_000_000
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// windows are the lengths at whose multiples tiles are cut, so that the
// windows of a query tend to cover whole tiles.
var windows = [...]int64{
	1 * second, 2 * second, 5 * second, 10 * second, 30 * second,
	1 * minute, 5 * minute, 10 * minute, 30 * minute,
	1 * hour, 2 * hour, 3 * hour, 6 * hour, 12 * hour,
	1 * day, 7 * day, 70 * day, 700 * day, 7000 * day,
}

// chooseWindow returns the widest window in which rows evenly spread over
// their span would come to at most target rows, 0 if even the narrowest holds more.
func chooseWindow(times []int64, target int) int64 {
	span := uint64(times[len(times)-1]) - uint64(times[0])
	interval := float64(span) / float64(len(times)-1)
	for i := len(windows) - 1; i >= 0; i-- {
		if float64(windows[i]) <= interval*float64(target) {
			return windows[i]
		}
	}
	return 0
}

// appendCuts appends the row numbers at which the tiles of a series end. A tile
// lies within one window and has at most column.MaxTileRows rows; a small chunk is one tile.
func appendCuts(dst []int, times []int64, target int) []int {
	n := len(times)
	if n <= smallChunk {
		return append(dst, n)
	}
	window := int64(0)
	if n > 1 {
		window = chooseWindow(times, target)
	}
	for start := 0; start < n; {
		end := min(start+column.MaxTileRows, n)
		if window == 0 {
			end = min(start+target, n)
		} else if limit, ok := windowEnd(times[start], window); ok && times[end-1] >= limit {
			end = start + countBelow(times[start:end], limit)
		}
		dst = append(dst, end)
		start = end
	}
	return dst
}

// windowEnd returns the first time after the window of t, false if there is none.
func windowEnd(t, window int64) (int64, bool) {
	rest := t % window
	if rest < 0 {
		rest += window
	}
	end := t + (window - rest)
	return end, end > t
}

// countBelow returns how many of the ascending times are below limit.
func countBelow(times []int64, limit int64) int {
	lo, hi := 0, len(times)
	for lo < hi {
		if mid := (lo + hi) / 2; times[mid] < limit {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
