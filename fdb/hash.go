package fdb

import (
	"crypto/rand"
	"encoding/binary"
)

// secret is what a table's hash is keyed with: random, drawn when the table is
// made, and never told.
//
//	p      = (low half of key + fold[0]) × (high half of key + fold[1])
//	first  = (high half of p + first[0]) × (low half of p + first[1])
//	second = (high half of p + second[0]) × (low half of p + second[1])
//
// The sums of p are 32 bits wide, all else is modulo 2^64: BPF has no wider
// product. Bits 32 and up of first and second choose a station's two buckets,
// bits 46 and up of first + second its overflow bucket. First and second wait
// for p, but not for each other, and first is enough to find most stations.
//
// # Why nobody steers it
//
// Two stations that were chosen without knowledge of the secret share p with a
// probability of 2^-32 at most (it is the NH of RFC 4418). Those that don't, meet
// in the first of their buckets, of n, with one of 2/n at most, and in the second
// with as much, independently: such a product of sums is universal in its bits
// from 31 up. So whatever addresses a guest sends, two of them share both buckets
// with a probability of 4/n² + 2^-32 at most. p alone would leave addresses in
// sequence in step with each other.
//
// It is no cipher: who saw which stations meet would in time learn the secret.
// But a guest sees little of that, for a lookup takes three cache lines at most,
// whoever meets; and it would gain little, for no chain gets longer, and who
// fills the three buckets of somebody's station has more there than others and
// gives way (see evict.go).
type secret struct {
	fold          [2]uint32
	first, second [2]uint64
}

// newSecret draws a secret.
func newSecret() (s secret) {
	var b [40]byte
	rand.Read(b[:])
	for i := range 2 {
		s.fold[i] = binary.LittleEndian.Uint32(b[4*i:])
		s.first[i] = binary.LittleEndian.Uint64(b[8+8*i:])
		s.second[i] = binary.LittleEndian.Uint64(b[24+8*i:])
	}
	return s
}

// product is p.
func (s *secret) product(k Key) uint64 {
	return uint64(uint32(k)+s.fold[0]) * uint64(uint32(k>>32)+s.fold[1])
}

// spread is first or second, by the part of the secret it is given.
func spread(p uint64, s *[2]uint64) uint64 {
	return (p>>32 + s[0]) * (uint64(uint32(p)) + s[1])
}

// homes are the indexes in t.all of the three buckets that may hold k, in the
// order find looks at them.
func (t *Table) homes(k Key) [3]int {
	x, mask := &t.head.secret, len(t.buckets)-1
	p := x.product(k)
	h1, h2 := spread(p, &x.first), spread(p, &x.second)
	return [3]int{int(h1>>32) & mask, int(h2>>32) & mask, t.overflow(h1 + h2)}
}

// overflow is the index in t.all of the overflow bucket of a key whose hashes
// have the sum h.
func (t *Table) overflow(h uint64) int {
	n := len(t.buckets)
	return n + int(h>>46)&(len(t.all)-n-1)
}
