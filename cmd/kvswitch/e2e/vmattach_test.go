package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// station is a machine on the segment: a guest, or the host itself.
type station interface {
	// Try runs a shell command; Run must succeed.
	Try(command string) (string, error)
	Run(command string) string
}

// hostStation runs shell commands on a host, as a guest does.
type hostStation struct{ *netns.Host }

func (h hostStation) Try(command string) (string, error) { return h.Host.Try("sh", "-c", command) }
func (h hostStation) Run(command string) string          { return h.Host.Run("sh", "-c", command) }

// transferred is how many bytes each transfer moves: enough for windows to open
// and for segmentation offload to be used, little enough for emulated guests.
const transferred = 1 << 20

// converse checks that two stations reach each other, by ping and by TCP both
// ways, with the bytes as they were sent.
func converse(t *testing.T, a station, addrA string, b station, addrB string) {
	t.Helper()
	a.Run("ping -c 1 -W 5 " + addrB)
	b.Run("ping -c 1 -W 5 " + addrA)
	sendFile(t, a, b, addrB)
	sendFile(t, b, a, addrA)
}

// sendFile moves a file over TCP.
func sendFile(t *testing.T, from, to station, addr string) {
	t.Helper()
	dir := netns.Dir(t) // a name of our own, there and in guests
	for _, s := range []station{from, to} {
		s.Run("mkdir -p " + dir)
		defer s.Run("rm -rf " + dir)
	}
	// Standard input never ends: nc would close its half of the connection, and
	// the other nc takes that for the end of all.
	to.Run(fmt.Sprintf("mkfifo %s/never && (busybox nc -l -p 5001 <>%[1]s/never >%[1]s/got 2>/dev/null &)", dir))
	sent := from.Run(fmt.Sprintf(`head -c %d /dev/urandom >%s/data && sha256sum <%[2]s/data &&
		for i in 1 2 3 4 5 6 7 8 9; do busybox nc %s 5001 <%[2]s/data && exit 0; sleep 0.2; done 2>/dev/null; exit 1`, transferred, dir, addr))
	netns.Await(t, startPatience, "the file to arrive", func() error {
		if got := to.Run(fmt.Sprintf("sha256sum <%s/got", dir)); got != sent {
			return fmt.Errorf("SHA-256 %s, sent %s; %s bytes of %d", got, sent, to.Run(fmt.Sprintf("wc -c <%s/got", dir)), transferred)
		}
		return nil
	})
}

// guestLAN is a switch with a host interface, on which a DHCP server answers.
type guestLAN struct {
	*kvs
	lab  *netns.Lab
	bin  string // directory of the program and of the names that it is called by
	acl  string
	self hostStation
}

const lanAddr = "192.0.2.1"

func newGuestLAN(t *testing.T, args ...string) *guestLAN {
	t.Helper()
	lab := netns.New(t)
	host := lab.Host("host")
	l := &guestLAN{lab: lab, bin: netns.Dir(t), self: hostStation{host}}
	l.acl = filepath.Join(l.bin, "bridge.conf")
	t.Setenv("KVSWITCH_BRIDGE_CONF", l.acl)
	l.allow("allow kvs0")
	l.kvs = run(t, host, args...)
	t.Setenv("KVSWITCH_RUN_DIR", l.dir)
	l.install(t)
	host.Addr("kvs0", lanAddr+"/24")
	serveDHCP(host)
	return l
}

// install makes a copy of the programs that ordinary users can run, too.
func (l *guestLAN) install(t *testing.T) {
	t.Helper()
	for _, name := range []string{"kvswitch", "kvswitch-bridge-helper"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(program), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.bin, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, verb := range []string{"ifup", "ifdown"} {
		if err := os.Symlink("kvswitch", filepath.Join(l.bin, "kvswitch-"+verb)); err != nil {
			t.Fatal(err)
		}
	}
}

// serveDHCP gives out addresses on a host's kvs0, which has lanAddr.
func serveDHCP(host *netns.Host) {
	host.Start(exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--no-ping",
		"--interface=kvs0", "--bind-interfaces", "--dhcp-authoritative", "--leasefile-ro", "--pid-file=",
		"--dhcp-range=192.0.2.100,192.0.2.250,1h"))
}

// allow writes the bridge helper's access control list.
func (l *guestLAN) allow(rules string) {
	if err := os.WriteFile(l.acl, []byte(rules+"\n"), 0o644); err != nil {
		panic(err)
	}
}

