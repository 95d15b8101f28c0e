package topo

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// ethtool talks to the kernel's ethtool interface: ethtool-netlink(7), Linux 5.7.
// The names of features are those of ethtool -k.
type ethtool struct{ family uint16 }

func newEthtool() (ethtool, error) {
	f, err := netlink.GenlFamilyGet("ethtool")
	if err != nil {
		return ethtool{}, fmt.Errorf("find ethtool interface: %w", err)
	}
	return ethtool{f.ID}, nil
}

func (e ethtool) request(command uint8, device string, more ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(e.family), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: command, Version: unix.ETHTOOL_GENL_VERSION})
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(device))
	req.AddData(header)
	for _, a := range more {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

// SetOffload switches a feature of a device, such as "rx-gro", on or off.
func SetOffload(h *netns.Host, device, feature string, on bool) error {
	err := h.Do(func() error {
		e, err := newEthtool()
		if err != nil {
			return err
		}
		wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
		bits := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
		bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(feature))
		if on {
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
		_, err = e.request(unix.ETHTOOL_MSG_FEATURES_SET, device, wanted)
		return err
	})
	if err != nil {
		return fmt.Errorf("set %s of %s to %v: %w", feature, device, on, err)
	}
	return nil
}

// Offloads are the features of a device that are on.
func Offloads(h *netns.Host, device string) (map[string]bool, error) {
	active := map[string]bool{}
	err := h.Do(func() error {
		e, err := newEthtool()
		if err != nil {
			return err
		}
		replies, err := e.request(unix.ETHTOOL_MSG_FEATURES_GET, device)
		if err != nil {
			return err
		}
		for _, r := range replies {
			if len(r) < nl.SizeofGenlmsg {
				continue
			}
			eachAttr(r[nl.SizeofGenlmsg:], unix.ETHTOOL_A_FEATURES_ACTIVE, func(set []byte) {
				eachAttr(set, unix.ETHTOOL_A_BITSET_BITS, func(bits []byte) {
					eachAttr(bits, unix.ETHTOOL_A_BITSET_BITS_BIT, func(bit []byte) {
						eachAttr(bit, unix.ETHTOOL_A_BITSET_BIT_NAME, func(name []byte) {
							active[strings.TrimRight(string(name), "\x00")] = true
						})
					})
				})
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read offloads of %s: %w", device, err)
	}
	return active, nil
}

// eachAttr calls f with the value of every attribute of a type: struct nlattr,
// netlink(7).
func eachAttr(b []byte, kind uint16, f func([]byte)) {
	const header = 4
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			f(b[header:n])
		}
		b = b[min(len(b), (n+3)&^3):]
	}
}
