package config

import (
	"fmt"
	"strings"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
)

// Words says a switch's values in the words of the file and the command line.
type Words struct{}

var _ vswitch.Words = Words{}

// Mend is vswitch.Words'.
func (Words) Mend(port, guard string) string {
	recover := fmt.Sprintf("`kvswitch stp port %s recover=now`", port)
	switch guard {
	case stp.GuardBPDU.String():
		return fmt.Sprintf("if a switch belongs there, `kvswitch stp port %s edge=auto bpdu-guard=off`; if not, take it away, then %s", port, recover)
	case stp.GuardRoot.String():
		return fmt.Sprintf("if that bridge may be the root, `kvswitch stp port %s root-guard=off`; if not, give it a higher priority number, and the port comes back by itself", port)
	case stp.GuardLoop.String():
		return fmt.Sprintf("see why it fell silent (a link that works one way?), then %s", recover)
	case stp.GuardSelfLoop.String():
		return "undo the loop behind the port, and it comes back by itself"
	}
	return recover
}

// PortChange is vswitch.Words'.
func (Words) PortChange(old, new *vswitch.PortConfig) (from, to string) {
	was, is := PortWords(old), PortWords(new)
	if old.Uplink != new.Uplink {
		was = append(was, KeyValue{"uplink", onOffText(old.Uplink)})
		is = append(is, KeyValue{"uplink", onOffText(new.Uplink)})
	}
	return differences(was, is)
}

// SwitchChange is vswitch.Words'.
func (Words) SwitchChange(old, new *vswitch.Config) (from, to string) {
	list := func(c *vswitch.Config) (words []KeyValue) {
		whole := &Config{Switch: *c}
		for _, k := range scalars {
			if k.live && k.name != "host" || k.name == "mac" {
				words = append(words, KeyValue{k.name, k.get(whole)})
			}
		}
		return words
	}
	return differences(list(old), list(new))
}

// Advise adds to a warning of a port that has this configuration what it is about
// and what to type.
func Advise(warning string, c *vswitch.PortConfig) string {
	if warning == vswitch.WarnUnfiltered {
		return fmt.Sprintf("%s; start it with --vlan-filtering to have %s in force", warning, strings.TrimPrefix(JoinWords(vlanWords(&c.VLAN)), ","))
	}
	return warning
}

// differences are the words of either list that the other has not: what is only
// in one is at its default in the other.
func differences(was, is []KeyValue) (from, to string) {
	value := func(list []KeyValue, key string) string {
		for _, w := range list {
			if w.Key == key {
				return w.Value
			}
		}
		return "default"
	}
	var a, b []KeyValue
	add := func(key string) {
		if v, w := value(was, key), value(is, key); v != w {
			a, b = append(a, KeyValue{key, v}), append(b, KeyValue{key, w})
		}
	}
	for _, w := range was {
		add(w.Key)
	}
	for _, w := range is {
		if value(was, w.Key) == "default" {
			add(w.Key)
		}
	}
	return strings.TrimPrefix(JoinWords(a), ","), strings.TrimPrefix(JoinWords(b), ",")
}
