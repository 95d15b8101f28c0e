package netdev

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/port/tap"
)

// segment is two hosts with IP stacks that a hub joins, every device at its
// default offloads.
type segment struct {
	a, b       *netns.Host
	aDev, bDev string
	crossed    *crossed
}

// crossed is what the hub saw of the frames that crossed it.
type crossed struct {
	longestTCP, longestUDP, unfinished, parts atomic.Int64
}

func (c *crossed) look(_ int, f *frame.Frame) {
	longest := func(v *atomic.Int64) { v.Store(max(v.Load(), int64(f.Len()))) }
	switch f.Hdr.GSOType &^ frame.GSOECN {
	case frame.GSOTCPv4, frame.GSOTCPv6:
		longest(&c.longestTCP)
	case frame.GSOUDPL4:
		longest(&c.longestUDP)
	}
	if f.Hdr.Flags&frame.HdrNeedsCsum != 0 {
		c.unfinished.Add(1)
	}
	if f.Rest != nil {
		c.parts.Add(1)
	}
}

// openTap opens a tap whose stack is the host's.
func openTap(t *testing.T, h *netns.Host, name string, mtu int) *tap.Port {
	t.Helper()
	p, err := tap.Open(watcherOf(t, h), name, tap.Options{MTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

var segments = []struct {
	name  string
	build func(t *testing.T, mtu int) segment
}{
	{"veth and veth", func(t *testing.T, mtu int) segment {
		lab := netns.New(t)
		s := segment{lab.Host("a"), lab.Host("b"), "eth0", "eth0", new(crossed)}
		sw := lab.Host("sw")
		var ports []frame.Port
		for _, h := range []*netns.Host{s.a, s.b} {
			dev := fmt.Sprint("p", len(ports))
			lab.Cable(h, "eth0", sw, dev)
			h.MTU("eth0", mtu)
			sw.MTU(dev, mtu)
			awaitCable(t, h, "eth0", sw, dev)
			ports = append(ports, openOn(t, sw, dev, Options{}))
		}
		join(t, s.crossed.look, ports...)
		return s
	}},
	{"veth and the host's tap", func(t *testing.T, mtu int) segment {
		lab := netns.New(t)
		s := segment{lab.Host("a"), lab.Host("sw"), "eth0", "kvs0", new(crossed)}
		lab.Cable(s.a, "eth0", s.b, "p0")
		s.a.MTU("eth0", mtu)
		s.b.MTU("p0", mtu)
		awaitCable(t, s.a, "eth0", s.b, "p0")
		join(t, s.crossed.look, openOn(t, s.b, "p0", Options{}), openTap(t, s.b, "kvs0", mtu))
		return s
	}},
	// The guest's end of the tap is a hub that carries frames between the tap's
	// descriptor and the guest's stack, as QEMU does.
	{"veth and a guest's tap", func(t *testing.T, mtu int) segment {
		lab := netns.New(t)
		s := segment{lab.Host("a"), lab.Host("vm"), "eth0", "nic", new(crossed)}
		sw := lab.Host("sw")
		lab.Cable(s.a, "eth0", sw, "p0")
		s.a.MTU("eth0", mtu)
		sw.MTU("p0", mtu)
		awaitCable(t, s.a, "eth0", sw, "p0")
		join(t, nil, openTap(t, s.b, "nic", mtu), openTap(t, sw, "tap0", mtu))
		join(t, s.crossed.look, openOn(t, sw, "p0", Options{}), openOn(t, sw, "tap0", Options{}))
		return s
	}},
}

func (s segment) address(ipv6 bool) (a, b netip.Addr) {
	if ipv6 {
		for h, dev := range map[*netns.Host]string{s.a: s.aDev, s.b: s.bDev} {
			h.Sysctl("net/ipv6/conf/"+dev+"/disable_ipv6", "0")
		}
		s.a.Run("ip", "addr", "add", "fd00::1/64", "dev", s.aDev, "nodad")
		s.b.Run("ip", "addr", "add", "fd00::2/64", "dev", s.bDev, "nodad")
		return netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	}
	s.a.Addr(s.aDev, "192.0.2.1/24")
	s.b.Addr(s.bDev, "192.0.2.2/24")
	return netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
}

func TestTCPAndUDPCrossAtDefaultOffloads(t *testing.T) {
	eachWay(t, testTCPAndUDPCrossAtDefaultOffloads)
}

func testTCPAndUDPCrossAtDefaultOffloads(t *testing.T) {
	for _, topo := range segments {
		for _, ipv6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", topo.name, ipv6), func(t *testing.T) {
				s := topo.build(t, 1500)
				aAddr, bAddr := s.address(ipv6)
				s.a.Reaches(bAddr.String())
				s.a.Transfer(s.b, bAddr, 16<<20, 30*time.Second)
				s.b.Transfer(s.a, aAddr, 16<<20, 30*time.Second)
				if n := s.crossed.longestTCP.Load(); n < 60000 {
					t.Errorf("the longest TCP frame that crossed has %d bytes: segmented on the way", n)
				}
				datagrams(t, s.a, s.b, bAddr, 1)
				datagrams(t, s.b, s.a, aAddr, 1)
				datagrams(t, s.a, s.b, bAddr, 30) // by USO
				datagrams(t, s.b, s.a, aAddr, 30)
				if n := s.crossed.longestUDP.Load(); offloads.USO && n < 30*1000 {
					t.Errorf("the longest UDP frame that crossed has %d bytes: segmented on the way", n)
				}
				if s.crossed.unfinished.Load() == 0 {
					t.Error("no unfinished checksum crossed: this proves little")
				}
				for _, h := range []*netns.Host{s.a, s.b} {
					if n := h.ChecksumErrors(); n != 0 {
						t.Errorf("host %s saw %d wrong checksums", h, n)
					}
				}
			})
		}
	}
}

