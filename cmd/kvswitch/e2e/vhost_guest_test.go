package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// vhostNet attaches a guest to a vhost-user socket with n queue pairs, as
// QEMU's manual says. features are further properties of the device, such as
// "csum=off". vectors=0, no MSI-X, is for QEMU 7.2 alone, which without KVM
// dereferences nil when a vhost device with MSI-X starts, whatever the back end.
func vhostNet(socket, mac string, n int, features ...string) []string {
	device := fmt.Sprintf("virtio-net-pci,netdev=n0,mac=%s,mq=on,vectors=0", mac)
	return []string{
		"-chardev", "socket,id=c0,path=" + socket,
		"-netdev", fmt.Sprintf("vhost-user,id=n0,chardev=c0,queues=%d", n),
		"-device", strings.Join(append([]string{device}, features...), ","),
	}
}

// allRingsCarry checks that frames passed through each of a port's rings.
func allRingsCarry(t *testing.T, k *kvs, port string, rings int) {
	t.Helper()
	var p struct {
		Detail struct {
			Rings []struct {
				Index  int    `json:"index"`
				Kind   string `json:"kind"`
				Frames uint64 `json:"frames"`
			} `json:"rings"`
		} `json:"detail"`
	}
	k.decode(&p, "port", "show", port, "--json")
	if n := len(p.Detail.Rings); n != rings {
		t.Errorf("port %s: %d rings, want %d", port, n, rings)
	}
	for _, r := range p.Detail.Rings {
		if r.Frames == 0 {
			t.Errorf("port %s: no frame passed through ring %d (%s): %+v", port, r.Index, r.Kind, p.Detail.Rings)
		}
	}
}

// Guests on vhost-user ports, with one queue and two, get addresses by DHCP from
// the host interface, and everything passes with the offloads that guests have
// by default: super-frames from ring to ring, and unfinished checksums.
func TestVhostUserGuests(t *testing.T) {
	t.Parallel()
	h := netns.New(t).Host("h")
	dir := netns.Dir(t)
	sock := func(n int) string { return filepath.Join(dir, fmt.Sprintf("vm%d.sock", n)) }
	k := run(t, h, "--port", "vhost-user:vm1,path="+sock(1), "--port", "vhost-user:vm2,queues=2,path="+sock(2))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(k.do("stats"), k.do("port", "show", "vm1"), k.do("port", "show", "vm2"))
		}
	})
	h.Addr("kvs0", lanAddr+"/24")
	serveDHCP(h)
	a := vm.Launch(t, vm.Options{Name: "vm1", Host: h, Memfd: true, KeepOnReset: true, Net: vhostNet(sock(1), "52:54:00:00:00:01", 1)})
	b := vm.Launch(t, vm.Options{Name: "vm2", Host: h, Memfd: true, SMP: 2, Net: vhostNet(sock(2), "52:54:00:00:00:02", 2)})
	a.AwaitBoot()
	b.AwaitBoot()
	aAddr, bAddr := a.Lease("eth0"), b.Lease("eth0")
	converse(t, a, aAddr.String(), b, bAddr.String())
	converse(t, a, aAddr.String(), hostStation{h}, lanAddr)
	// Many flows, each of a connection that b refuses: they use both its queues.
	a.Run("for i in $(seq 64); do busybox nc -w 1 " + bAddr.String() + " $((3000+i)) </dev/null; done; true")
	allRingsCarry(t, k, "vm2", 4)
	if out := k.do("port", "show", "vm2"); !strings.Contains(out, " mrg_rxbuf ") || !strings.Contains(out, " mq ") {
		t.Errorf("port show does not name the negotiated features:\n%s", out)
	}
	for _, port := range []string{"vm1", "vm2"} {
		for reason, n := range k.port(port).Drops {
			if strings.HasPrefix(reason, "rx-") || strings.HasPrefix(reason, "tx-") || reason == "egress-offload" {
				t.Errorf("port %s: %s = %d", port, reason, n)
			}
		}
	}

	t.Run("driver unbind and bind", func(t *testing.T) {
		a.Run("d=$(basename $(readlink -f /sys/class/net/eth0/device)); echo $d >/sys/bus/virtio/drivers/virtio_net/unbind; echo $d >/sys/bus/virtio/drivers/virtio_net/bind")
		if got := a.Lease("eth0"); got != aAddr {
			t.Logf("address is %v now, was %v", got, aAddr)
			aAddr = got
		}
		b.Run("ping -c 3 -W 5 " + aAddr.String())
	})
	t.Run("guest reboots", func(t *testing.T) {
		a.Reboot()
		aAddr = a.Lease("eth0")
		b.Run("ping -c 3 -W 5 " + aAddr.String())
		sendFile(t, b, a, aAddr.String())
	})
	t.Run("QEMU is killed", func(t *testing.T) {
		a.Proc().Kill()
		k.awaitPort("vm1", "goes down", func(p portDoc) bool { return p.Link == "down" })
		a = vm.Start(t, vm.Options{Name: "vm1-again", Host: h, Memfd: true, Net: vhostNet(sock(1), "52:54:00:00:00:01", 1)})
		aAddr = a.Lease("eth0")
		b.Run("ping -c 3 -W 5 " + aAddr.String())
	})
}

