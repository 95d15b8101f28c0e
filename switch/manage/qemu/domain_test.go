package qemu

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// taps reads a domain that must be well-formed.
func taps(t *testing.T, text string) []TapPort {
	t.Helper()
	d, err := ParseDomain(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d.Taps
}

func testdata(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The examples of the documentation, as they are.
func TestParseDomainReadsTheExamples(t *testing.T) {
	for file, want := range map[string][]TapPort{
		"ethernet.xml": {
			{Switch: "kvs0", Tap: "web0", Settings: []config.KeyValue{{Key: "vlan", Value: "10"}, {Key: "isolated", Value: "on"}}, MAC: frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 1}, MTU: 9000},
			{Switch: "kvs1", Tap: "web1", Settings: []config.KeyValue{{Key: "trunk", Value: "20+30"}, {Key: "native", Value: "1"}}, MAC: frame.MAC{0x52, 0x54, 0, 0x6a, 0x1d, 2}},
		},
		"vhostuser.xml": nil,
	} {
		if got := taps(t, testdata(t, file)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\nwant %+v", file, got, want)
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
		if got := taps(t, domain(c.inner)); len(got) != 1 || got[0].Spec().String() != c.want {
			t.Errorf("%s: %+v; want %s", c.inner, got, c.want)
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
		if got := taps(t, meta(c.name, c.alias)); len(got) != 1 || got[0].Switch != c.want {
			t.Errorf("%s %s: %+v; want switch %q", c.name, c.alias, got, c.want)
		}
	}
	for _, c := range []struct{ name, alias string }{{`<k:switch name="none"/>`, ``}, {``, `<alias name="ua-switch-none_3"/>`}} {
		if got := taps(t, meta(c.name, c.alias)); len(got) != 0 {
			t.Errorf("%s %s: %+v; want nothing", c.name, c.alias, got)
		}
	}
}

func TestParseDomainPassesOverOthersInterfaces(t *testing.T) {
	text := `<domain><devices>
		<interface type="bridge"><source bridge="br0"/><target dev="a"/></interface>
		<interface type="network"/><interface type="vhostuser"/>
		<interface type="ethernet"><target dev="b"/><script path="/etc/qemu-ifup"/></interface>
		</devices></domain>`
	if got := taps(t, text); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestParseDomainRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "EOF"},
		{"no XML", "hello", "read domain XML"},
		{"another document", "<network/>", "domain"},
		{"cut off", domain("")[:60], "read domain XML"},
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
	for _, file := range []string{"ethernet.xml", "vhostuser.xml", "libvirt-9.0/start.xml", "libvirt-9.0/release.xml"} {
		f.Add(testdata(f, file))
	}
	f.Add(domain(`<vlan trunk="yes"><tag id="42" nativeMode="tagged"/></vlan><mtu size="9000"/>`))
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDomain(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range d.Taps {
			if len(p.Tap) > 15 || strings.ContainsAny(p.Tap, ",/: ") || p.MTU < 0 || p.MTU > frame.MaxMTU {
				t.Fatalf("%q gave %+v", text, p)
			}
		}
	})
}
