package qemu

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// fakeSwitch is a HookSwitch.
type fakeSwitch struct {
	name     string
	specs    map[string]string
	stations map[string]frame.MAC
	refuse   string // the port that it will not take
	err      error  // of every call
}

func (s *fakeSwitch) Name() string { return s.name }

func (s *fakeSwitch) AddPort(spec config.Spec) error {
	if spec.Name == s.refuse {
		return fmt.Errorf("add port %s: refused", spec.Name)
	}
	s.specs[spec.Name] = spec.String()
	return s.err
}

func (s *fakeSwitch) DelPort(name string) error {
	delete(s.specs, name)
	delete(s.stations, name)
	return s.err
}

func (s *fakeSwitch) HasPort(name string) (bool, error) {
	_, ok := s.specs[name]
	return ok, s.err
}

func (s *fakeSwitch) Learn(port string, mac frame.MAC) error { s.stations[port] = mac; return s.err }

// libvirtHost is a host with switches and libvirt's hook, as libvirt calls it.
type libvirtHost struct {
	t        *testing.T
	dir      string
	switches map[string]*fakeSwitch
}

func newLibvirtHost(t *testing.T) *libvirtHost {
	t.Helper()
	needTaps(t)
	checkNothingLeft(t)
	h := &libvirtHost{t: t, dir: filepath.Join(t.TempDir(), "libvirt"), switches: map[string]*fakeSwitch{}}
	for _, name := range []string{"kvs0", "kvs1"} {
		h.switches[name] = &fakeSwitch{name: name, specs: map[string]string{}, stations: map[string]frame.MAC{}}
	}
	return h
}

// taps makes taps, and returns what removes them.
func (h *libvirtHost) taps(names ...string) (remove func()) {
	h.t.Helper()
	var links []netlink.Link
	for _, name := range names {
		link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(link); err != nil {
			h.t.Fatal(err)
		}
		links = append(links, link)
	}
	remove = func() {
		for _, l := range links {
			netlink.LinkDel(l)
		}
		links = nil
	}
	h.t.Cleanup(remove)
	return remove
}

func (h *libvirtHost) try(operation, domain string) error {
	hook := Hook{Guest: "web", Operation: operation, Domain: strings.NewReader(domain), Dir: h.dir}
	hook.Find = func(name string) (HookSwitch, error) {
		if s := h.switches[name]; s != nil {
			return s, nil
		}
		return nil, fmt.Errorf("no switch %s", name)
	}
	return hook.Run()
}

// call is a call with a file of testdata that must succeed.
func (h *libvirtHost) call(operation, file string) {
	h.t.Helper()
	if err := h.try(operation, testdata(h.t, file)); err != nil {
		h.t.Errorf("%s with %s: %v", operation, file, err)
	}
}

// expect checks the ports, by switch.
func (h *libvirtHost) expect(when, want string) {
	h.t.Helper()
	var got []string
	for _, name := range slices.Sorted(maps.Keys(h.switches)) {
		got = append(got, slices.Sorted(maps.Values(h.switches[name].specs))...)
	}
	if s := strings.Join(got, " "); s != want {
		h.t.Errorf("%s: ports %q, want %q", when, s, want)
	}
}

// remembers checks how many guests are remembered.
func (h *libvirtHost) remembers(when string, want int) {
	h.t.Helper()
	files, _ := os.ReadDir(h.dir)
	if len(files) != want {
		h.t.Errorf("%s: %d files in the hook's memory, want %d: %v", when, len(files), want, files)
	}
}

// running is what testdata/libvirt-9.0/start.xml gives.
const running = "netdev:vnet0 netdev:web0,vlan=10"

