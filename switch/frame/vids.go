package frame

import (
	"math/bits"
	"strconv"
	"strings"
)

// Limits of VLAN ids (802.1Q table 9-2): 0 is a priority tag and 4095 reserved.
const (
	MinVID     = 1
	MaxVID     = 4094
	DefaultVID = 1
)

// VIDSet is a set of VLAN ids. The zero value is empty. Its text is a list of
// ids and ranges joined by plus signs: "10-20+30".
type VIDSet [64]uint64

// Has reports whether vid is in the set.
func (s *VIDSet) Has(vid uint16) bool { return s[vid>>6&63]>>(vid&63)&1 != 0 }

// Add puts vid in the set.
func (s *VIDSet) Add(vid uint16) { s[vid>>6&63] |= 1 << (vid & 63) }

// AddRange puts the ids from lo to hi, MaxVID at most, in the set.
func (s *VIDSet) AddRange(lo, hi uint16) {
	for v := lo; v <= hi; v++ {
		s.Add(v)
	}
}

// Remove takes vid out of the set.
func (s *VIDSet) Remove(vid uint16) { s[vid>>6&63] &^= 1 << (vid & 63) }

// Len is the number of ids in the set.
func (s *VIDSet) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// All yields the ids in ascending order.
func (s *VIDSet) All(yield func(uint16) bool) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			if !yield(uint16(i<<6 + bits.TrailingZeros64(w))) {
				return
			}
		}
	}
}

// String is the set's text.
func (s *VIDSet) String() string {
	var b strings.Builder
	for lo := MinVID; lo <= MaxVID; lo++ {
		if !s.Has(uint16(lo)) {
			continue
		}
		hi := lo
		for hi < MaxVID && s.Has(uint16(hi+1)) {
			hi++
		}
		if b.Len() > 0 {
			b.WriteByte('+')
		}
		b.WriteString(strconv.Itoa(lo))
		if hi > lo {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(hi))
		}
		lo = hi
	}
	return b.String()
}
