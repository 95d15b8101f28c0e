package vhostnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/port/tap"
)

// needDevice is for tests that run in the guest of TestOnAHostWithVHostNet, and
// here if this machine has the device.
func needDevice(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(Path); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no vhost_net here: TestOnAHostWithVHostNet runs this test where there is one")
	}
}

const patience = 20 * time.Second

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// openTap makes a tap as vhost_net wants it, up, with IPv6 off.
func openTap(t *testing.T) (fd int, link netlink.Link) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq("vt%d")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerLen); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		t.Fatal(err)
	}
	return fd, bringUp(t, ifr.Name())
}

func bringUp(t *testing.T, name string) netlink.Link {
	t.Helper()
	os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// hostSocket is the host's stack: a raw socket on the tap's netdev, with
// virtio-net headers.
func hostSocket(t *testing.T, link netlink.Link) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, o := range []struct{ level, opt, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8 << 20},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: link.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func testFrame(n int, tag byte) []byte {
	f := bytes.Repeat([]byte{tag}, n)
	copy(f, []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

func startRings(t *testing.T) (*Rings, netlink.Link) {
	t.Helper()
	needDevice(t)
	fd, link := openTap(t)
	r, err := NewRings(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, link
}

func flatten(f *frame.Frame) []byte {
	b := bytes.Clone(f.Data)
	for _, r := range f.Rest {
		b = append(b, r...)
	}
	return b
}

// receive takes n frames, sleeping on the descriptor alone.
func receive(t *testing.T, r *Rings, n int) (got [][]byte) {
	t.Helper()
	var b [frame.BatchSize]frame.Frame
	for deadline := time.Now().Add(patience); len(got) < n; {
		if !r.Arm() {
			p := []unix.PollFd{{Fd: int32(r.FD()), Events: unix.POLLIN}}
			unix.Poll(p, 1000)
		}
		for i := range b[:r.Rx(b[:])] {
			got = append(got, flatten(&b[i]))
		}
		r.Release()
		if time.Now().After(deadline) {
			t.Fatalf("received %d frames, want %d (%v)", len(got), n, r.rx.failed)
		}
	}
	return got
}

func TestRingsCarryFramesOfEverySizeBothWays(t *testing.T) {
	r, link := startRings(t)
	host := hostSocket(t, link)
	if err := netlink.LinkSetMTU(link, 65521); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<17)
	// Several times round both rings.
	for round := range 40 {
		for _, n := range []int{14, 60, 1514, bufferLen - headerLen, bufferLen - headerLen + 1, 9014, 65535} {
			f := testFrame(n, byte(round))
			if n >= 60 { // the host's stack pads nothing, but drops runts
				if _, err := unix.Write(host, append(make([]byte, frame.VnetHdrLen), f...)); err != nil {
					t.Fatalf("send %d bytes: %v", n, err)
				}
				if got := receive(t, r, 1)[0]; !bytes.Equal(got, f) {
					t.Fatalf("%d bytes arrived as %d", n, len(got))
				}
			}
			out := frame.Out{Frame: &frame.Frame{Data: f[:min(n, 14)], Rest: [][]byte{f[min(n, 14):]}}}
			await(t, "room", func() bool { return r.Send([]frame.Out{out}) == 1 })
			await(t, "the frame", func() bool {
				k, err := unix.Read(host, buf)
				return err == nil && bytes.Equal(buf[frame.VnetHdrLen:k], f)
			})
		}
	}
}

func TestRingsCarryOffloads(t *testing.T) {
	r, link := startRings(t)
	host := hostSocket(t, link)
	// A TCP segment of 3000 bytes that is to be cut at 1448, over IPv4.
	f := testFrame(14+20+20+3000, 7)
	copy(f[12:], []byte{0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	f[14+20+12] = 5 << 4
	h := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	wire := make([]byte, frame.VnetHdrLen, 4000)
	h.Put(wire)
	if _, err := unix.Write(host, append(wire, f...)); err != nil {
		t.Fatal(err)
	}
	var b [1]frame.Frame
	await(t, "the frame", func() bool { return r.Rx(b[:]) == 1 })
	if got := b[0].Hdr; got.GSOType != h.GSOType || got.GSOSize != h.GSOSize || got.Flags != h.Flags || got.CsumStart != h.CsumStart || got.CsumOffset != h.CsumOffset {
		t.Errorf("arrived with header %+v, want %+v", got, h)
	}
	if r.Send([]frame.Out{{Frame: &b[0]}}) != 1 {
		t.Fatal("no room")
	}
	r.Release()
	buf := make([]byte, 1<<17)
	await(t, "the frame to come back", func() bool {
		n, err := unix.Read(host, buf)
		if err != nil {
			return false
		}
		got := frame.ReadVnetHdr(buf)
		return n == frame.VnetHdrLen+len(f) && got.GSOType == h.GSOType && got.GSOSize == h.GSOSize
	})
}

func TestRingsFullRingDropsNothingItTook(t *testing.T) {
	r, link := startRings(t)
	host := hostSocket(t, link)
	batch := make([]frame.Out, frame.BatchSize)
	sent, buf := uint32(0), make([]byte, 4096)
	for next := uint32(0); sent < 20000; {
		for i := range batch {
			f := testFrame(60, 0)
			binary.BigEndian.PutUint32(f[14:], sent+uint32(i))
			batch[i] = frame.Out{Frame: &frame.Frame{Data: f}}
		}
		sent += uint32(r.Send(batch))
		await(t, "what was sent", func() bool {
			for {
				n, err := unix.Read(host, buf)
				if err != nil || n == 0 {
					return next == sent
				}
				if got := binary.BigEndian.Uint32(buf[frame.VnetHdrLen+14:]); got != next {
					t.Fatalf("frame %d, want %d", got, next)
				}
				next++
			}
		})
	}
}

func TestRingsCloseLeavesNothing(t *testing.T) {
	needDevice(t)
	fd, _ := openTap(t)
	before := descriptors(t)
	for range 3 {
		r, err := NewRings(fd)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	// What is not vhost_net, and what is no tap.
	if _, err := newRings("/dev/null", fd); err == nil {
		t.Error("/dev/null was taken for vhost_net")
	}
	if _, err := NewRings(before + 100); err == nil {
		t.Error("a closed descriptor was taken for a tap")
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func TestRingsHotPathDoesNotAllocate(t *testing.T) {
	r, link := startRings(t)
	host := hostSocket(t, link)
	wire := append(make([]byte, frame.VnetHdrLen), testFrame(200, 1)...)
	out := []frame.Out{{Frame: &frame.Frame{Data: testFrame(9000, 1)}}, {Frame: &frame.Frame{Data: testFrame(60, 1)}}}
	var b [frame.BatchSize]frame.Frame
	if n := testing.AllocsPerRun(100, func() {
		unix.Write(host, wire)
		for r.Rx(b[:]) == 0 {
		}
		r.Release()
		r.Arm()
		r.Send(out)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestRingsAgainstPlainTap prints what decides whether the rings are worth
// their code: frames per second through them and through reads and writes, in
// alternation. It judges nothing.
func TestRingsAgainstPlainTap(t *testing.T) {
	if os.Getenv(compare) == "" {
		t.Skip("takes half a minute; set " + compare)
	}
	needDevice(t)
	w, err := link.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	type subject struct {
		rx   frame.Queue
		tx   func([]frame.Out) int
		host int
		link netlink.Link
	}
	fd, link := openTap(t)
	r, err := NewRings(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rings := subject{r, r.Send, hostSocket(t, link), link}
	p, err := tap.Open(w, "plain0", tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	link = bringUp(t, "plain0")
	plain := subject{p.Queues()[0], func(o []frame.Out) int { return p.Tx(0, o) }, hostSocket(t, link), link}

	const span = 500 * time.Millisecond
	// toSwitch counts what arrives while another thread floods.
	toSwitch := func(s subject, size int) float64 {
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			msgs := make([]sysio.Mmsghdr, 64)
			iov := []unix.Iovec{sysio.Piece(append(make([]byte, frame.VnetHdrLen), testFrame(size, 1)...))}
			for i := range msgs {
				msgs[i].SetIovecs(iov)
			}
			for !stop.Load() {
				sysio.Send(s.host, msgs)
			}
		}()
		var b [frame.BatchSize]frame.Frame
		n, start := 0, time.Now()
		for time.Since(start) < span {
			for range 16 {
				n += s.rx.Rx(b[:])
				s.rx.Release()
			}
		}
		rate := float64(n) / time.Since(start).Seconds()
		stop.Store(true)
		<-done
		for range 100 { // leave nothing for the next
			s.rx.Rx(b[:])
			s.rx.Release()
		}
		return rate
	}
	// toHost counts what the netdev received.
	toHost := func(s subject, size int) float64 {
		received := func() uint64 {
			l, err := netlink.LinkByIndex(s.link.Attrs().Index)
			if err != nil {
				t.Fatal(err)
			}
			return l.Attrs().Statistics.RxPackets
		}
		out := make([]frame.Out, frame.BatchSize)
		for i := range out {
			out[i] = frame.Out{Frame: &frame.Frame{Data: testFrame(size, 1)}}
		}
		before, start := received(), time.Now()
		for time.Since(start) < span {
			s.tx(out)
		}
		return float64(received()-before) / time.Since(start).Seconds()
	}
	for _, m := range []struct {
		name string
		rate func(subject, int) float64
	}{{"host to switch", toSwitch}, {"switch to host", toHost}} {
		for _, size := range []int{64, 1514} {
			var a, b []float64
			for range 5 {
				a = append(a, m.rate(rings, size))
				b = append(b, m.rate(plain, size))
			}
			slices.Sort(a)
			slices.Sort(b)
			fmt.Printf("%s, %d bytes: rings %.0f frames/s (%.0f to %.0f), plain tap %.0f (%.0f to %.0f), ratio %.2f\n",
				m.name, size, a[2], a[0], a[4], b[2], b[0], b[4], a[2]/b[2])
		}
	}
}

// compare names the variable that asks for the comparison.
const compare = "KVSWITCH_COMPARE_VHOST_NET"
