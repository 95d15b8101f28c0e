package config

import (
	"errors"
	"strconv"

	vswitch "github.com/kvswitch/kvswitch/switch"
)

// vlanKeys are the keys of a port's VLANs, in the order in which those given
// together take effect: the last of vlan, tunnel and trunk wins, and native,
// native-tagged and untagged add to a trunk.
var vlanKeys = []struct {
	name  string
	usage string
	set   func(*vswitch.VLANConfig, string) error
}{
	{"vlan", "VID: access port of one VLAN",
		func(v *vswitch.VLANConfig, s string) error { return setOne(v, s, vswitch.AccessVLAN) }},
	{"tunnel", "VID: carry everything, tags and all, in one VLAN",
		func(v *vswitch.VLANConfig, s string) error { return setOne(v, s, vswitch.TunnelVLAN) }},
	{"trunk", "VIDS: tagged member, such as 10-20+30", setTrunk},
	{"native", "VID: VLAN of untagged frames",
		func(v *vswitch.VLANConfig, s string) error { return setNative(v, s, false) }},
	{"native-tagged", "VID: VLAN of untagged frames, tagged on the way out",
		func(v *vswitch.VLANConfig, s string) error { return setNative(v, s, true) }},
	{"untagged", "VIDS: member that leaves without a tag", setUntagged},
}

// vlanRank is a key's place among vlanKeys, -1 if it is none of them.
func vlanRank(name string) int {
	for i := range vlanKeys {
		if vlanKeys[i].name == name {
			return i
		}
	}
	return -1
}

func setOne(v *vswitch.VLANConfig, s string, of func(uint16) vswitch.VLANConfig) error {
	vid, err := ParseVID(s)
	if err == nil {
		*v = of(vid)
	}
	return err
}

func setTrunk(v *vswitch.VLANConfig, s string) error {
	if s == "" { // a trunk of its native VLAN alone, as vlanWords may write it
		*v = vswitch.VLANConfig{}
		return nil
	}
	set, err := ParseVIDs(s)
	if err == nil {
		*v = vswitch.VLANConfig{Member: set}
	}
	return err
}

// errOneVLAN refuses words that add to a trunk: what an access or tunnel port
// carried before would leak.
var errOneVLAN = errors.New("an access or tunnel port has one VLAN; give trunk= as well to make it a trunk")

func setNative(v *vswitch.VLANConfig, s string, tagged bool) error {
	if v.UntaggedOnly || v.Tunnel {
		return errOneVLAN
	}
	vid, err := ParseVID(s)
	if err == nil {
		if *v == vswitch.DefaultVLAN() {
			*v = vswitch.VLANConfig{}
		}
		v.SetNative(vid, tagged)
	}
	return err
}

func setUntagged(v *vswitch.VLANConfig, s string) error {
	if v.UntaggedOnly || v.Tunnel {
		return errOneVLAN
	}
	set, err := ParseVIDs(s)
	for vid := range set.All {
		v.Member.Add(vid)
		v.Untagged.Add(vid)
	}
	return err
}

// vlanWords is a port's VLANs in the words of SetPort.
func vlanWords(v *vswitch.VLANConfig) []KeyValue {
	one := func(key string, vid uint16) KeyValue { return KeyValue{key, strconv.Itoa(int(vid))} }
	switch {
	case *v == vswitch.DefaultVLAN():
		return nil
	case v.Tunnel:
		return []KeyValue{one("tunnel", v.PVID)}
	case v.UntaggedOnly:
		return []KeyValue{one("vlan", v.PVID)}
	}
	trunk, untagged := v.Member, v.Untagged
	if v.PVID != 0 {
		trunk.Remove(v.PVID)
		untagged.Remove(v.PVID)
	}
	list := []KeyValue{{"trunk", trunk.String()}}
	switch {
	case v.PVID == 0:
	case v.Untagged.Has(v.PVID):
		list = append(list, one("native", v.PVID))
	default:
		list = append(list, one("native-tagged", v.PVID))
	}
	if untagged != (vswitch.VIDSet{}) {
		list = append(list, KeyValue{"untagged", untagged.String()})
	}
	return list
}
