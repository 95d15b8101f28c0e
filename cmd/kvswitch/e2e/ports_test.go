package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// office is a host with a switch and some computers on it, each a namespace with
// an address on the segment 192.0.2.0/24 and every offload as it comes.
type office struct {
	lab       *netns.Lab
	host      *netns.Host
	kvs       *kvs
	computers []*netns.Host
}

// computerIP is the address of computer n; the host's is 192.0.2.1.
func computerIP(n int) string { return fmt.Sprintf("192.0.2.%d", 100+n) }

const hostIP = "192.0.2.1"

// newOffice runs kvswitch with n computers on ports p0, p1 …, and the host
// interface kvs0.
func newOffice(t *testing.T, n int, args ...string) *office {
	t.Helper()
	lab := netns.New(t)
	o := &office{lab: lab, host: lab.Host("host")}
	var ports []string
	for i := range n {
		c := lab.Host(fmt.Sprint("pc", i))
		port := fmt.Sprint("p", i)
		lab.Cable(o.host, port, c, "eth0")
		c.Addr("eth0", computerIP(i)+"/24")
		o.computers = append(o.computers, c)
		ports = append(ports, port)
		args = append(args, "--port", "netdev:"+port)
	}
	o.kvs = run(t, o.host, args...)
	o.kvs.awaitForwarding(ports...)
	if o.host.Exists("kvs0") {
		o.host.Addr("kvs0", hostIP+"/24")
	}
	return o
}

func TestHostInterfaceHasTheUplinksAddressAndKeepsIt(t *testing.T) {
	lab := netns.New(t)
	host, peer := lab.Host("host"), lab.Host("peer")
	lab.Cable(host, "eth0", peer, "eth0")
	lab.Cable(host, "eth1", peer, "eth1")
	peer.Addr("eth0", computerIP(0)+"/24")
	uplink := host.MAC("eth0")
	k := run(t, host, "--uplink", "eth0", "--port", "netdev:eth1")
	k.awaitForwarding("eth0")
	host.Addr("kvs0", hostIP+"/24")
	peer.Reaches(hostIP)
	if got := host.MAC("kvs0"); got != uplink {
		t.Errorf("host interface has %v, the uplink had %v", got, uplink)
	}
	if id := k.status().BridgeID; id != "8000."+strings.ReplaceAll(uplink.String(), ":", "") {
		t.Errorf("bridge id %s, the uplink's address is %v", id, uplink)
	}
	k.do("port", "del", "eth0")
	if got := host.MAC("kvs0"); got != uplink {
		t.Errorf("without the uplink the host interface has %v, had %v", got, uplink)
	}
}

func TestTheHostsStackIsNotOnThePorts(t *testing.T) {
	o := newOffice(t, 2, "--no-host")
	pc := o.computers[0]
	// An address on a port's own device: without the switch the host would
	// answer for it.
	o.host.Addr("p0", "192.0.2.77/24")
	station := pc.Station("eth0")
	pc.Reaches(computerIP(1))
	if err := pc.Ping("192.0.2.77"); err == nil {
		t.Error("the host answered a ping on a port's device")
	}
	o.host.Sysctl("net/ipv4/ip_forward", "1")
	if err := pc.Ping("192.0.2.77"); err == nil {
		t.Error("the host answered a ping on a port's device when it forwards IP")
	}
	for {
		f, ok := station.Recv(0)
		if !ok {
			break
		}
		if src := frame.MAC(f[6:12]); src == o.host.MAC("p0") && !isBPDU(f) {
			t.Errorf("the host's stack sent by a port's device: %s", describe(f))
		}
	}
	o.kvs.stop()
	pc.Reaches("192.0.2.77") // the shield goes with the switch
}

func TestAPortFollowsItsDevice(t *testing.T) {
	o := newOffice(t, 3)
	pc, other := o.computers[0], o.computers[1]
	works := func(what string) {
		t.Helper()
		netns.Await(t, 15*time.Second, what+": traffic passes", func() error { return pc.Ping(computerIP(1)) })
		if err := other.Ping(computerIP(2)); err != nil {
			t.Errorf("%s: other ports don't reach each other: %v", what, err)
		}
	}
	down := func(what string) {
		t.Helper()
		netns.Await(t, 10*time.Second, what+": the port is down", func() error {
			for _, p := range o.kvs.status().Ports {
				if p.Name == "p0" && p.Link == "up" {
					return fmt.Errorf("it is up")
				}
			}
			return nil
		})
		if err := other.Ping(computerIP(2)); err != nil {
			t.Errorf("%s: other ports don't reach each other: %v", what, err)
		}
	}
	works("at first")
	o.host.Down("p0")
	down("set down")
	o.host.Up("p0")
	works("set up")
	pc.Down("eth0")
	down("no carrier")
	pc.Up("eth0")
	works("carrier")

	o.rename("p0", "renamed")
	works("renamed")
	o.rename("renamed", "p0")
	works("renamed back")

	o.host.Delete("p0")
	down("deleted")
	o.lab.Cable(o.host, "p0", pc, "eth0")
	pc.Addr("eth0", computerIP(0)+"/24")
	works("made anew")
}

