package vswitch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PortConfig is what an operator may say of a port. The zero value is a port
// that learns, floods and takes part in everything; NewPortConfig also gives it
// the default VLAN.
type PortConfig struct {
	Kind   string // "netdev", "tap", "vhost-user", …: shown, not interpreted
	Spec   string // the whole SPEC it came from, for `config dump`; may be empty
	Uplink bool   // towards other switches, not a VM: auto edge, no BPDU guard
	VLAN   VLANConfig

	NoLearning       bool // do not learn source addresses here
	NoFlood          bool // no unknown unicast leaves here
	NoMulticastFlood bool // no multicast leaves here
	NoBroadcastFlood bool // no broadcast leaves here
	Isolated         bool // no traffic to or from other isolated ports
	Locked           bool // frames from sources not in the table are dropped
	Hairpin          bool // frames may leave where they came in
	MaxLearned       int  // most dynamic entries learned here; 0 = no limit of its own

	STP PortSTP
}

// PortSTP is a port's part in the spanning tree.
type PortSTP struct {
	Edge       string        // "on", "off", "auto"; empty: on for VM ports, auto for uplinks
	P2P        string        // "on", "off", "auto"; empty is auto
	Cost       uint32        // 1–200000000; 0 = by link speed, 802.1D-2004 table 17-3
	Priority   uint8         // 0–240 in steps of 16
	BPDUGuard  string        // "on", "off"; empty: on for VM ports, off for uplinks
	BPDUFilter bool          // neither send nor hear BPDUs
	RootGuard  bool          // never become a root port
	TCNGuard   bool          // do not pass topology changes on
	LoopGuard  bool          // no forwarding on a point-to-point link that lost its BPDUs
	Recover    time.Duration // a guarded port comes back after this; 0 = by hand
}

// DefaultPortPriority is the port priority of 802.1D-2004 table 17-2.
const DefaultPortPriority = 128

// NewPortConfig is the configuration of a port of which nothing was said.
func NewPortConfig(kind string) PortConfig {
	return PortConfig{Kind: kind, VLAN: DefaultVLAN(), STP: PortSTP{Priority: DefaultPortPriority}}
}

// KeyValue is one word of a port's SPEC.
type KeyValue struct{ Key, Value string }

// portKey is one key that Set understands and Keys writes.
type portKey struct {
	name  string
	usage string
	set   func(*PortConfig, string) error
	get   func(*PortConfig) string // "" when at its default
}

// boolKey is a key whose field is a flag: on when want, which is not its default.
func boolKey(name, usage string, field func(*PortConfig) *bool, want bool) portKey {
	word := map[bool]string{true: "on", false: "off"}
	return portKey{name, usage,
		func(c *PortConfig, v string) error {
			on, err := parseOnOff(v)
			*field(c) = on == want
			return err
		},
		func(c *PortConfig) string {
			if *field(c) {
				return word[want]
			}
			return ""
		}}
}

// wordKey is a key whose field is one of some words; the empty word is its default.
func wordKey(name, usage string, field func(*PortConfig) *string, words ...string) portKey {
	return portKey{name, usage,
		func(c *PortConfig, v string) error {
			if !slices.Contains(words, v) {
				return fmt.Errorf("%q is not one of %s", v, strings.Join(words, ", "))
			}
			*field(c) = v
			return nil
		},
		func(c *PortConfig) string { return *field(c) }}
}

