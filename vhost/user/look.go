//go:build !race

package vhostuser

// lookOwned: Rx owns the ring before it looks whether there is something.
const lookOwned = false
