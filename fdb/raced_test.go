//go:build race

package fdb

// raced says that the race detector is on, under which tests of one goroutine
// prove no more and take twenty times as long.
const raced = true
