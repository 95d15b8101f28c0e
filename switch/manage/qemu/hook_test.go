package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// The examples of the documentation, as they are.
func TestParseDomainReadsTheExamples(t *testing.T) {
	for file, want := range map[string][]TapPort{
		"ethernet.xml": {
			{Switch: "kvs0", Tap: "web0", Settings: []config.KeyValue{{Key: "vlan", Value: "10"}, {Key: "isolated", Value: "on"}}, MAC: frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 1}, MTU: 9000},
			{Switch: "kvs1", Tap: "web1", Settings: []config.KeyValue{{Key: "trunk", Value: "20+30"}, {Key: "native", Value: "1"}}, MAC: frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 2}},
		},
		"vhostuser.xml": {},
	} {
		f, err := os.Open(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseDomain(f)
		f.Close()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", file, got, err, want)
		}
	}
}

// domain wraps an interface's elements.
func domain(inner string) string {
	return `<domain type="kvm"><name>x</name><devices><interface type="ethernet"><target dev="t0"/>` + inner + `</interface></devices></domain>`
}

func TestParseDomainSettings(t *testing.T) {
	for _, c := range []struct{ inner, want string }{
		{``, "netdev:t0"},
		{`<vlan><tag id="42"/></vlan>`, "netdev:t0,vlan=42"},
		{`<vlan trunk="yes"><tag id="42"/></vlan>`, "netdev:t0,trunk=42"},
		{`<vlan><tag id="42"/><tag id="43"/></vlan>`, "netdev:t0,trunk=42+43"},
		{`<vlan trunk="yes"><tag id="42"/><tag id="1" nativeMode="untagged"/></vlan>`, "netdev:t0,trunk=42+1,native=1"},
		{`<vlan trunk="yes"><tag id="42" nativeMode="tagged"/></vlan>`, "netdev:t0,trunk=42,native-tagged=42"},
		{`<port isolated="yes"/>`, "netdev:t0,isolated=on"},
		{`<port isolated="no"/>`, "netdev:t0"},
		{`<vlan><tag id="1"/></vlan><port isolated="yes"/>`, "netdev:t0,vlan=1,isolated=on"},
	} {
		got, err := ParseDomain(strings.NewReader(domain(c.inner)))
		if err != nil || len(got) != 1 || got[0].Spec().String() != c.want {
			t.Errorf("%s: %+v, %v; want %s", c.inner, got, err, c.want)
		}
	}
}

func TestParseDomainChoosesTheSwitch(t *testing.T) {
	meta := func(name, alias string) string {
		return `<domain xmlns:k="` + MetadataNamespace + `"><metadata><other/>` + name + `</metadata><devices>
			<interface type="ethernet"><target dev="t0"/>` + alias + `</interface></devices></domain>`
	}
	for _, c := range []struct{ name, alias, want string }{
		{``, ``, ""},
		{`<k:switch name="a"/>`, ``, "a"},
		{`<switch name="a"/>`, ``, ""}, // not in our namespace
		{`<k:switch name="a"/>`, `<alias name="ua-switch-b"/>`, "b"},
		{``, `<alias name="ua-switch-b_1"/>`, "b"},
		{`<k:switch name="a"/>`, `<alias name="net0"/>`, "a"},
		{`<k:switch name="a"/>`, `<alias name="ua-mine"/>`, "a"},
	} {
		got, err := ParseDomain(strings.NewReader(meta(c.name, c.alias)))
		if err != nil || len(got) != 1 || got[0].Switch != c.want {
			t.Errorf("%s %s: %+v, %v; want switch %q", c.name, c.alias, got, err, c.want)
		}
	}
	for _, c := range []struct{ name, alias string }{{`<k:switch name="none"/>`, ``}, {``, `<alias name="ua-switch-none_3"/>`}} {
		if got, err := ParseDomain(strings.NewReader(meta(c.name, c.alias))); err != nil || len(got) != 0 {
			t.Errorf("%s %s: %+v, %v; want nothing", c.name, c.alias, got, err)
		}
	}
}

