package config_test

import (
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// What brctl, bridge, ifupdown, netplan and systemd take, and other readers of YAML,
// says here what it says there.
func TestValuesThatFamiliarToolsTake(t *testing.T) {
	kinds := newBench().kinds
	for _, c := range []struct{ file, plain string }{
		{"ageing: 0", "ageing: 0s"}, // a hub
		{"ageing: 300.00", "ageing: 300s"},
		{"ageing: 5min", "ageing: 300s"},
		{"ageing: 1min 30s", "ageing: 90s"},
		{"ageing: 2 hr", "ageing: 7200s"},
		{"stp: off\nforward-delay: 0", "stp: off\nforward-delay: 4s"},
		{"stp: false", "stp: off"},
		{"stp: no", "stp: off"},
		{"stp: 0", "stp: off"},
		{"stp: Off", "stp: off"},
		{"stp: true", "stp: rstp"},
		{"stp: yes", "stp: rstp"},
		{"stp: RSTP", "stp: rstp"},
		{"vlan-filtering: True", "vlan-filtering: on"},
		{"vlan-filtering: YES", "vlan-filtering: on"},
		{"vlan-filtering: y", "vlan-filtering: on"},
		{"vlan_filtering: 1", "vlan-filtering: on"},
		{"priority: 0x1000", "priority: 4096"},
		{"mtu: 0x5dc", "mtu: 1500"},
		{"mtu: 1_500", "mtu: 1500"},
		{"mtu: !!int 1500", "mtu: 1500"},
		{"busy-poll: off", "busy-poll: 0"},
		{"mac: 52:54:0:12:34:56", "mac: 52:54:00:12:34:56"},
		{"mac: 5254.0012.3456", "mac: 52:54:00:12:34:56"},
		{"\ufeffname: a", "name: a"},
		{"%YAML 1.2\n---\nname: a\n...\n", "name: a"},
		{"null", ""},
		{"name: >-\n  a\n", "name: a"},
		{"uplinks: eth0", "uplinks: [eth0]"},
		{"ports: netdev:tap0", "ports: ['netdev:tap0']"},
		{"ports:\n- {kind: netdev, name: a, trunk: [10, 20-30]}", "ports: ['netdev:a,trunk=10+20-30']"},
		{"ports: ['netdev:a,mcast_flood=off,guard=on,root_block=on,priority=16,cost=0x10']",
			"ports: ['netdev:a,mcast-flood=off,bpdu-guard=on,root-guard=on,prio=16,cost=16']"},
		{"ports: ['netdev:a,edge=yes,recover=5min,hairpin=ON']", "ports: ['netdev:a,edge=on,recover=300s,hairpin=on']"},
	} {
		dump := func(text string) string {
			cfg := config.Default()
			if err := cfg.Parse(kinds, "f.yaml", []byte(text)); err != nil {
				t.Errorf("%q: %v", text, err)
				return ""
			}
			for i := range cfg.Ports { // the switch is told the settings, and writes them by its own words
				pc, err := cfg.Ports[i].PortConfig()
				if err != nil {
					t.Errorf("%q: %v", text, err)
				}
				cfg.Ports[i].Settings = config.PortWords(&pc)
			}
			out, err := cfg.Dump()
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			return string(out)
		}
		if got, want := dump(c.file), dump(c.plain); got != want {
			t.Errorf("%q is taken for\n%s\nwant\n%s", c.file, got, want)
		}
	}
	pc := vswitch.NewPortConfig("netdev")
	if err := config.SetPort(&pc, config.KeyValue{Key: "mcast_flood", Value: "no"}); err != nil || !pc.NoMulticastFlood {
		t.Errorf("mcast_flood=no: %v, %+v", err, pc)
	}
}
