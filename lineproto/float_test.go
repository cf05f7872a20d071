package lineproto_test

import "math"

func float(bits uint64) float64 { return math.Float64frombits(bits) }
