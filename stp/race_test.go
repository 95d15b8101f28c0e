//go:build race

package stp

// raceEnabled makes the long tests shorter: the race detector costs a factor of
// ten, and there is one goroutine to a bridge.
const raceEnabled = true
