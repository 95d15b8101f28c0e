package netdev

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

const (
	etherEAPOL = 0x888e
	etherLLDP  = 0x88cc
	etherLACP  = 0x8809
	etherIPv4  = 0x0800
)

// reserved is 01:80:c2:00:00:00 with another last octet.
func reserved(last byte) frame.MAC { return frame.MAC{0x01, 0x80, 0xc2, 0, 0, last} }

// hostSocket opens a socket as wpa_supplicant and lldpd do, bound to one EtherType.
func hostSocket(t *testing.T, h *netns.Host, name string, etherType int) *packet.Conn {
	t.Helper()
	var c *packet.Conn
	if err := h.Do(func() (err error) {
		c, err = packet.Listen(&net.Interface{Index: h.Index(name)}, packet.Raw, etherType, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// heard are the payloads of the frames that a socket was given before the one that
// says "last".
func heard(t *testing.T, c *packet.Conn) (list []string) {
	t.Helper()
	b := make([]byte, 2048)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("%v, after %q", err, list)
		}
		payload := string(bytes.TrimRight(b[14:n], "\x00"))
		if payload == "last" {
			return list
		}
		list = append(list, payload)
	}
}

func TestWhatTheSwitchBesideSaysToTheHostReachesItOnAnUplinkOnly(t *testing.T) {
	eachWay(t, testWhatTheSwitchBesideSaysToTheHost)
}

func testWhatTheSwitchBesideSaysToTheHost(t *testing.T) {
	sw, far := cable(t)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	sockets := map[uint16]*packet.Conn{}
	for _, etherType := range []uint16{etherEAPOL, etherLLDP, etherLACP, etherIPv4} {
		sockets[etherType] = hostSocket(t, sw, "port", int(etherType))
	}
	station, own := far.Station("eth0"), sw.MAC("port")
	send := func(dst frame.MAC, tag frame.Tag, etherType uint16, payload string) {
		station.Send(mem.Build(dst, mem.MAC(1), tag, etherType, []byte(payload)))
	}
	for _, uplink := range []bool{false, true, false} {
		p.SetUplink(uplink)
		for _, f := range []struct {
			dst       frame.MAC
			tag       frame.Tag
			etherType uint16
			payload   string
		}{
			{reserved(3), 0, etherEAPOL, "to the group"},
			{own, 0, etherEAPOL, "to this host"},
			{mem.MAC(9), 0, etherEAPOL, "to a guest"},
			{frame.Broadcast, 0, etherEAPOL, "to everybody"},
			{reserved(0xe), 0, etherLLDP, "to the neighbour"},
			{reserved(0xe), frame.MakeTag(frame.EtherTypeVLAN, 0, 5), etherLLDP, "tagged"},
			{frame.Broadcast, 0, etherLLDP, "to everybody"},
			{reserved(2), 0, etherLACP, "to the partner"},
			{reserved(0xe), 0, etherIPv4, "IP past the switch"},
		} {
			send(f.dst, f.tag, f.etherType, f.payload)
		}
		receive(t, p, 9) // the switch sees all of them, and nobody changes the policy before
	}
	p.SetUplink(true)
	for etherType, want := range map[uint16][]string{
		etherEAPOL: {"to the group", "to this host"},
		etherLLDP:  {"to the neighbour"},
		etherLACP:  {"to the partner"},
	} {
		send(reserved(0xf), 0, etherType, "last")
		if got := heard(t, sockets[etherType]); !slices.Equal(got, want) {
			t.Errorf("EtherType %#x: the host heard %q, want %q", etherType, got, want)
		}
	}
	if err := sockets[etherIPv4].SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := sockets[etherIPv4].ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes of IP reached the host's stack past the switch", n)
	}
}
