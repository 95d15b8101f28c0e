package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
)

// portKey is one key that SetPort understands and PortWords writes.
type portKey struct {
	name  string
	usage string
	set   func(*vswitch.PortConfig, string) error
	get   func(*vswitch.PortConfig) string // "" when at its default
}

// flagKey is a key whose field is a flag: set when the value is want, which is
// not its default.
func flagKey(name, usage string, field func(*vswitch.PortConfig) *bool, want bool) portKey {
	return portKey{name, usage,
		func(c *vswitch.PortConfig, v string) error {
			on, ok := onOff(v)
			if !ok {
				return fmt.Errorf("%q is neither on nor off", v)
			}
			*field(c) = on == want
			return nil
		},
		func(c *vswitch.PortConfig) string {
			if *field(c) {
				return onOffText(want)
			}
			return ""
		}}
}

// choices are the words for the values of a vswitch.Choice.
var choices = []string{vswitch.Unset: "", vswitch.On: "on", vswitch.Off: "off", vswitch.Auto: "auto"}

// choiceKey is a key whose field is a Choice, up to most.
func choiceKey(name, usage string, field func(*vswitch.PortConfig) *vswitch.Choice, most vswitch.Choice) portKey {
	words := choices[vswitch.On : most+1]
	return portKey{name, usage,
		func(c *vswitch.PortConfig, v string) error {
			if on, ok := onOff(v); ok {
				v = onOffText(on)
			}
			i := slices.Index(words, v)
			if i < 0 {
				return fmt.Errorf("%q is not one of %s", v, strings.Join(words, ", "))
			}
			*field(c) = vswitch.On + vswitch.Choice(i)
			return nil
		},
		func(c *vswitch.PortConfig) string { return choices[*field(c)] }}
}

// numberKey is a key whose value is a number from 0 to most.
func numberKey(name, usage string, most, def int, get func(*vswitch.PortConfig) int, set func(*vswitch.PortConfig, int) error) portKey {
	return portKey{name, usage,
		func(c *vswitch.PortConfig, v string) error {
			n, err := Number(v, 0, most)
			if err != nil {
				return fmt.Errorf("%q is not a number from 0 to %d", v, most)
			}
			return set(c, n)
		},
		func(c *vswitch.PortConfig) string {
			if n := get(c); n != def {
				return strconv.Itoa(n)
			}
			return ""
		}}
}

// unsaid is no value of a number: that it is what suits the port.
const unsaid = -1

const maxPriority = 240 // of a port, in steps of prioStep (802.1D-2004 17.13.10)
const prioStep = 16

var portKeys = []portKey{
	flagKey("learning", "on|off: learn source addresses", func(c *vswitch.PortConfig) *bool { return &c.NoLearning }, false),
	flagKey("flood", "on|off: send unknown unicast", func(c *vswitch.PortConfig) *bool { return &c.NoFlood }, false),
	flagKey("mcast-flood", "on|off: send multicast", func(c *vswitch.PortConfig) *bool { return &c.NoMulticastFlood }, false),
	flagKey("bcast-flood", "on|off: send broadcast", func(c *vswitch.PortConfig) *bool { return &c.NoBroadcastFlood }, false),
	flagKey("isolated", "on|off: no traffic between isolated ports", func(c *vswitch.PortConfig) *bool { return &c.Isolated }, true),
	flagKey("locked", "on|off: only known source addresses", func(c *vswitch.PortConfig) *bool { return &c.Locked }, true),
	flagKey("hairpin", "on|off: frames may leave where they came in", func(c *vswitch.PortConfig) *bool { return &c.Hairpin }, true),
	numberKey("max-learned", "N: most addresses learned here, 0 = no limit; "+strconv.Itoa(vswitch.GuestStations)+" for a guest's port", fdb.MaxEntries, unsaid,
		func(c *vswitch.PortConfig) int {
			switch c.MaxLearned {
			case 0:
				return unsaid
			case vswitch.NoLimit:
				return 0
			}
			return c.MaxLearned
		},
		func(c *vswitch.PortConfig, n int) error {
			if c.MaxLearned = n; n == 0 {
				c.MaxLearned = vswitch.NoLimit
			}
			return nil
		}),
	choiceKey("edge", "on|off|auto: a port to an end station", func(c *vswitch.PortConfig) *vswitch.Choice { return &c.STP.Edge }, vswitch.Auto),
	choiceKey("p2p", "on|off|auto: a point-to-point link", func(c *vswitch.PortConfig) *vswitch.Choice { return &c.STP.P2P }, vswitch.Auto),
	choiceKey("bpdu-guard", "on|off: a BPDU disables the port", func(c *vswitch.PortConfig) *vswitch.Choice { return &c.STP.BPDUGuard }, vswitch.Off),
	flagKey("bpdu-filter", "on|off: neither send nor hear BPDUs", func(c *vswitch.PortConfig) *bool { return &c.STP.BPDUFilter }, true),
	flagKey("root-guard", "on|off: never become a root port", func(c *vswitch.PortConfig) *bool { return &c.STP.RootGuard }, true),
	flagKey("tcn-guard", "on|off: do not pass topology changes on", func(c *vswitch.PortConfig) *bool { return &c.STP.TCNGuard }, true),
	flagKey("loop-guard", "on|off: do not forward when BPDUs cease", func(c *vswitch.PortConfig) *bool { return &c.STP.LoopGuard }, true),
	{"recover", "DURATION: a guarded port comes back after this, 0 = by hand",
		func(c *vswitch.PortConfig, v string) error {
			d, err := ParseSeconds(v)
			if err != nil || d/time.Second > math.MaxUint32 {
				return fmt.Errorf("%q is not a duration of whole seconds such as 300s", v)
			}
			c.STP.Recover = d
			return nil
		},
		func(c *vswitch.PortConfig) string {
			if c.STP.Recover == 0 {
				return ""
			}
			return c.STP.Recover.String()
		}},
	numberKey("cost", "N: path cost 1–200000000, 0 = by link speed", stp.MaxPathCost, 0,
		func(c *vswitch.PortConfig) int { return int(c.STP.Cost) },
		func(c *vswitch.PortConfig, n int) error { c.STP.Cost = uint32(n); return nil }),
	numberKey("prio", "N: port priority 0–240 in steps of 16", maxPriority, vswitch.DefaultPortPriority,
		func(c *vswitch.PortConfig) int { return int(c.STP.Priority) },
		func(c *vswitch.PortConfig, n int) error {
			if n%prioStep != 0 {
				return fmt.Errorf("%d is not a multiple of %d", n, prioStep)
			}
			c.STP.Priority = uint8(n)
			return nil
		}),
}