// A switch that is killed and started again under a running guest: QEMU listens
// and the switch connects, so that the guest notices no more than a pause.
func TestVhostUserSwitchRestartsUnderARunningGuest(t *testing.T) {
	t.Parallel()
	h := netns.New(t).Host("h")
	dir := netns.Dir(t)
	sock := filepath.Join(dir, "vm1.sock")
	args := []string{"--mac", "52:54:00:00:00:ff", "--port", "vhost-user:vm1,mode=client,reconnect=100ms,path=" + sock}
	net := vhostNet(sock, "52:54:00:00:00:01", 1)
	net[1] += ",server=on,wait=off,reconnect=0"
	net[1] = strings.TrimSuffix(net[1], ",reconnect=0")
	g := vm.Launch(t, vm.Options{Name: "vm1", Host: h, Memfd: true, Net: net})
	k := launch(t, h, netns.Dir(t), args...)
	k.awaitReady()
	h.Addr("kvs0", "192.0.2.1/24")
	g.AwaitBoot()
	g.Run("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ping -c 2 -W 5 192.0.2.1")
	k.proc.Kill()
	start := time.Now()
	k = launch(t, h, netns.Dir(t), args...)
	k.awaitReady()
	h.Addr("kvs0", "192.0.2.1/24")
	netns.Await(t, 20*time.Second, "the guest is heard again", func() error {
		_, err := g.Try("ping -c 1 -W 1 192.0.2.1")
		return err
	})
	t.Logf("SIGKILL to ping: %v", time.Since(start))
	g.Run("ping -c 3 -W 5 192.0.2.1")
}

// The same where the switch listens: QEMU connects, and does so again.
func TestVhostUserGuestReconnects(t *testing.T) {
	t.Parallel()
	h := netns.New(t).Host("h")
	sock := filepath.Join(netns.Dir(t), "vm1.sock")
	args := []string{"--mac", "52:54:00:00:00:ff", "--port", "vhost-user:vm1,path=" + sock}
	k := launch(t, h, netns.Dir(t), args...)
	k.awaitReady()
	h.Addr("kvs0", "192.0.2.1/24")
	net := vhostNet(sock, "52:54:00:00:00:01", 1)
	net[1] += ",reconnect=1" // seconds between two attempts
	g := vm.Launch(t, vm.Options{Name: "vm1", Host: h, Memfd: true, Net: net})
	g.AwaitBoot()
	g.Run("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ping -c 2 -W 5 192.0.2.1")
	k.proc.Kill()
	start := time.Now()
	k = launch(t, h, netns.Dir(t), args...)
	k.awaitReady()
	h.Addr("kvs0", "192.0.2.1/24")
	netns.Await(t, 20*time.Second, "the guest is heard again", func() error {
		_, err := g.Try("ping -c 1 -W 1 192.0.2.1")
		return err
	})
	t.Logf("SIGKILL to ping: %v, with a second between QEMU's attempts", time.Since(start).Round(time.Millisecond))
	g.Run("ping -c 3 -W 5 192.0.2.1")
	sendFile(t, g, hostStation{h}, "192.0.2.1")
}