// The domains in testdata/libvirt-9.0 are what libvirt 9.0.0 of Debian 12 handed
// its hook: at a guest's end the taps' names are missing.
func TestHookKnowsAGuestsPortsAtItsEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(h *libvirtHost)
	}{
		{"destroyed, crashed, saved or moved away", func(h *libvirtHost) {
			h.call("stopped", "libvirt-9.0/stopped.xml")
			h.expect("stopped", "")
			h.call("release", "libvirt-9.0/release.xml")
		}},
		{"release alone", func(h *libvirtHost) { h.call("release", "libvirt-9.0/release.xml") }},
		{"no description", func(h *libvirtHost) {
			if err := h.try("release", ""); err != nil {
				h.t.Error(err)
			}
		}},
		{"the taps went first", func(h *libvirtHost) {
			delete(h.switches["kvs0"].specs, "vnet0")
			h.call("release", "libvirt-9.0/release.xml")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newLibvirtHost(t)
			h.taps("web0", "vnet0")
			h.call("prepare", "libvirt-9.0/prepare.xml")
			h.remembers("prepared", 0)
			for range 2 { // and once more, as libvirt starts it again
				h.call("start", "libvirt-9.0/start.xml")
				h.call("started", "libvirt-9.0/start.xml")
				h.expect("running", running)
				h.remembers("running", 1)
				if mac := h.switches["kvs0"].stations["vnet0"]; mac != (frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 2}) {
					t.Errorf("station %v on vnet0", mac)
				}
				tc.end(h)
				h.expect("ended", "")
				h.remembers("ended", 0)
			}
			if link, err := netlink.LinkByName("web0"); err != nil || link.Attrs().MTU != 1400 {
				t.Errorf("MTU of web0: %+v, %v", link, err)
			}
		})
	}
}

func TestHookPutsInForceWhatTheDomainSaysNow(t *testing.T) {
	h := newLibvirtHost(t)
	h.taps("web0", "vnet0")
	h.call("start", "libvirt-9.0/start.xml")
	// QEMU and libvirt's daemon were killed, and nobody told of it.
	changed := strings.Replace(testdata(t, "libvirt-9.0/start.xml"), `"web0" settings="vlan=10"/>`,
		`"web0" settings="vlan=20,max-learned=4"/><kvs:port mac="52:54:00:6a:1d:02" settings="isolated=on"/>`, 1)
	if err := h.try("start", changed); err != nil {
		t.Fatal(err)
	}
	h.expect("with other settings", "netdev:vnet0,isolated=on netdev:web0,vlan=20,max-learned=4")
	without := strings.ReplaceAll(testdata(t, "libvirt-9.0/start.xml"), `settings="vlan=10"`, "")
	if err := h.try("start", without); err != nil {
		t.Fatal(err)
	}
	h.expect("without settings", "netdev:vnet0 netdev:web0")

	// And once more, with a tap of another name: the old one's port goes.
	h.taps("vnet1")
	h.call("start", "libvirt-9.0/incoming-start.xml")
	h.expect("with another tap", "netdev:vnet1 netdev:web0,vlan=10")
}

func TestHookLeavesATapThatIsAnothersByNow(t *testing.T) {
	h := newLibvirtHost(t)
	remove := h.taps("web0", "vnet0")
	h.call("start", "libvirt-9.0/start.xml")
	remove()
	h.taps("web0") // a guest of somebody else's
	h.switches["kvs0"].specs["web0"] = "netdev:web0,vlan=77"
	h.call("release", "libvirt-9.0/release.xml")
	h.expect("released", "netdev:web0,vlan=77")
}

func TestHookReconnects(t *testing.T) {
	h := newLibvirtHost(t)
	h.taps("web0", "vnet0")
	h.call("start", "libvirt-9.0/reconnect.xml")
	was := maps.Clone(h.switches["kvs0"].specs)
	h.switches["kvs0"].specs["web0"] = "netdev:web0,vlan=99" // by hand
	h.call("reconnect", "libvirt-9.0/reconnect.xml")
	h.expect("libvirt's daemon was restarted", "netdev:vnet0 netdev:web0,vlan=99")
	clear(h.switches["kvs0"].specs)
	h.call("reconnect", "libvirt-9.0/reconnect.xml")
	if got := h.switches["kvs0"].specs; !maps.Equal(got, was) {
		t.Errorf("the switch was restarted: ports %v, want %v", got, was)
	}
	h.call("stopped", "libvirt-9.0/stopped.xml")
	h.expect("ended", "")

	// One that was plugged in by its <script> while another switch ran.
	h.taps("plug0")
	h.call("start", "libvirt-9.0/reconnect.xml")
	plugged := strings.Replace(testdata(t, "libvirt-9.0/reconnect.xml"), "<memballoon",
		"<interface type='ethernet'><mac address='52:54:00:6a:1d:03'/><script path='/usr/local/bin/kvswitch-ifup'/><target dev='plug0'/></interface><memballoon", 1)
	if err := h.try("reconnect", plugged); err != nil {
		t.Fatal(err)
	}
	if got := h.switches["kvs0"].specs["plug0"]; got != "netdev:plug0" {
		t.Errorf("port of the plugged card: %q", got)
	}
	h.call("release", "libvirt-9.0/release.xml")
	h.expect("ended", "")
}

