//go:build race

package vhostuser

// lookOwned: the race detector makes atomic loads in C, in which a fault can't be
// recovered from. So Rx owns the ring before it looks, and nobody can take the
// memory away meanwhile.
const lookOwned = true