var portKeys = []portKey{
	boolKey("learning", "on|off: learn source addresses", func(c *PortConfig) *bool { return &c.NoLearning }, false),
	boolKey("flood", "on|off: send unknown unicast", func(c *PortConfig) *bool { return &c.NoFlood }, false),
	boolKey("mcast-flood", "on|off: send multicast", func(c *PortConfig) *bool { return &c.NoMulticastFlood }, false),
	boolKey("bcast-flood", "on|off: send broadcast", func(c *PortConfig) *bool { return &c.NoBroadcastFlood }, false),
	boolKey("isolated", "on|off: no traffic between isolated ports", func(c *PortConfig) *bool { return &c.Isolated }, true),
	boolKey("locked", "on|off: only known source addresses", func(c *PortConfig) *bool { return &c.Locked }, true),
	boolKey("hairpin", "on|off: frames may leave where they came in", func(c *PortConfig) *bool { return &c.Hairpin }, true),
	{"max-learned", "N: most addresses learned here, 0 = no limit",
		func(c *PortConfig, v string) error {
			n, err := parseInt(v, 0, 4<<20)
			c.MaxLearned = n
			return err
		},
		func(c *PortConfig) string {
			if c.MaxLearned == 0 {
				return ""
			}
			return strconv.Itoa(c.MaxLearned)
		}},
	wordKey("edge", "on|off|auto: a port to an end station", func(c *PortConfig) *string { return &c.STP.Edge }, "on", "off", "auto"),
	wordKey("p2p", "on|off|auto: a point-to-point link", func(c *PortConfig) *string { return &c.STP.P2P }, "on", "off", "auto"),
	wordKey("bpdu-guard", "on|off: a BPDU disables the port", func(c *PortConfig) *string { return &c.STP.BPDUGuard }, "on", "off"),
	boolKey("bpdu-filter", "on|off: neither send nor hear BPDUs", func(c *PortConfig) *bool { return &c.STP.BPDUFilter }, true),
	boolKey("root-guard", "on|off: never become a root port", func(c *PortConfig) *bool { return &c.STP.RootGuard }, true),
	boolKey("tcn-guard", "on|off: do not pass topology changes on", func(c *PortConfig) *bool { return &c.STP.TCNGuard }, true),
	boolKey("loop-guard", "on|off: do not forward when BPDUs cease", func(c *PortConfig) *bool { return &c.STP.LoopGuard }, true),
	{"recover", "DURATION: a guarded port comes back after this, 0 = by hand",
		func(c *PortConfig, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 || d%time.Second != 0 || d/time.Second > math.MaxUint32 {
				return fmt.Errorf("%q is not a duration of whole seconds such as 300s", v)
			}
			c.STP.Recover = d
			return nil
		},
		func(c *PortConfig) string {
			if c.STP.Recover == 0 {
				return ""
			}
			return c.STP.Recover.String()
		}},
	{"cost", "N: path cost 1–200000000, 0 = by link speed",
		func(c *PortConfig, v string) error {
			n, err := parseInt(v, 0, 200000000)
			c.STP.Cost = uint32(n)
			return err
		},
		func(c *PortConfig) string {
			if c.STP.Cost == 0 {
				return ""
			}
			return strconv.FormatUint(uint64(c.STP.Cost), 10)
		}},
	{"prio", "N: port priority 0–240 in steps of 16",
		func(c *PortConfig, v string) error {
			n, err := parseInt(v, 0, 240)
			if err == nil && n%16 != 0 {
				err = fmt.Errorf("%d is not a multiple of 16", n)
			}
			c.STP.Priority = uint8(n)
			return err
		},
		func(c *PortConfig) string {
			if c.STP.Priority == DefaultPortPriority {
				return ""
			}
			return strconv.Itoa(int(c.STP.Priority))
		}},
}

// vlanKeys are set together: the last of vlan, trunk, tunnel wins, and native,
// native-tagged and untagged add to trunk.
var vlanKeys = map[string]func(*VLANConfig, string) error{
	"vlan":   func(v *VLANConfig, s string) (err error) { return setAccess(v, s, false) },
	"tunnel": func(v *VLANConfig, s string) (err error) { return setAccess(v, s, true) },
	"trunk": func(v *VLANConfig, s string) error {
		if s == "" { // a trunk of its native VLAN alone, as Keys may write it
			*v = VLANConfig{}
			return nil
		}
		set, err := ParseVIDs(s)
		if err == nil {
			*v = VLANConfig{Member: set}
		}
		return err
	},
	"native":        func(v *VLANConfig, s string) error { return setNative(v, s, false) },
	"native-tagged": func(v *VLANConfig, s string) error { return setNative(v, s, true) },
	"untagged": func(v *VLANConfig, s string) error {
		if v.UntaggedOnly || v.Tunnel {
			return errOneVLAN
		}
		set, err := ParseVIDs(s)
		for vid := range set.All {
			v.Member.Add(vid)
			v.Untagged.Add(vid)
		}
		return err
	},
}

