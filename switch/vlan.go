package vswitch

import (
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