// A guest before Linux 4.14 hands over datagrams beyond the MTU as they are.
func TestDatagramsOfOldGuestsCrossInFragments(t *testing.T) {
	lab := netns.New(t)
	host, sw := lab.Host("host"), lab.Host("sw")
	lab.Cable(host, "eth0", sw, "p0")
	awaitCable(t, host, "eth0", sw, "p0")
	guest := openTap(t, sw, "tap0", 1500) // QEMU's end of it
	port := openOn(t, sw, "p0", Options{})
	var seen atomic.Int64
	join(t, func(_ int, f *frame.Frame) {
		if f.Hdr.GSOType == frame.GSOUDP {
			seen.Add(1)
		}
	}, port, openOn(t, sw, "tap0", Options{}))
	awaitState(t, port, "up", up)
	host.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
	host.Run("ip", "addr", "add", "fd00::1/64", "dev", "eth0", "nodad")
	host.Addr("eth0", "192.0.2.1/24")
	mac := host.MAC("eth0")
	for _, ipv6 := range []bool{false, true} {
		addr, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
		if ipv6 {
			addr, other = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::9")
		}
		var in net.PacketConn
		if err := host.Do(func() (err error) {
			in, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		payload := bytes.Repeat([]byte("datagram"), 1000)
		payload[7999] = 0
		eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, DstMAC: mac[:]}
		udp := &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(in.LocalAddr().(*net.UDPAddr).Port)}
		hdr := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOUDP, CsumOffset: 6}
		var ip gopacket.SerializableLayer
		if ipv6 {
			eth.EthernetType = layers.EthernetTypeIPv6
			v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: other.AsSlice(), DstIP: addr.AsSlice()}
			_ = udp.SetNetworkLayerForChecksum(v6)
			ip, hdr.CsumStart, hdr.GSOSize = v6, 54, 1448
		} else {
			eth.EthernetType = layers.EthernetTypeIPv4
			v4 := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocolUDP, SrcIP: other.AsSlice(), DstIP: addr.AsSlice()}
			_ = udp.SetNetworkLayerForChecksum(v4)
			ip, hdr.CsumStart, hdr.GSOSize = v4, 34, 1480
		}
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload(payload)); err != nil {
			t.Fatal(err)
		}
		// What is left in the checksum's place is the pseudo-header's sum alone.
		b := buf.Bytes()
		l4 := b[hdr.CsumStart:]
		l4[6], l4[7] = 0, 0
		rest := ^checksum(l4)
		binary.BigEndian.PutUint16(l4[6:], onesSub(^udp.Checksum, rest))
		got := make([]byte, 9000)
		// An IPv6 address is there a while before packets to it are taken.
		netns.Await(t, 10*time.Second, "the datagram", func() error {
			if n := guest.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: b, Hdr: hdr}}}); n != 1 {
				return errors.New("the tap has no room")
			}
			_ = in.SetReadDeadline(time.Now().Add(time.Second))
			n, _, err := in.ReadFrom(got)
			if err == nil && !bytes.Equal(got[:n], payload) {
				t.Errorf("IPv6 %v: %d other bytes came", ipv6, n)
			}
			return err
		})
	}
	if seen.Load() < 2 {
		t.Errorf("%d datagrams crossed whole, want 2", seen.Load())
	}
}