// helper is QEMU's helper=, run by a user without any privilege.
func (l *guestLAN) helper() string {
	return "setpriv --reuid=65534 --regid=65534 --clear-groups " + filepath.Join(l.bin, "kvswitch-bridge-helper")
}

// guestCard is a guest's network card, under test while its link is up.
type guestCard struct {
	guest *vm.Guest
	name  string
	addr  string
}

// lease brings a card up and gets it an address by DHCP.
func lease(g *vm.Guest, name string) *guestCard {
	g.Run("ip link set " + name + " up")
	return &guestCard{g, name, g.Lease(name).String()}
}

// release takes the card off the segment, so that the guest's next one is used.
func (c *guestCard) release() {
	c.guest.Run(fmt.Sprintf("ip addr flush dev %s; ip link set %[1]s down", c.name))
}

// footprint is what attachments must not leave behind.
type footprint struct{ files, links int }

func (l *guestLAN) footprint() footprint {
	l.t.Helper()
	files, err := l.proc.Files()
	if err != nil {
		l.t.Fatal(err)
	}
	return footprint{files, len(l.host.Links())}
}

// awaitFootprint waits until the switch holds no more than it did.
func (l *guestLAN) awaitFootprint(want footprint) {
	l.t.Helper()
	netns.Await(l.t, startPatience, "everything to be undone", func() error {
		if got := l.footprint(); got.files > want.files || got.links > want.links {
			return fmt.Errorf("%+v, before it was %+v; ports %+v", got, want, l.portNames())
		}
		return nil
	})
}

func (l *guestLAN) portNames() (names []string) {
	l.t.Helper()
	for _, p := range l.status().Ports {
		names = append(names, p.Name)
	}
	return names
}

// vmDoc is an element of vm list --json.
type vmDoc struct {
	Name        string   `json:"name"`
	UUID        string   `json:"uuid"`
	QMP         string   `json:"qmp"`
	ID          string   `json:"id"`
	Port        string   `json:"port"`
	MAC         string   `json:"mac"`
	Queues      int      `json:"queues"`
	VHost       bool     `json:"vhost"`
	VHostReason string   `json:"vhost_reason"`
	GuestMACs   []string `json:"guest_macs"`
}

func (k *kvs) vms() (list []vmDoc) {
	k.t.Helper()
	k.decode(&list, "vm", "list", "--json")
	return list
}

// plugged are those of vm list that the switch plugged in.
func (k *kvs) plugged() []vmDoc {
	k.t.Helper()
	return slices.DeleteFunc(k.vms(), func(n vmDoc) bool { return n.QMP == "" })
}