func TestParseDomainPassesOverOthersInterfaces(t *testing.T) {
	text := `<domain><devices>
		<interface type="bridge"><source bridge="br0"/><target dev="a"/></interface>
		<interface type="network"/><interface type="vhostuser"/>
		<interface type="ethernet"><target dev="b"/><script path="/usr/bin/kvswitch-ifup"/></interface>
		</devices></domain>`
	if got, err := ParseDomain(strings.NewReader(text)); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseDomainRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "EOF"},
		{"no XML", "hello", "read domain XML"},
		{"another document", "<network/>", "domain"},
		{"cut off", domain("")[:60], "read domain XML"},
		{"no target", `<domain><devices><interface type="ethernet"/></devices></domain>`, "target dev"},
		{"name too long", strings.Replace(domain(""), "t0", "abcdefghijklmnop", 1), "limit is 15"},
		{"name with a comma", strings.Replace(domain(""), "t0", "a,vlan=1", 1), "comma"},
		{"bad MAC", domain(`<mac address="x"/>`), "MAC"},
		{"bad MTU", domain(`<mtu size="70000"/>`), "mtu"},
		{"VLAN 0", domain(`<vlan><tag id="0"/></vlan>`), `tag "0": want a number from 1 to 4094`},
		{"VLAN 4095", domain(`<vlan><tag id="4095"/></vlan>`), "4095"},
		{"VLAN words", domain(`<vlan><tag id="1,isolated=off"/></vlan>`), "want a number"},
		{"VLAN twice", domain(`<vlan><tag id="2"/><tag id="2"/></vlan>`), "twice"},
		{"no VLAN", domain(`<vlan/>`), "no <tag"},
		{"two native", domain(`<vlan><tag id="2" nativeMode="tagged"/><tag id="3" nativeMode="untagged"/></vlan>`), "more than one"},
		{"native mode", domain(`<vlan><tag id="2" nativeMode="x"/></vlan>`), "nativeMode"},
		{"too long", "<domain>" + strings.Repeat(" ", maxDomainXML) + "</domain>", "longer than"},
	} {
		if got, err := ParseDomain(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	for _, file := range []string{"ethernet.xml", "vhostuser.xml"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(domain(`<vlan trunk="yes"><tag id="42" nativeMode="tagged"/></vlan><mtu size="9000"/>`))
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := ParseDomain(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range ports {
			if p.Tap == "" || len(p.Tap) > 15 || strings.ContainsAny(p.Tap, ",/: ") || p.MTU < 0 || p.MTU > frame.MaxMTU {
				t.Fatalf("%q gave %+v", text, p)
			}
		}
	})
}

// fakeSwitch is a HookSwitch.
type fakeSwitch struct {
	specs    map[string]string
	stations map[string]frame.MAC
	refuse   string // the port that it will not take
}

func newFakeSwitch() *fakeSwitch {
	return &fakeSwitch{specs: map[string]string{}, stations: map[string]frame.MAC{}}
}

func (s *fakeSwitch) AddPort(spec config.Spec) error {
	name := spec.Name
	if name == s.refuse {
		return fmt.Errorf("add port %s: refused", name)
	}
	s.specs[name] = spec.String()
	return nil
}

func (s *fakeSwitch) DelPort(name string) error { delete(s.specs, name); return nil }

func (s *fakeSwitch) HasPort(name string) (bool, error) {
	_, ok := s.specs[name]
	return ok, nil
}

func (s *fakeSwitch) Learn(port string, mac frame.MAC) error { s.stations[port] = mac; return nil }

// example is testdata/ethernet.xml as libvirt hands it to a hook.
func example(t *testing.T) *strings.Reader {
	t.Helper()
	b, err := os.ReadFile("testdata/ethernet.xml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReader(string(b))
}

func TestHookAttachesAndDetaches(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	for _, name := range []string{"web0", "web1"} {
		link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netlink.LinkDel(link) })
	}
	switches := map[string]*fakeSwitch{"kvs0": newFakeSwitch(), "kvs1": newFakeSwitch()}
	find := func(name string) (HookSwitch, error) {
		if s := switches[name]; s != nil {
			return s, nil
		}
		return nil, fmt.Errorf("no switch %s", name)
	}
	state := func() string {
		return fmt.Sprint(slices.Sorted(maps.Values(switches["kvs0"].specs)), slices.Sorted(maps.Values(switches["kvs1"].specs)))
	}
	const attached = "[netdev:web0,vlan=10,isolated=on] [netdev:web1,trunk=20+30,native=1]"
	for _, step := range []struct{ operation, want string }{
		{"prepare", "[] []"},
		{"start", attached},
		{"started", attached},
		{"reconnect", attached}, // a second time changes nothing
		{"stopped", attached},
		{"release", "[] []"},
		{"release", "[] []"},
		{"reconnect", attached}, // after the switch was restarted, too
	} {
		if err := Hook(step.operation, example(t), find); err != nil {
			t.Fatalf("%s: %v", step.operation, err)
		}
		if got := state(); got != step.want {
			t.Errorf("after %s: %s, want %s", step.operation, got, step.want)
		}
	}
	if mac := switches["kvs0"].stations["web0"]; mac != (frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 1}) {
		t.Errorf("station %v on web0", mac)
	}
	if link, err := netlink.LinkByName("web0"); err != nil || link.Attrs().MTU != 9000 {
		t.Errorf("MTU of web0: %+v, %v", link, err)
	}
}

