package trial

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// offloads are the features whose state decides what the kernel does in
// software on a veth.
var offloads = []string{"rx-gro", "tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation", "tx-scatter-gather"}

// Record notes, once for each contender, the settings of its namespace and ports
// that the figures depend on.
func (r *Results) Record(of *rig.Rig) {
	c := r.Contender(of.Kind.Name)
	if c == nil || c.Settings != nil || of.Top.Switch == nil {
		return
	}
	c.Settings = map[string]string{}
	// testbed/netns sets the hooks of br_netfilter to 0 in every namespace, for all
	// contenders alike; this is what the kernel says about it.
	err := of.Top.Switch.Do(func() error {
		paths, err := filepath.Glob("/proc/sys/net/bridge/bridge-nf-call-*")
		for _, p := range paths {
			v, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			c.Settings[filepath.Base(p)] = strings.TrimSpace(string(v))
		}
		if len(paths) == 0 {
			c.Settings["bridge-nf-call-*"] = "no br_netfilter in the kernel"
		}
		return err
	})
	if err != nil {
		r.Note("%s: settings not read: %v", of.Kind.Name, err)
	}
	p := of.Top.Ports[0]
	if p.Name == "" || p.Socket != "" {
		return
	}
	active, err := topo.Offloads(of.Top.Switch, p.Name)
	if err != nil {
		r.Note("%s: %v", of.Kind.Name, err)
		return
	}
	var on []string
	for _, f := range offloads {
		if active[f] {
			on = append(on, f)
		}
	}
	slices.Sort(on)
	c.Settings["port offloads on"] = strings.Join(on, " ")
}
