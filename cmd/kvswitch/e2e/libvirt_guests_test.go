package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// twoCards are a guest's, one with a tap of a given name and one whose name is
// libvirt's choice, which libvirt has forgotten when the guest ends.
const twoCards = `
  <interface type='ethernet'><mac address='52:54:00:6a:1d:01'/><target dev='web0'/><model type='virtio'/><mtu size='1400'/></interface>
  <interface type='ethernet'><mac address='52:54:00:6a:1d:02'/><model type='virtio'/></interface>`

// withLibvirt is a switch with an address, and a libvirt with our hook.
func withLibvirt(t *testing.T, host *netns.Host, name, addr string, args ...string) (*kvs, *libvirt) {
	t.Helper()
	l := newLibvirt(t, host, name)
	k := run(t, host, args...)
	host.Addr("kvs0", addr+"/24")
	k.do("libvirt", "hooks", "install", "--dir", filepath.Join(l.dir, "etc", "hooks"))
	l.start()
	return k, l
}

// A guest of Debian's libvirt lives through all that libvirt can do with it.
func TestLibvirtGuestHasItsPortsFromStartToEnd(t *testing.T) {
	t.Parallel()
	host := netns.New(t).Host("host")
	k, l := withLibvirt(t, host, "one", lanAddr)
	const addr = "192.0.2.9"
	l.define(twoCards, `<kvs:port dev='web0' settings='max-learned=8'/><kvs:port mac='52:54:00:6a:1d:02' settings='isolated=on'/>`)
	var g *vm.Guest
	reach := func(when string) {
		t.Helper()
		if out, err := host.Try("ping", "-c", "3", "-W", "5", addr); err != nil {
			t.Errorf("%s: %v\n%s", when, err, out)
		}
	}
	running := func(when string, more ...string) {
		t.Helper()
		k.awaitPorts(when, append(l.taps(), more...)...)
		reach(when)
	}
	specs := func(want ...string) {
		t.Helper()
		dump := k.do("config", "dump")
		for _, w := range want {
			if !strings.Contains(dump, "netdev:"+w+"\n") {
				t.Errorf("want netdev:%s, config dump:\n%s", w, dump)
			}
		}
	}
	ended := func(when string) {
		t.Helper()
		k.awaitPorts(when)
		if left, _ := filepath.Glob(filepath.Join(k.dir, "libvirt", "*")); len(left) > 0 {
			t.Errorf("%s: the hook still remembers %v", when, left)
		}
	}

	l.do("start", "web")
	vnet := l.taps()[1]
	specs("web0,max-learned=8", vnet+",isolated=on")
	if out := host.Run("ip", "link", "show", "web0"); !strings.Contains(out, "mtu 1400 ") {
		t.Errorf("want MTU 1400: %s", out)
	}
	g = l.boot(addr)
	running("started")
	l.do("suspend", "web")
	l.do("resume", "web")
	running("suspended and resumed")
	g.Reboot()
	g.Run("ip link set eth0 up; ip addr add " + addr + "/24 dev eth0")
	running("rebooted")
	l.do("destroy", "web")
	ended("destroyed")

	l.define(twoCards, `<kvs:port dev='web0' settings='max-learned=9,isolated=on'/>`)
	l.do("start", "web")
	specs("web0,isolated=on,max-learned=9", l.taps()[1])
	l.boot(addr)
	l.do("managedsave", "web")
	ended("saved")
	l.do("start", "web")
	specs("web0,isolated=on,max-learned=9", l.taps()[1])
	running("restored")
	g = l.guest()

	t.Run("hot plug", func(t *testing.T) {
		up, down := l.script("ifup", k.dir), l.script("ifdown", k.dir)
		for _, downscript := range []string{"", "<downscript path='" + down + "'/>"} {
			nic := l.file("nic.xml", `<interface type='ethernet'><mac address='52:54:00:6a:1d:03'/><script path='`+up+`'/>`+downscript+`<model type='virtio'/></interface>`)
			l.do("attach-device", "web", nic)
			awaitCard(t, g, "eth2")
			running("plugged in", []string{}...)
			l.do("detach-device", "web", nic)
			netns.Await(t, guestPatience, "the card to be unplugged", func() error {
				if n := len(l.taps()); n != 2 {
					return fmt.Errorf("%d cards", n)
				}
				return nil
			})
			running("unplugged")
		}
		l.do("attach-device", "web", l.file("nic.xml", `<interface type='ethernet'><mac address='52:54:00:6a:1d:03'/><script path='`+up+`'/><model type='virtio'/></interface>`))
		awaitCard(t, g, "eth2")
	})

	// libvirt's daemon and the switch are both restarted.
	l.daemon.Kill()
	k.stop()
	k = launch(t, host, k.dir)
	k.awaitReady()
	host.Run("ip", "addr", "replace", lanAddr+"/24", "dev", "kvs0")
	k.awaitPorts("the switch is new")
	l.start()
	running("libvirtd reconnected")

	l.killQEMU()
	ended("QEMU crashed")

	// QEMU ends while no libvirtd sees it.
	l.do("start", "web")
	k.awaitPorts("started again", l.taps()...)
	l.daemon.Kill()
	l.killQEMU()
	k.awaitPorts("nobody tells of the end")
	l.start()
	netns.Await(t, guestPatience, "libvirtd to notice", func() error {
		if left, _ := filepath.Glob(filepath.Join(k.dir, "libvirt", "*.json")); len(left) > 0 {
			return fmt.Errorf("the hook still remembers %v", left)
		}
		return nil
	})

	// A guest that can't have its ports does not start, and says why.
	l.define(twoCards, `<kvs:port dev='web0' settings='max-learned=none'/>`)
	if out, err := l.try("start", "web"); err == nil || !strings.Contains(out, "max-learned=none") {
		t.Errorf("start with a wrong setting: %v, %s", err, out)
	}
	ended("not started")
}