// bridgeWords are what bridge(8) calls keys that have another name here.
var bridgeWords = map[string]string{"priority": "prio", "guard": "bpdu-guard", "root-block": "root-guard", "bpdu-block": "bpdu-guard"}

// PortKey is the key that a word means: bridge(8) writes mcast_flood for
// mcast-flood, and has other names for some.
func PortKey(word string) string {
	key := strings.ReplaceAll(word, "_", "-")
	if own, ok := bridgeWords[key]; ok {
		return own
	}
	return key
}

// SetPort applies words such as vlan=10 or learning=off to a port's
// configuration. The order in which they are given does not matter. On error c
// is unchanged; the error names the key and what it takes.
func SetPort(c *vswitch.PortConfig, words ...KeyValue) error {
	next := *c
	words = slices.Clone(words)
	for i := range words {
		words[i].Key = PortKey(words[i].Key)
	}
	slices.SortStableFunc(words, func(a, b KeyValue) int { return vlanRank(a.Key) - vlanRank(b.Key) })
	for _, w := range words {
		if err := setWord(&next, w); err != nil {
			return fmt.Errorf("set %s=%s: %w", w.Key, w.Value, err)
		}
	}
	*c = next
	return nil
}

func setWord(c *vswitch.PortConfig, w KeyValue) error {
	if i := vlanRank(w.Key); i >= 0 {
		return vlanKeys[i].set(&c.VLAN, w.Value)
	}
	i := slices.IndexFunc(portKeys, func(k portKey) bool { return k.name == w.Key })
	if i < 0 {
		return fmt.Errorf("no such key; known: %s", strings.Join(PortKeyNames(), " "))
	}
	return portKeys[i].set(c, w.Value)
}

// PortWords are the words that make vswitch.NewPortConfig into c.
func PortWords(c *vswitch.PortConfig) []KeyValue {
	list := vlanWords(&c.VLAN)
	for _, k := range portKeys {
		if v := k.get(c); v != "" {
			list = append(list, KeyValue{k.name, v})
		}
	}
	return list
}

// FillSettings puts a port's configuration, which the switch tells in values,
// into its status as words, and what to type into its warnings.
func FillSettings(p *vswitch.PortStatus) {
	p.Settings = map[string]string{}
	for _, w := range PortWords(&p.Config) {
		p.Settings[w.Key] = w.Value
	}
	for i, w := range p.Warnings {
		p.Warnings[i] = Advise(w, &p.Config)
	}
}

// PortKeyNames lists the keys that SetPort takes.
func PortKeyNames() []string {
	var names []string
	for _, k := range vlanKeys {
		names = append(names, k.name)
	}
	for _, k := range portKeys {
		names = append(names, k.name)
	}
	return names
}

// PortKeyUsage is a line of help for each of PortKeyNames: the key, what it
// takes, and what it does.
func PortKeyUsage() []string {
	var lines []string
	for _, k := range vlanKeys {
		lines = append(lines, k.name+"="+k.usage)
	}
	for _, k := range portKeys {
		lines = append(lines, k.name+"="+k.usage)
	}
	return lines
}