// checksum is RFC 1071's of b, which is even.
func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// onesSub is a less b in ones' complement.
func onesSub(a, b uint16) uint16 {
	s := uint32(a) + uint32(^b)
	return uint16(s>>16 + s&0xffff)
}

// A packet in a tunnel, which no offload header can tell of, is said to be one,
// and then can be cut.
func TestTCPInATunnelIsKnownForThat(t *testing.T) { eachWay(t, testTCPInATunnelIsKnownForThat) }

func testTCPInATunnelIsKnownForThat(t *testing.T) {
	var longest atomic.Int64
	lab := netns.New(t)
	a, b, sw := lab.Host("a"), lab.Host("b"), lab.Host("sw")
	var ports []frame.Port
	for i, h := range []*netns.Host{a, b} {
		dev := fmt.Sprint("p", i)
		lab.Cable(h, "eth0", sw, dev)
		awaitCable(t, h, "eth0", sw, dev)
		ports = append(ports, openOn(t, sw, dev, Options{}))
		h.Addr("eth0", fmt.Sprintf("192.0.2.%d/24", i+1))
		_, err := h.Try("ip", "link", "add", "vx", "type", "vxlan", "id", "5", "dstport", "4789",
			"local", fmt.Sprintf("192.0.2.%d", i+1), "remote", fmt.Sprintf("192.0.2.%d", 2-i))
		netns.Need(t, "VXLAN", err)
		h.Addr("vx", fmt.Sprintf("198.51.100.%d/24", i+1))
		h.Run("ip", "link", "set", "vx", "up")
	}
	join(t, func(_ int, f *frame.Frame) {
		switch f.Hdr.GSOType &^ frame.GSOECN {
		case frame.GSONone:
		case frame.GSOTCPv4 | frame.GSOTunnel:
			longest.Store(max(longest.Load(), int64(f.Len())))
		default:
			t.Errorf("a frame of GSO type %#x", f.Hdr.GSOType)
		}
	}, ports...)
	a.Transfer(b, netip.MustParseAddr("198.51.100.2"), 16<<20, 30*time.Second)
	if n := longest.Load(); n < 30000 {
		t.Errorf("the longest frame to be segmented in a tunnel has %d bytes", n)
	}
	for _, h := range []*netns.Host{a, b} {
		if n := h.ChecksumErrors(); n != 0 {
			t.Errorf("host %s saw %d wrong checksums", h, n)
		}
	}
}