func TestHookKeepsAGuestFromStartingHalfAttached(t *testing.T) {
	needTaps(t)
	for _, name := range []string{"web0"} {
		link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netlink.LinkDel(link) })
	}
	first, second := newFakeSwitch(), newFakeSwitch()
	second.refuse = "web1"
	find := func(name string) (HookSwitch, error) {
		if name == "kvs0" {
			return first, nil
		}
		return second, nil
	}
	err := Hook("start", example(t), find)
	if err == nil || !strings.Contains(err.Error(), "interface web1: add port web1: refused") {
		t.Errorf("error %v", err)
	}
	if len(first.specs) != 0 {
		t.Errorf("left attached: %v", first.specs)
	}
	// The end of a guest takes away what it can.
	first.specs["web0"] = "netdev:web0"
	gone := errors.New("switch kvs1 is not running")
	err = Hook("release", example(t), func(name string) (HookSwitch, error) {
		if name == "kvs0" {
			return first, nil
		}
		return nil, gone
	})
	if !errors.Is(err, gone) || len(first.specs) != 0 {
		t.Errorf("error %v, left attached %v", err, first.specs)
	}
}

func TestHookOfOthersDomainsNeedsNoSwitch(t *testing.T) {
	f, err := os.Open("testdata/vhostuser.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Hook("start", f, func(string) (HookSwitch, error) { return nil, errors.New("asked for") }); err != nil {
		t.Error(err)
	}
	// libvirt calls for more than we know, with what is no XML.
	if err := Hook("attach", strings.NewReader(""), nil); err != nil {
		t.Error(err)
	}
}

func TestHookFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "libvirt", "hooks")
	users := filepath.Join(dir, "qemu")
	os.MkdirAll(dir, 0o755)
	write(t, users, "#!/bin/sh\nexit 0\n", 0o755)

	if _, changed, err := UninstallHook(dir); changed || err != nil {
		t.Errorf("uninstall of nothing: %v, %v", changed, err)
	}
	path, changed, err := InstallHook(dir, "/usr/bin/kvswitch")
	if err != nil || !changed {
		t.Fatalf("install: %v, %v", changed, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("hook %v, %v", st, err)
	}
	if _, changed, err := InstallHook(dir, "/usr/bin/kvswitch"); changed || err != nil {
		t.Errorf("install again: %v, %v", changed, err)
	}
	if _, changed, err := InstallHook(dir, "/opt/kvswitch"); !changed || err != nil {
		t.Errorf("install of another program: %v, %v", changed, err)
	}
	text, _ := os.ReadFile(path)
	if !strings.Contains(string(text), `exec '/opt/kvswitch' libvirt hook "$@"`) {
		t.Errorf("hook:\n%s", text)
	}
	if _, changed, err := UninstallHook(dir); !changed || err != nil {
		t.Errorf("uninstall: %v, %v", changed, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("hook after uninstall: %v", err)
	}

	write(t, path, "#!/bin/sh\n# mine\n", 0o755)
	for name, f := range map[string]func() error{
		"install":   func() error { _, _, err := InstallHook(dir, "/usr/bin/kvswitch"); return err },
		"uninstall": func() error { _, _, err := UninstallHook(dir); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "not kvswitch's") {
			t.Errorf("%s over a foreign file: %v", name, err)
		}
	}
	for _, program := range []string{"kvswitch", "/a'b", "/a\nb", ""} {
		if _, _, err := InstallHook(t.TempDir(), program); err == nil {
			t.Errorf("program %q was accepted", program)
		}
	}
	if text, _ := os.ReadFile(users); string(text) != "#!/bin/sh\nexit 0\n" {
		t.Error("the user's own hook was touched")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".kvswitch*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