// A guest moves from one host's libvirt and switch to another's.
func TestLibvirtGuestMigrates(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	hosts := [2]*netns.Host{lab.Host("a"), lab.Host("b")}
	lab.Cable(hosts[0], "eth0", hosts[1], "eth0")
	var k [2]*kvs
	var l [2]*libvirt
	for i, h := range hosts {
		h.Up("eth0")
		k[i], l[i] = withLibvirt(t, h, fmt.Sprintf("libvirt-%c", 'a'+i), fmt.Sprintf("192.0.2.%d", i+1), "--uplink", "eth0")
		k[i].awaitForwarding("eth0")
	}
	l[0].define(twoCards, `<kvs:port dev='web0' settings='max-learned=8'/>`)
	// The same paths at both ends.
	for _, name := range []string{"kernel", "initrd"} {
		l[1].host.Run(l[1].inside("sh", "-c", fmt.Sprintf("mkdir -p %s/open && touch %[1]s/%s && mount --bind %s/%[2]s %[1]s/%[2]s", l[0].dir, name, l[1].dir))...)
	}
	l[0].do("start", "web")
	l[0].boot("192.0.2.9")
	for _, h := range hosts {
		h.Run("ping", "-c", "2", "-W", "5", "192.0.2.9")
	}
	const mac = "52:54:00:6a:1d:01"
	at := func(i int) string {
		for _, e := range k[i].table() {
			if e.MAC == mac {
				return e.Port
			}
		}
		return ""
	}
	there := filepath.Join(l[1].dir, "open", "migration")
	// The first attempt fails, at the end that would receive.
	if out, err := l[0].try("migrate", "--live", "web", l[1].address(), "--migrateuri", "unix:///no/such/directory/x"); err == nil {
		t.Fatalf("migration to nowhere: %s", out)
	}
	k[1].awaitPorts("the guest did not come", "eth0")
	if a, b := at(0), at(1); a != "web0" || b != "eth0" {
		t.Errorf("after a migration that failed the guest is at %q and %q, want web0 and eth0", a, b)
	}
	hosts[1].Run("ping", "-c", "2", "-W", "5", "192.0.2.9")

	l[0].do("migrate", "--live", "web", l[1].address(), "--migrateuri", "unix://"+there)
	k[0].awaitPorts("the guest has left", "eth0")
	k[1].awaitPorts("the guest has come", append([]string{"eth0"}, l[1].taps()...)...)
	for _, h := range hosts {
		netns.Await(t, guestPatience, "the guest answers "+h.Name(), func() error {
			_, err := h.Try("ping", "-c", "1", "-W", "1", "192.0.2.9")
			return err
		})
	}
	if a, b := at(0), at(1); a != "eth0" || b != "web0" {
		t.Errorf("the guest is at %q and %q, want eth0 and web0", a, b)
	}
	if left, _ := os.ReadDir(filepath.Join(k[0].dir, "libvirt")); len(left) > 0 {
		t.Errorf("the hook at the old place still remembers %v", left)
	}
	l[1].do("destroy", "web")
	k[1].awaitPorts("destroyed", "eth0")
}

// The commands and the interface of LIBVIRT.md give a guest rings that are shared
// with the switch, although libvirt's QEMU is not root's.
func TestLibvirtVhostUserGuestAsDocumented(t *testing.T) {
	t.Parallel()
	host := netns.New(t).Host("host")
	k, l := withLibvirt(t, host, "rings", lanAddr)
	doc, err := os.ReadFile("../../../switch/manage/qemu/LIBVIRT.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../../switch/manage/qemu/testdata/vhostuser.xml")
	if err != nil {
		t.Fatal(err)
	}
	const fixed = "/run/kvswitch/fast.sock"
	path := filepath.Join(k.dir, "fast.sock")
	_, rest, _ := strings.Cut(string(doc), "\nkvswitch port add vhost-user:")
	spec, _, found := strings.Cut("vhost-user:"+rest, "\n")
	if !found || !strings.Contains(spec, fixed) || !strings.Contains(string(example), fixed) || !strings.Contains(string(example), spec) {
		t.Fatalf("the document and its example don't agree: %s", spec)
	}
	k.do("port", "add", strings.Replace(spec, fixed, path, 1))
	_, nic, _ := strings.Cut(string(example), "<interface type='vhostuser'>")
	nic, _, _ = strings.Cut(nic, "</interface>")
	// Only QEMU 7.2 without KVM needs the override.
	l.define("<interface type='vhostuser'>"+strings.Replace(nic, fixed, path, 1)+"<alias name='ua-fast'/></interface>", "")
	l.override("ua-fast", "vectors", "0")
	l.do("start", "web")
	l.boot("192.0.2.9")
	if out, err := host.Try("ping", "-c", "3", "-W", "5", "192.0.2.9"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	k.awaitPorts("running", "fast")
	l.do("destroy", "web")
	k.awaitPort("fast", "waits for the next guest", func(p portDoc) bool { return p.Link == "down" })
	l.do("start", "web")
	k.awaitPorts("started again", "fast")
}