// datagrams sends n datagrams of 1000 bytes in one call, and wants them all.
func datagrams(t *testing.T, from, to *netns.Host, addr netip.Addr, n int) {
	t.Helper()
	var in *net.UDPConn
	if err := to.Do(func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := from.Do(func() error {
		out, err := net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer out.Close()
		raw, err := out.SyscallConn()
		if err != nil {
			return err
		}
		if n > 1 {
			var optErr error
			if err := raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) }); err != nil || optErr != nil {
				return errors.Join(err, optErr)
			}
		}
		data := make([]byte, 1000*n)
		for i := range n {
			data[1000*i] = byte(i)
		}
		_, err = out.Write(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	for i := range n {
		got, _, err := in.ReadFromUDP(b)
		if err != nil || got != 1000 || b[0] != byte(i) {
			t.Fatalf("datagram %d of %d: %d bytes, number %d, %v", i, n, got, b[0], err)
		}
	}
}

func TestJumboFramesCross(t *testing.T) { eachWay(t, testJumboFramesCross) }

func testJumboFramesCross(t *testing.T) {
	for _, topo := range segments {
		t.Run(topo.name, func(t *testing.T) {
			s := topo.build(t, 9000)
			_, bAddr := s.address(false)
			s.a.Reaches(bAddr.String())
			if out, err := s.a.Try("ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s", "8972", bAddr.String()); err != nil {
				t.Errorf("9000 bytes unfragmented: %v: %s", err, out)
			}
			s.a.Transfer(s.b, bAddr, 16<<20, 30*time.Second)
		})
	}
}

func TestLargestMTUOfAVethCrosses(t *testing.T) { eachWay(t, testLargestMTUOfAVethCrosses) }

func testLargestMTUOfAVethCrosses(t *testing.T) {
	s := segments[0].build(t, 65535)
	_, bAddr := s.address(false)
	s.a.Reaches(bAddr.String())
	if out, err := s.a.Try("ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s", "65507", bAddr.String()); err != nil {
		t.Errorf("65535 bytes unfragmented: %v: %s", err, out)
	}
	s.a.Transfer(s.b, bAddr, 16<<20, 30*time.Second)
}

// DHCP clients and servers look at raw frames. A kernel leaves the checksum of
// what it sends on a veth or tap to the receiver; that it is unfinished must
// arrive with it, and what is there must be right.
func TestDHCPArrivesWithAChecksumThatIsRightOrMarkedUnfinished(t *testing.T) {
	eachWay(t, testDHCPArrivesWithAChecksumThatIsRightOrMarkedUnfinished)
}

func testDHCPArrivesWithAChecksumThatIsRightOrMarkedUnfinished(t *testing.T) {
	for _, topo := range segments {
		t.Run(topo.name, func(t *testing.T) {
			s := topo.build(t, 1500)
			s.a.Addr(s.aDev, "192.0.2.1/24")
			fd := -1
			if err := s.b.Do(func() (err error) {
				if fd, err = openSocket(s.b.Index(s.bDev), false, nil); err != nil {
					return err
				}
				return start(fd, s.b.Index(s.bDev), unix.ETH_P_ALL)
			}); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			discover := bytes.Repeat([]byte("DHCPDISCOVER"), 25)
			if err := s.a.Do(func() error { return broadcast(s.aDev, discover) }); err != nil {
				t.Fatal(err)
			}
			var got []byte
			netns.Await(t, 10*time.Second, "the broadcast", func() error {
				b := make([]byte, 2000)
				n, errno := sysio.Read(fd, b)
				if errno != 0 || !bytes.Contains(b[:n], discover) {
					return errors.New("nothing")
				}
				got = b[:n]
				return nil
			})
			hdr, data := frame.ReadVnetHdr(got), got[vnetLen:]
			if hdr.Flags&frame.HdrNeedsCsum != 0 {
				finish(hdr, data)
			}
			if want := withChecksums(t, data); !bytes.Equal(data, want) {
				t.Errorf("header %+v\nreceived % x\nwant     % x", hdr, data[:50], want[:50])
			}
		})
	}
}

// broadcast sends data as a DHCP client does that has no address yet.
func broadcast(dev string, data []byte) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), dev))
		})
		return errors.Join(ctlErr, err)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:68")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo(data, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
	return err
}

// finish sums up what hdr says is left to sum up.
func finish(hdr frame.VnetHdr, data []byte) {
	var sum uint32
	b := data[hdr.CsumStart:]
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[hdr.CsumOffset:], ^uint16(sum))
}

// withChecksums builds the frame anew with the checksums it must have.
func withChecksums(t *testing.T, data []byte) []byte {
	t.Helper()
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
	ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ip == nil || udp == nil {
		t.Fatalf("not UDP over IPv4: %v", p)
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	out := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true},
		p.LinkLayer().(*layers.Ethernet), ip, udp, gopacket.Payload(udp.Payload)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
