package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

const transferBytes = 32 << 20

// checksums fails the test if one of the hosts has seen a wrong checksum.
func checksums(t *testing.T, hosts ...*netns.Host) {
	t.Helper()
	for _, h := range hosts {
		if n := h.ChecksumErrors(); n != 0 {
			t.Errorf("%v received %d wrong checksums", h, n)
		}
	}
}

// superframes fails the test unless a port received its bytes in frames longer
// than a wire could carry: TCP's segments crossed the switch uncut.
func superframes(t *testing.T, k *kvs, port string) {
	t.Helper()
	rx := k.port(port).RX
	if rx.Bytes < transferBytes || rx.Bytes/rx.Frames < 3000 {
		t.Errorf("%s received %d bytes in %d frames: they came in small pieces", port, rx.Bytes, rx.Frames)
	}
}

func TestTCPCrossesUncutBetweenPortsAndTheHost(t *testing.T) {
	inKernelModes(t, testTCPCrossesUncutBetweenPortsAndTheHost)
}

func testTCPCrossesUncutBetweenPortsAndTheHost(t *testing.T) {
	o := newOffice(t, 2)
	a, b := o.computers[0], o.computers[1]
	a.Transfer(b, netip.MustParseAddr(computerIP(1)), transferBytes, time.Minute)
	superframes(t, o.kvs, "p0")
	b.Transfer(a, netip.MustParseAddr(computerIP(0)), transferBytes, time.Minute)
	superframes(t, o.kvs, "p1")
	for _, name := range []string{"p0", "p1"} {
		p := o.kvs.port(name)
		t.Logf("%s: of %d frames %d went the short way", name, p.RX.Frames, p.InKernel.RxFrames)
		if off := inKernelMode(t) == inKernelOff; off && p.InKernel.RxFrames != 0 || !off && p.InKernel.RxFrames < p.RX.Frames/2 {
			t.Errorf("%s: of %d frames %d went the short way", name, p.RX.Frames, p.InKernel.RxFrames)
		}
	}
	a.Transfer(o.host, netip.MustParseAddr(hostIP), transferBytes, time.Minute)
	o.host.Transfer(a, netip.MustParseAddr(computerIP(0)), transferBytes, time.Minute)
	checksums(t, a, b, o.host)
}

func TestTCPCrossesWithAnyOffloadSwitchedOff(t *testing.T) {
	inKernelModes(t, testTCPCrossesWithAnyOffloadSwitchedOff)
}

func testTCPCrossesWithAnyOffloadSwitchedOff(t *testing.T) {
	o := newOffice(t, 2)
	a, b := o.computers[0], o.computers[1]
	for _, off := range [][]string{{"tx"}, {"tso"}, {"gso"}, {"gro"}, {"tx", "rx", "tso", "gso", "gro"}} {
		for _, on := range []struct {
			host   *netns.Host
			device string
		}{{a, "eth0"}, {o.host, "p0"}, {o.host, "kvs0"}} {
			set := func(state string) {
				argv := []string{"ethtool", "-K", on.device}
				for _, word := range off {
					argv = append(argv, word, state)
				}
				on.host.Try(argv...) // rx cannot be changed on every device
			}
			set("off")
			for _, err := range []error{
				a.TryTransfer(b, netip.MustParseAddr(computerIP(1)), 2<<20, 30*time.Second),
				b.TryTransfer(a, netip.MustParseAddr(computerIP(0)), 2<<20, 30*time.Second),
				o.host.TryTransfer(a, netip.MustParseAddr(computerIP(0)), 2<<20, 30*time.Second),
				a.TryTransfer(o.host, netip.MustParseAddr(hostIP), 2<<20, 30*time.Second),
			} {
				if err != nil {
					t.Errorf("%s off on %v:%s: %v", strings.Join(off, ", "), on.host, on.device, err)
				}
			}
			set("on")
		}
	}
	checksums(t, a, b, o.host)
}

func TestIPv6CrossesUncut(t *testing.T) {
	inKernelModes(t, testIPv6CrossesUncut)
}

func testIPv6CrossesUncut(t *testing.T) {
	o := newOffice(t, 2)
	for i, h := range append(o.computers, o.host) {
		device := "eth0"
		if h == o.host {
			device = "kvs0"
		}
		h.Sysctl("net/ipv6/conf/"+device+"/disable_ipv6", "0")
		h.Addr(device, fmt.Sprintf("2001:db8::%d/64", i+1))
	}
	a, b := o.computers[0], o.computers[1]
	a.Reaches("2001:db8::2")
	a.Reaches("2001:db8::3")
	a.Transfer(b, netip.MustParseAddr("2001:db8::2"), transferBytes, time.Minute)
	superframes(t, o.kvs, "p0")
	a.Transfer(o.host, netip.MustParseAddr("2001:db8::3"), transferBytes/4, time.Minute)
	o.host.Transfer(a, netip.MustParseAddr("2001:db8::1"), transferBytes/4, time.Minute)
	checksums(t, a, b, o.host)
}

