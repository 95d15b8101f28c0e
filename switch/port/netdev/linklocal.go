package netdev

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// Frames to the link-local group addresses are the switch's, which forwards none of
// them. Most are not for it but for the host that it runs on: the switch at the
// other end of an uplink asks for the host's credentials (802.1X), tells what it
// is (LLDP), bundles links (LACP). wpa_supplicant and lldpd listen on the device
// for them. So the shield lets them through, of uplinks only: what a guest sends
// does not concern the host. See for_host in bpf/shield.h.

// uplinkMap is the name of the word in every program that says so.
const uplinkMap = "kvswitch_uplink"

// newUplinkWord makes it.
func newUplinkWord(on bool) (*ebpf.Map, error) {
	_ = rlimit.RemoveMemlock()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: uplinkMap, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, loadError(err, ": needs root or CAP_BPF and CAP_NET_ADMIN")
	}
	if err := setUplinkWord(m, on); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func setUplinkWord(m *ebpf.Map, on bool) error {
	value := uint32(0)
	if on {
		value = 1
	}
	if err := m.Put(uint32(0), value); err != nil {
		return fmt.Errorf("tell BPF program of an uplink: %w", err)
	}
	return nil
}

// SetUplink implements frame.Uplinker.
func (p *Port) SetUplink(on bool) {
	if p.uplink.Swap(on) == on {
		return
	}
	p.watcher.Do(func() {
		if p.at != nil && p.at.uplink != nil {
			_ = setUplinkWord(p.at.uplink, on) // a write to an array's only element can't fail
		}
	})
}