// plug is vm attach.
func (k *kvs) plug(args ...string) (n vmDoc) {
	k.t.Helper()
	out := k.do(append([]string{"vm", "attach", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &n); err != nil {
		k.t.Fatalf("vm attach: %v in %s", err, out)
	}
	return n
}

// awaitCard waits for a guest's device to appear.
func awaitCard(t *testing.T, g *vm.Guest, name string) {
	t.Helper()
	netns.Await(t, 30*time.Second, "card "+name+" to appear", func() error {
		_, err := g.Try("test -e /sys/class/net/" + name)
		return err
	})
}

// TestGuestsMeetHoweverTheyAreAttached puts one guest on the switch in each of
// the ways that QEMU has, with default offloads, and lets each of them talk to
// the host and to another guest.
func TestGuestsMeetHoweverTheyAreAttached(t *testing.T) {
	inKernelModes(t, testGuestsMeetHoweverTheyAreAttached)
}

func testGuestsMeetHoweverTheyAreAttached(t *testing.T) {
	sock := netns.Dir(t)
	l := newGuestLAN(t, "--stp", "rstp",
		"--port", "stream:unix,path="+sock+"/stream",
		"--port", "stream:tcp,addr=127.0.0.1:7001,mode=client,reconnect=100ms",
		"--port", "dgram:dgram,local="+sock+"/switch,remote="+sock+"/guest,reconnect=100ms")
	before := l.footprint()
	qmp := filepath.Join(sock, "qmp")
	const device = "virtio-net-pci,netdev="

	helped := vm.Launch(t, vm.Options{Name: "helped", Host: l.host, Net: []string{
		"-netdev", "bridge,id=n0,br=kvs0,helper=" + l.helper(), "-device", device + "n0,mac=52:54:00:00:01:00"}})
	scripted := vm.Launch(t, vm.Options{Name: "scripted", Host: l.host, SMP: 2, Net: []string{
		"-netdev", fmt.Sprintf("tap,id=n0,queues=2,script=%s/kvswitch-ifup,downscript=%[1]s/kvswitch-ifdown", l.bin),
		"-device", device + "n0,mq=on,vectors=6,mac=52:54:00:00:02:00"}})
	plugged := vm.Launch(t, vm.Options{Name: "plugged", Host: l.host, SMP: 2, QMP: qmp})
	socketed := vm.Launch(t, vm.Options{Name: "socketed", Host: l.host, Net: []string{
		"-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path=" + sock + "/stream", "-device", device + "n0,mac=52:54:00:00:04:00",
		"-netdev", "stream,id=n1,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=7001", "-device", device + "n1,mac=52:54:00:00:04:01",
		"-netdev", fmt.Sprintf("dgram,id=n2,local.type=unix,local.path=%s/guest,remote.type=unix,remote.path=%[1]s/switch", sock),
		"-device", device + "n2,mac=52:54:00:00:04:02"}})

	helped.AwaitBoot()
	peer := lease(helped, "eth0")
	t.Run("bridge helper", func(t *testing.T) { converse(t, helped, peer.addr, l.self, lanAddr) })

	t.Run("bridge helper denied", func(t *testing.T) {
		with := l.footprint()
		l.allow("allow all\ndeny kvs0")
		defer l.allow("allow kvs0")
		out, err := l.self.Try(l.helper() + " --use-vnet --br=kvs0 --fd=3 3<>/dev/null")
		if err == nil || !strings.Contains(out, "access denied by acl file") || strings.Contains(out, "\n") {
			t.Errorf("the helper says %q, %v", out, err)
		}
		l.awaitFootprint(with)
	})

	// talk checks one card after the other, since a guest sends to a network by
	// one of its cards only.
	talk := func(t *testing.T, g *vm.Guest, name string) {
		c := lease(g, name)
		defer c.release()
		converse(t, g, c.addr, l.self, lanAddr)
		converse(t, g, c.addr, helped, peer.addr)
	}
	scripted.AwaitBoot()
	t.Run("ifup with 2 queues", func(t *testing.T) {
		scripted.Run("test -e /sys/class/net/eth0/queues/tx-1")
		talk(t, scripted, "eth0")
	})

	t.Run("vm list knows guests that nobody plugged in", func(t *testing.T) {
		queues := map[string]int{"helped": 1, "scripted": 2}
		for _, n := range l.vms() {
			if n.QMP != "" {
				continue
			}
			if n.Queues != queues[n.Name] || n.VHost || n.ID != "" || n.MAC != "" || len(n.GuestMACs) != 1 || !slices.Contains(l.portNames(), n.Port) {
				t.Errorf("vm list shows %+v", n)
			}
			delete(queues, n.Name)
		}
		if len(queues) != 0 {
			t.Errorf("vm list does not show %v", queues)
		}
		for line := range strings.Lines(l.do("vm", "list")) {
			if f := strings.Fields(line); f[0] != "VM" && (len(f) != 8 || f[7] != "off") {
				t.Errorf("vm list says %q: want VHOST on or off, in one word", line)
			}
		}
	})

	socketed.AwaitBoot()
	for i, kind := range []string{"stream, unix", "stream, TCP, switch as client", "dgram, unix"} {
		t.Run(kind, func(t *testing.T) { talk(t, socketed, fmt.Sprintf("eth%d", i)) })
	}

	plugged.AwaitBoot()
	t.Run("hot plug", func(t *testing.T) { testHotPlug(t, l, plugged, qmp, talk) })

	t.Run("no guest was sent a bad checksum", func(t *testing.T) {
		for name, g := range map[string]station{"helped": helped, "scripted": scripted, "plugged": plugged, "socketed": socketed, "host": l.self} {
			// Of Tcp: and Udp: the last fields but some are InCsumErrors.
			out := g.Run(`awk '/^(Tcp|Udp|Icmp):/ { if (n[$1]) { for (i = 2; i <= NF; i++) if (f[$1 i] == "InCsumErrors" && $i > 0) print $1, $i } else { n[$1] = 1; for (i = 2; i <= NF; i++) f[$1 i] = $i } }' /proc/net/snmp`)
			if out != "" {
				t.Errorf("%s refused packets: %s", name, out)
			}
		}
	})

	t.Run("ports go when their machines end", func(t *testing.T) {
		scripted.PowerOff() // QEMU runs the downscript
		helped.Proc().Kill()
		plugged.Proc().Kill()
		socketed.Proc().Kill()
		netns.Await(t, startPatience, "the taps' ports to go", func() error {
			if names := l.portNames(); len(names) != 3 {
				return fmt.Errorf("ports %v", names)
			}
			return nil
		})
		for _, name := range []string{"unix", "tcp"} {
			l.awaitPort(name, "has lost its peer", func(p portDoc) bool { return p.Link == "down" })
		}
		if list := l.vms(); len(list) != 0 {
			t.Errorf("vm list shows %+v", list)
		}
		l.awaitFootprint(before)
	})
}

// testHotPlug plugs cards with one and with two queues into a running guest and
// out again.
func testHotPlug(t *testing.T, l *guestLAN, g *vm.Guest, qmp string, talk func(*testing.T, *vm.Guest, string)) {
	before := l.footprint()
	one := l.plug("--qmp", qmp, "--mac", "52:54:00:00:03:01")
	two := l.plug("--qmp", qmp, "--id", "second", "--mac", "52:54:00:00:03:02", "--queues", "2")
	awaitCard(t, g, "eth0")
	awaitCard(t, g, "eth1")
	g.Run("test ! -e /sys/class/net/eth0/queues/tx-1 && test -e /sys/class/net/eth1/queues/tx-1")

	list := l.plugged()
	if len(list) != 2 || list[0].ID != "net1" || list[0].Name != "plugged" || list[0].Port != one.Port || list[0].Queues != 1 ||
		list[1].ID != "second" || list[1].Queues != 2 || list[1].Port != two.Port {
		t.Errorf("vm list shows %+v", list)
	}
	for _, n := range list {
		if _, err := os.Stat("/dev/vhost-net"); errors.Is(err, os.ErrNotExist) && (n.VHost || !strings.Contains(n.VHostReason, "modprobe vhost_net")) {
			t.Errorf("vhost %v, %q on a host without it", n.VHost, n.VHostReason)
		}
	}

	t.Run("1 queue", func(t *testing.T) { talk(t, g, "eth0") })
	t.Run("2 queues", func(t *testing.T) { talk(t, g, "eth1") })

	t.Run("an address that the guest sets is known at once", func(t *testing.T) {
		g.Run("ip link set eth0 address 52:54:00:00:03:99") // its link is down: no frame says so
		netns.Await(t, startPatience, "the new address", func() error {
			for _, e := range l.table() {
				if e.MAC == "52:54:00:00:03:99" && e.Port == one.Port {
					return nil
				}
			}
			return fmt.Errorf("table %+v", l.table())
		})
		if macs := l.plugged()[0].GuestMACs; len(macs) == 0 || macs[0] != "52:54:00:00:03:99" {
			t.Errorf("vm list shows %v", macs)
		}
	})

	t.Run("what fails leaves nothing", func(t *testing.T) {
		plain := filepath.Join(filepath.Dir(qmp), "stream") // the switch's own, and no QMP
		attached := l.footprint()
		for _, c := range []struct {
			words []string
			args  []string
		}{
			{[]string{"Duplicate", "second"}, []string{"--qmp", qmp, "--id", "second"}},
			{[]string{"vhost on", "/dev/vhost-net"}, []string{"--qmp", qmp, "--vhost", "on"}},
			{[]string{"no-such-bus"}, []string{"--qmp", qmp, "--bus", "no-such-bus"}},
			{[]string{"no-such-model"}, []string{"--qmp", qmp, "--model", "no-such-model"}},
			{[]string{"no such file"}, []string{"--qmp", qmp + ".not"}},
			{[]string{"no greeting"}, []string{"--qmp", plain}},
		} {
			l.refuses(1, c.words, append([]string{"vm", "attach"}, c.args...)...)
			l.awaitFootprint(attached)
		}
	})

	t.Run("detach", func(t *testing.T) {
		l.do("vm", "detach", "--qmp", qmp, "--id", "net1")
		g.Run("test ! -e /sys/class/net/eth0")
		if list := l.plugged(); len(list) != 1 || list[0].ID != "second" {
			t.Errorf("vm list shows %+v", list)
		}
		l.refuses(1, []string{"net1", "not attached"}, "vm", "detach", "--qmp", qmp, "--id", "net1")
		l.do("vm", "detach", "--qmp", qmp, "--id", "second")
		l.awaitFootprint(before)
		// What ends this machine next must find a card to take down.
		l.plug("--qmp", qmp)
	})
}