// vlanOrder is the order in which VLAN keys given together take effect.
var vlanOrder = []string{"vlan", "tunnel", "trunk", "native", "native-tagged", "untagged"}

func setAccess(v *VLANConfig, s string, tunnel bool) error {
	vid, err := ParseVID(s)
	if err == nil {
		*v = accessVLAN(vid, tunnel)
	}
	return err
}

// errOneVLAN refuses words that add to a trunk: what an access or tunnel port
// carried before would leak.
var errOneVLAN = errors.New("an access or tunnel port has one VLAN; give trunk= as well to make it a trunk")

func setNative(v *VLANConfig, s string, tagged bool) error {
	if v.UntaggedOnly || v.Tunnel {
		return errOneVLAN
	}
	vid, err := ParseVID(s)
	if err == nil {
		if v.PVID != 0 && *v == DefaultVLAN() {
			*v = VLANConfig{}
		}
		v.setNative(vid, tagged)
	}
	return err
}

// Set applies words such as vlan=10 or learning=off. The order in which they
// are given does not matter. On error c is unchanged; the error names the key
// and what it takes.
func (c *PortConfig) Set(words ...KeyValue) error {
	next := *c
	rank := func(k string) int { return slices.Index(vlanOrder, k) }
	words = slices.Clone(words)
	slices.SortStableFunc(words, func(a, b KeyValue) int { return rank(a.Key) - rank(b.Key) })
	for _, w := range words {
		if set, ok := vlanKeys[w.Key]; ok {
			if err := set(&next.VLAN, w.Value); err != nil {
				return fmt.Errorf("set %s=%s: %w", w.Key, w.Value, err)
			}
			continue
		}
		i := slices.IndexFunc(portKeys, func(k portKey) bool { return k.name == w.Key })
		if i < 0 {
			return fmt.Errorf("set %s=%s: no such key; known: %s", w.Key, w.Value, strings.Join(PortKeyNames(), " "))
		}
		if err := portKeys[i].set(&next, w.Value); err != nil {
			return fmt.Errorf("set %s=%s: %w", w.Key, w.Value, err)
		}
	}
	*c = next
	return nil
}

// Keys are the words that make NewPortConfig into c.
func (c *PortConfig) Keys() []KeyValue {
	kv := c.VLAN.keys()
	for _, k := range portKeys {
		if v := k.get(c); v != "" {
			kv = append(kv, KeyValue{k.name, v})
		}
	}
	return kv
}

// PortKeyNames lists the keys that Set takes.
func PortKeyNames() []string {
	names := slices.Clone(vlanOrder)
	for _, k := range portKeys {
		names = append(names, k.name)
	}
	return names
}

// vlanUsage is what the VLAN keys take.
var vlanUsage = map[string]string{
	"vlan":          "VID: access port of one VLAN",
	"tunnel":        "VID: carry everything, tags and all, in one VLAN",
	"trunk":         "VIDS: tagged member, such as 10-20+30",
	"native":        "VID: VLAN of untagged frames",
	"native-tagged": "VID: VLAN of untagged frames, tagged on the way out",
	"untagged":      "VIDS: member that leaves without a tag",
}

// PortKeyUsage is a line of help for each of PortKeyNames: the key, what it
// takes, and what it does.
func PortKeyUsage() []string {
	var lines []string
	for _, name := range vlanOrder {
		lines = append(lines, name+"="+vlanUsage[name])
	}
	for _, k := range portKeys {
		lines = append(lines, k.name+"="+k.usage)
	}
	return lines
}

func parseOnOff(v string) (bool, error) {
	switch v {
	case "on", "yes", "true", "1":
		return true, nil
	case "off", "no", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", v)
}

func parseInt(v string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%q is not a number from %d to %d", v, lo, hi)
	}
	return n, nil
}
