package vswitch

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

// VLANConfig is a port's part in 802.1Q, in force when the switch filters
// VLANs. The zero value is no member of anything; DefaultVLAN is what a port
// has when nothing is said.
type VLANConfig struct {
	PVID     uint16 // VLAN of untagged and priority-tagged frames; 0 drops them
	Member   VIDSet // VLANs that may enter and leave here
	Untagged VIDSet // members that leave without a tag
	// UntaggedOnly refuses tagged frames on ingress (802.1Q 6.9 "admit only
	// untagged and priority-tagged"): an access port.
	UntaggedOnly bool
	// Tunnel puts every frame, tagged or not, into PVID and leaves the tag it
	// came with inside: dot1q-tunnel, a provider's customer port.
	Tunnel bool
}

// DefaultVLAN is the kernel bridge's default: PVID 1, untagged.
func DefaultVLAN() VLANConfig { return oneVLAN(DefaultVID) }

// AccessVLAN is a port of one VLAN that refuses tagged frames.
func AccessVLAN(vid uint16) VLANConfig {
	v := oneVLAN(vid)
	v.UntaggedOnly = true
	return v
}

// TunnelVLAN is a port that carries every frame, tag and all, in one VLAN.
func TunnelVLAN(vid uint16) VLANConfig {
	v := oneVLAN(vid)
	v.Tunnel = true
	return v
}

func oneVLAN(vid uint16) VLANConfig {
	v := VLANConfig{PVID: vid}
	v.Member.Add(vid)
	v.Untagged.Add(vid)
	return v
}

// SetNative makes vid the VLAN of the port's untagged frames, in and, unless
// tagged, out.
func (v *VLANConfig) SetNative(vid uint16, tagged bool) {
	v.PVID = vid
	v.Member.Add(vid)
	v.Untagged.Remove(vid)
	if !tagged {
		v.Untagged.Add(vid)
	}
}

// AddVID makes the port a member of vid, and so a trunk: it leaves untagged or
// not, and untagged frames that come in are in vid if pvid, or no longer.
func (v *VLANConfig) AddVID(vid uint16, pvid, untagged bool) {
	v.Member.Add(vid)
	v.Untagged.Remove(vid)
	if untagged {
		v.Untagged.Add(vid)
	}
	if pvid {
		v.PVID = vid
	} else if v.PVID == vid {
		v.PVID = 0
	}
	v.UntaggedOnly, v.Tunnel = false, false
}

// DelVID makes the port leave vid.
func (v *VLANConfig) DelVID(vid uint16) {
	v.Member.Remove(vid)
	v.Untagged.Remove(vid)
	if v.PVID == vid {
		v.PVID, v.UntaggedOnly, v.Tunnel = 0, false, false
	}
}