// While a guest is on its way it speaks at the other host: a switch that took it
// for being here would keep its traffic from it.
func TestHookDoesNotKnowAGuestOnItsWay(t *testing.T) {
	h := newLibvirtHost(t)
	h.taps("web0", "vnet1")
	for _, way := range []string{"incoming", "started here"} {
		if way == "incoming" {
			h.call("migrate", "libvirt-9.0/migrate.xml")
		} else {
			h.call("restore", "libvirt-9.0/restore.xml")
		}
		h.call("start", "libvirt-9.0/incoming-start.xml")
		h.expect(way, "netdev:vnet1 netdev:web0,vlan=10")
		if n := len(h.switches["kvs0"].stations); (n == 0) != (way == "incoming") {
			t.Errorf("%s: %d stations are known", way, n)
		}
		h.call("stopped", "libvirt-9.0/stopped.xml")
		h.call("release", "libvirt-9.0/release.xml")
		h.expect(way+", ended", "")
	}
}

func TestHookKeepsAGuestFromStartingHalfAttached(t *testing.T) {
	h := newLibvirtHost(t)
	h.taps("web0", "web1")
	h.switches["kvs1"].refuse = "web1"
	err := h.try("start", testdata(t, "ethernet.xml"))
	if err == nil || !strings.Contains(err.Error(), "interface web1: add port web1: refused") {
		t.Errorf("error %v", err)
	}
	h.expect("refused", "")
	h.remembers("refused", 0)
	if err := h.try("start", strings.Replace(testdata(t, "ethernet.xml"), "'web1'/>", "'gone'/>", 1)); err == nil || !strings.Contains(err.Error(), "interface gone") {
		t.Errorf("without its tap: %v", err)
	}
	h.expect("without its tap", "")
	h.switches["kvs1"].refuse = ""
	if err := h.try("start", strings.Replace(testdata(t, "ethernet.xml"), "<uuid>", "<uuid>x", 1)); err == nil || !strings.Contains(err.Error(), "<uuid>") {
		t.Errorf("without a UUID: %v", err)
	}
	h.expect("without a UUID", "")
	write(t, h.dir, "in the way", 0o644)
	if err := h.try("start", testdata(t, "ethernet.xml")); err == nil || !strings.Contains(err.Error(), "remember guest web") {
		t.Errorf("without a memory: %v", err)
	}
	h.expect("without a memory", "")
}

// The end of a guest takes away what it can, and what it can't is tried again.
func TestHookTriesAgain(t *testing.T) {
	h := newLibvirtHost(t)
	h.taps("web0", "web1")
	h.call("start", "ethernet.xml")
	h.expect("running", "netdev:web0,vlan=10,isolated=on netdev:web1,trunk=20+30,native=1")
	h.switches["kvs1"].err = errors.New("it hangs")
	if err := h.try("stopped", testdata(t, "ethernet.xml")); err == nil || !strings.Contains(err.Error(), "interface web1: it hangs") {
		t.Errorf("error %v", err)
	}
	h.expect("stopped", "netdev:web1,trunk=20+30,native=1")
	h.switches["kvs1"].err = nil
	h.call("release", "ethernet.xml")
	h.expect("released", "")
	h.remembers("released", 0)
}

func TestHookOfOthersDomainsNeedsNoSwitch(t *testing.T) {
	h := newLibvirtHost(t)
	clear(h.switches)
	for _, operation := range []string{"prepare", "migrate", "start", "started", "reconnect", "stopped", "release"} {
		h.call(operation, "vhostuser.xml")
	}
	h.remembers("vhostuser", 0)
	// libvirt calls for more than we know, with what is no XML.
	if err := h.try("attach", ""); err != nil {
		t.Error(err)
	}
}
