//go:build !race

package server

// raceEnabled says that the race detector is on: tests do less.
const raceEnabled = false