// rename renames a device of the host, which since Linux 6.2 needs not be down
// for it.
func (o *office) rename(from, to string) { rename(o.kvs.t, o.host, from, to) }

func rename(t *testing.T, host *netns.Host, from, to string) {
	t.Helper()
	link, err := host.Netlink().LinkByName(from)
	if err == nil {
		err = host.Netlink().LinkSetName(link, to)
	}
	if err != nil {
		host.Down(from)
		if err = host.Netlink().LinkSetName(link, to); err == nil {
			host.Up(to)
		}
	}
	if err != nil {
		t.Fatalf("rename %s: %v", from, err)
	}
}

func TestFramesBeyondTheEgressMTUAreDroppedByName(t *testing.T) {
	inKernelModes(t, testFramesBeyondTheEgressMTUAreDroppedByName)
}

func testFramesBeyondTheEgressMTUAreDroppedByName(t *testing.T) {
	b := newBench(t, 3)
	for _, p := range []string{"p0", "p1"} {
		b.host.MTU(p, 9000)
		b.far.MTU(p, 9000)
	}
	b.kvs.awaitPort("p1", "has the new MTU", func(p portDoc) bool { return p.MTU == 9000 })
	b.kvs.awaitPort("p0", "has the new MTU", func(p portDoc) bool { return p.MTU == 9000 })
	big := ether(frame.Broadcast, mac(1), strings.Repeat("j", 9000))
	b.expect("9000 bytes to a port that takes them", 0, big, 1)
	if n := b.drops(2, "egress-mtu"); n != 1 {
		t.Errorf("the port with MTU 1500 counted %d frames as egress-mtu, want 1", n)
	}
	b.expect("1500 bytes with a tag", 0, ether(frame.Broadcast, mac(1), strings.Repeat("j", 1500), cTag(5)), 1, 2)
	b.expect("1501 bytes", 0, ether(frame.Broadcast, mac(1), strings.Repeat("j", 1501)), 1)
}

func TestWorkersShareThePorts(t *testing.T) {
	o := newOffice(t, 4, "--workers", "2")
	if n := o.kvs.status().Workers; n != 2 {
		t.Errorf("%d workers, want 2", n)
	}
	for i, pc := range o.computers {
		pc.Reaches(hostIP)
		for j := range o.computers {
			if j != i {
				pc.Reaches(computerIP(j))
			}
		}
	}
}

func TestNothingIsLeftOnTheDevices(t *testing.T) {
	o := newOffice(t, 3)
	o.kvs.do("port", "add", "tap:vm1")
	before := o.state()
	files, err := o.kvs.proc.Files()
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		o.kvs.do("port", "del", "p2")
		o.kvs.do("port", "add", "netdev:p2")
		o.kvs.do("port", "add", "tap:vm2,queues=2")
		o.kvs.do("port", "del", "vm2")
		o.kvs.refuses(1, []string{"nosuch"}, "port", "add", "netdev:nosuch")
	}
	// The connection of the last verb may not be closed yet, before and after.
	netns.Await(t, startPatience, "every descriptor is closed", func() error {
		now, err := o.kvs.proc.Files()
		if err == nil && now > files {
			err = fmt.Errorf("%d descriptors open after ports came and went, %d before", now, files)
		}
		return err
	})
	if now := o.state(); now != before {
		t.Errorf("devices before:\n%s\nand after:\n%s", before, now)
	}
	o.kvs.stop()
	if links := o.host.Links(); strings.Join(links, " ") != "p0 p1 p2" {
		t.Errorf("devices left after the switch stopped: %v", links)
	}
	for _, p := range []string{"p0", "p1", "p2"} {
		link, err := o.host.Netlink().LinkByName(p)
		if err != nil {
			t.Fatal(err)
		}
		if a := link.Attrs(); a.Promisc != 0 || a.Allmulti != 0 || a.Xdp != nil && a.Xdp.Attached {
			t.Errorf("%s is left promiscuous (%d), all-multicast (%d) or with a program", p, a.Promisc, a.Allmulti)
		}
		if out := o.host.Run("tc", "filter", "show", "dev", p, "ingress"); out != "" {
			t.Errorf("%s has a filter: %s", p, out)
		}
		qdiscs, err := o.host.Netlink().QdiscList(link)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range qdiscs {
			if _, ingress := q.(*netlink.Ingress); ingress || q.Type() == "clsact" {
				t.Errorf("%s has a %s qdisc", p, q.Type())
			}
		}
	}
}

// state is what there is to see of the host's devices, without counters.
func (o *office) state() string {
	var s strings.Builder
	for _, name := range o.host.Links() {
		link, err := o.host.Netlink().LinkByName(name)
		if err != nil {
			o.kvs.t.Fatal(err)
		}
		a := link.Attrs()
		fmt.Fprintf(&s, "%s mtu %d promiscuous %d %v\n", name, a.MTU, a.Promisc, a.Flags)
	}
	return s.String()
}
