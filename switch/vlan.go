package vswitch

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// What VLAN ids and sets of them are, package frame says.
const (
	MinVID     = frame.MinVID
	MaxVID     = frame.MaxVID
	DefaultVID = frame.DefaultVID
)

// VIDSet is a set of VLAN ids.
type VIDSet = frame.VIDSet

// ParseVIDs reads a set's text; commas serve as well as plus signs.
func ParseVIDs(text string) (VIDSet, error) {
	var s VIDSet
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == ',' }) {
		first, last, isRange := strings.Cut(part, "-")
		lo, err := ParseVID(first)
		if err != nil {
			return VIDSet{}, err
		}
		hi := lo
		if isRange {
			if hi, err = ParseVID(last); err != nil {
				return VIDSet{}, err
			}
		}
		if hi < lo {
			return VIDSet{}, fmt.Errorf("parse VLAN range %q: %d is below %d", part, hi, lo)
		}
		for v := lo; v <= hi; v++ {
			s.Add(v)
		}
	}
	if s == (VIDSet{}) {
		return s, fmt.Errorf("parse VLAN list %q: it names no VLAN; write ids and ranges such as 10-20+30", text)
	}
	return s, nil
}

// ParseVID reads one VLAN id, 1–4094.
func ParseVID(text string) (uint16, error) {
	v, err := strconv.ParseUint(text, 10, 16)
	if err != nil || v < MinVID || v > MaxVID {
		return 0, fmt.Errorf("parse VLAN id %q: want a number from %d to %d", text, MinVID, MaxVID)
	}
	return uint16(v), nil
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
func DefaultVLAN() VLANConfig {
	v := VLANConfig{PVID: DefaultVID}
	v.Member.Add(DefaultVID)
	v.Untagged.Add(DefaultVID)
	return v
}

// accessVLAN is a port of one VLAN that refuses tags; tunnel makes it carry
// them instead.
func accessVLAN(vid uint16, tunnel bool) VLANConfig {
	v := VLANConfig{PVID: vid, UntaggedOnly: !tunnel, Tunnel: tunnel}
	v.Member.Add(vid)
	v.Untagged.Add(vid)
	return v
}

// setNative makes vid the port's PVID, tagged on egress or not.
func (v *VLANConfig) setNative(vid uint16, tagged bool) {
	v.PVID = vid
	v.Member.Add(vid)
	v.Untagged.Remove(vid)
	if !tagged {
		v.Untagged.Add(vid)
	}
}

// AddVID is `vlan add`: makes the port a member of vid.
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

// DelVID is `vlan del`: the port leaves vid.
func (v *VLANConfig) DelVID(vid uint16) {
	v.Member.Remove(vid)
	v.Untagged.Remove(vid)
	if v.PVID == vid {
		v.PVID, v.UntaggedOnly, v.Tunnel = 0, false, false
	}
}

// keys is the configuration in the words of PortConfig.Set.
func (v *VLANConfig) keys() []KeyValue {
	if *v == DefaultVLAN() {
		return nil
	}
	word := func(k string, vid uint16) []KeyValue { return []KeyValue{{k, strconv.Itoa(int(vid))}} }
	switch {
	case v.Tunnel:
		return word("tunnel", v.PVID)
	case v.UntaggedOnly:
		return word("vlan", v.PVID)
	}
	var kv []KeyValue
	trunk, untagged := v.Member, v.Untagged
	if v.PVID != 0 {
		trunk.Remove(v.PVID)
		untagged.Remove(v.PVID)
	}
	kv = append(kv, KeyValue{"trunk", trunk.String()})
	if v.PVID != 0 {
		key := "native"
		if !v.Untagged.Has(v.PVID) {
			key = "native-tagged"
		}
		kv = append(kv, word(key, v.PVID)...)
	}
	if untagged != (VIDSet{}) {
		kv = append(kv, KeyValue{"untagged", untagged.String()})
	}
	return kv
}