// A guest's rings at one end and a netdev at the other: what the guest leaves
// unfinished goes to the kernel as it is, and back.
func TestVhostUserGuestAndAVethPair(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	h, far := lab.Host("h"), lab.Host("far")
	lab.Cable(h, "p1", far, "eth0")
	sock := filepath.Join(netns.Dir(t), "vm1.sock")
	k := run(t, h, "--no-host", "--port", "netdev:p1", "--port", "vhost-user:vm1,path="+sock)
	far.Addr("eth0", "192.0.2.1/24")
	g := vm.Launch(t, vm.Options{Name: "vm1", Host: h, Memfd: true, Net: vhostNet(sock, "52:54:00:00:00:01", 1)})
	g.AwaitBoot()
	k.awaitForwarding("p1", "vm1")
	g.Run("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up")
	converse(t, g, "192.0.2.2", hostStation{far}, "192.0.2.1")
	for _, port := range []string{"p1", "vm1"} {
		for reason, n := range k.port(port).Drops {
			if strings.HasPrefix(reason, "rx-") || strings.HasPrefix(reason, "tx-") || reason == "egress-offload" {
				t.Errorf("port %s: %s = %d", port, reason, n)
			}
		}
	}
}

// A guest that lacks one offload or another talks to one that has them all:
// what one may leave unfinished, the switch finishes for the other.
func TestVhostUserGuestsWithoutAnOffload(t *testing.T) {
	t.Parallel()
	for _, lacks := range []string{
		"csum=off", // and with it all segmentation by the host
		"guest_csum=off",
		"host_tso4=off,host_tso6=off",
		"guest_tso4=off,guest_tso6=off",
		"mrg_rxbuf=off",
		"indirect_desc=off",
	} {
		t.Run(lacks, func(t *testing.T) {
			t.Parallel()
			h := netns.New(t).Host("h")
			dir := netns.Dir(t)
			sock := func(n int) string { return filepath.Join(dir, fmt.Sprintf("vm%d.sock", n)) }
			k := run(t, h, "--port", "vhost-user:vm1,path="+sock(1), "--port", "vhost-user:vm2,path="+sock(2))
			h.Addr("kvs0", lanAddr+"/24")
			a := vm.Launch(t, vm.Options{Name: "vm1", Host: h, Memfd: true, Net: vhostNet(sock(1), "52:54:00:00:00:01", 1, lacks)})
			b := vm.Launch(t, vm.Options{Name: "vm2", Host: h, Memfd: true, Net: vhostNet(sock(2), "52:54:00:00:00:02", 1)})
			a.AwaitBoot()
			b.AwaitBoot()
			a.Run("ip addr add 192.0.2.11/24 dev eth0; ip link set eth0 up")
			b.Run("ip addr add 192.0.2.12/24 dev eth0; ip link set eth0 up")
			converse(t, a, "192.0.2.11", b, "192.0.2.12")
			converse(t, a, "192.0.2.11", hostStation{h}, lanAddr)
			feature, _, _ := strings.Cut(lacks, "=")
			features := k.do("port", "show", "vm1")
			features = features[strings.Index(features, "\nfeatures")+1:]
			features, _, _ = strings.Cut(features, "\n")
			if strings.Contains(features+" ", " "+feature+" ") {
				t.Errorf("vm1 negotiated %s: %s", feature, features)
			}
			for _, port := range []string{"vm1", "vm2"} {
				if drops := k.port(port).Drops; drops["egress-offload"] != 0 {
					t.Errorf("port %s: drops %v", port, drops)
				}
			}
		})
	}
}
