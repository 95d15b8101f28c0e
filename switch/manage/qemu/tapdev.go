package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MaxQueues is the most queues that a tap has (MAX_TAP_QUEUES of the kernel).
const MaxQueues = 256

// tapDevice is a tap whose far end is for QEMU: its netdev exists for as long
// as anybody holds one of the queues.
type tapDevice struct {
	name   string
	index  int
	queues []*os.File
}

// makeTap makes a tap with a name of the kernel's choice (tap0, tap1, …). Each
// queue carries the virtio-net header if vnetHdr is set. The netdev is down.
func makeTap(queues int, vnetHdr bool) (_ *tapDevice, err error) {
	if queues < 1 || queues > MaxQueues {
		return nil, fmt.Errorf("make tap: %d queues: want 1 to %d", queues, MaxQueues)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if vnetHdr {
		flags |= unix.IFF_VNET_HDR
	}
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	t := &tapDevice{name: "tap%d"}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for range queues {
		if err := t.addQueue(flags); err != nil {
			return nil, fmt.Errorf("make tap: %w", err)
		}
	}
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return nil, fmt.Errorf("find tap %s: %w", t.name, err)
	}
	t.index = link.Attrs().Index
	return t, nil
}

func (t *tapDevice) addQueue(flags uint16) error {
	// Not os.OpenFile: the Go runtime would watch the descriptor, which another
	// process is about to use.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w (is module tun loaded?)", err)
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	ifr, err := unix.NewIfreq(t.name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("TUNSETIFF: %w (want CAP_NET_ADMIN)", err)
		}
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	t.name = ifr.Name()
	t.queues = append(t.queues, f)
	return nil
}

// configure gives the netdev its MTU (0 leaves it) and its address: 0xfe as
// first octet, as libvirt's and qemu-bridge-helper's taps have it, is above any
// address that a bridge may take for its own.
func (t *tapDevice) configure(mtu int) error {
	link, err := netlink.LinkByIndex(t.index)
	if err != nil {
		return fmt.Errorf("find tap %s: %w", t.name, err)
	}
	if mtu != 0 {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU of tap %s to %d: %w", t.name, mtu, err)
		}
	}
	mac := append(net.HardwareAddr(nil), link.Attrs().HardwareAddr...)
	mac[0] = 0xfe
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("set address of tap %s: %w", t.name, err)
	}
	return nil
}

// setLink sets a tap's netdev up or down.
func setLink(tap string, up bool) error {
	link, err := netlink.LinkByName(tap)
	if err != nil {
		return fmt.Errorf("find tap %s: %w", tap, err)
	}
	set, word := netlink.LinkSetDown, "down"
	if up {
		set, word = netlink.LinkSetUp, "up"
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set %s %s: %w", tap, word, err)
	}
	return nil
}

// close gives up this process's descriptors, and with them the tap, unless QEMU
// has copies.
func (t *tapDevice) close() {
	for _, f := range t.queues {
		f.Close()
	}
	t.queues = nil
}