func TestJumboFramesCross(t *testing.T) {
	o := newOffice(t, 2, "--mtu", "9000")
	for i, pc := range o.computers {
		pc.MTU("eth0", 9000)
		o.host.MTU(fmt.Sprint("p", i), 9000)
		o.kvs.awaitPort(fmt.Sprint("p", i), "has the new MTU", func(p portDoc) bool { return p.MTU == 9000 })
	}
	a, b := o.computers[0], o.computers[1]
	for _, ip := range []string{computerIP(1), hostIP} {
		a.Reaches(ip)
		a.Run("ping", "-n", "-c", "3", "-W", "2", "-M", "do", "-s", "8972", ip)
	}
	a.Transfer(b, netip.MustParseAddr(computerIP(1)), transferBytes, time.Minute)
	b.Transfer(o.host, netip.MustParseAddr(hostIP), transferBytes, time.Minute)
	checksums(t, a, b, o.host)
}

// TestDHCPCrosses is where unfinished checksums show first: client and server
// use sockets that see the packet as the device got it.
func TestDHCPCrosses(t *testing.T) {
	o := newOffice(t, 2)
	serveDHCP(o.host)
	for _, pc := range o.computers {
		pc.Run("ip", "addr", "flush", "dev", "eth0")
		out := pc.Run("busybox", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", "eth0", "-s", "/bin/true")
		if !strings.Contains(out, "obtained from "+hostIP) {
			t.Errorf("no lease: %s", out)
		}
	}
	checksums(t, append(o.computers, o.host)...)
}

func TestUDPOfEverySizeCrosses(t *testing.T) {
	inKernelModes(t, testUDPOfEverySizeCrosses)
}

func testUDPOfEverySizeCrosses(t *testing.T) {
	o := newOffice(t, 2)
	a := o.computers[0]
	for _, ip := range []string{computerIP(1), hostIP} {
		a.Reaches(ip)
		for _, size := range []string{"0", "1", "1472", "1473", "9000", "65507"} { // beyond 1472 in fragments
			a.Run("ping", "-n", "-c", "1", "-W", "5", "-s", size, ip)
		}
	}
	echoUDP(t, a, o.computers[1], computerIP(1))
	echoUDP(t, a, o.host, hostIP)
	checksums(t, append(o.computers, o.host)...)
}

// The kernel hands out TCP in a tunnel uncut, too, but nothing that takes frames
// has a word for that: the switch cuts it.
func TestTCPInATunnelCrosses(t *testing.T) {
	o := newOffice(t, 2)
	a, b := o.computers[0], o.computers[1]
	ends := []struct {
		*netns.Host
		device, ip string
	}{{a, "eth0", computerIP(0)}, {b, "eth0", computerIP(1)}, {o.host, "kvs0", hostIP}}
	for _, port := range []string{"p0", "p1"} {
		o.host.Run("ethtool", "-K", port, "tso", "off") // nor does this device cut it
	}
	for i, from := range ends {
		for j, to := range ends {
			if i == j {
				continue
			}
			name := fmt.Sprint("vx", j)
			for _, way := range []string{"noudpcsum", "udpcsum"} {
				back := fmt.Sprint("vx", i)
				from.Run("ip", "link", "add", name, "type", "vxlan", "id", "5", "dstport", "4789", "local", from.ip, "remote", to.ip, way)
				to.Run("ip", "link", "add", back, "type", "vxlan", "id", "5", "dstport", "4789", "local", to.ip, "remote", from.ip, way)
				from.Addr(name, "198.51.100.1/24")
				to.Addr(back, "198.51.100.2/24")
				from.Run("ip", "link", "set", name, "up")
				to.Run("ip", "link", "set", back, "up")
				if err := from.TryTransfer(to.Host, netip.MustParseAddr("198.51.100.2"), 8<<20, 30*time.Second); err != nil {
					t.Errorf("from %v to %v, %s: %v", from.Host, to.Host, way, err)
				}
				from.Run("ip", "link", "del", name)
				to.Run("ip", "link", "del", back)
			}
		}
	}
	for _, name := range []string{"p0", "p1"} {
		p := o.kvs.port(name)
		for reason, n := range p.Drops {
			if n > 0 && reason != "egress-full" {
				t.Errorf("%s: %d frames dropped for %s", name, n, reason)
			}
		}
	}
	checksums(t, a, b, o.host)
}
