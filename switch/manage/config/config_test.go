package config_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// bench is a set of kinds whose devices are in memory, and what became of them.
type bench struct {
	kinds  config.Kinds
	opened map[string]*mem.Port
	opens  []string
}

// newBench has a kind netdev and a kind stream with the key path. Opening a
// name that begins with "no" fails.
func newBench() *bench {
	b := &bench{opened: map[string]*mem.Port{}}
	open := func(s config.Spec) (frame.Port, error) {
		if strings.HasPrefix(s.Name, "no") {
			return nil, fmt.Errorf("open %s: no such interface", s.Name)
		}
		b.opens = append(b.opens, s.Attachment())
		p := mem.NewPort()
		b.opened[s.Name] = p
		return p, nil
	}
	b.kinds = config.Kinds{
		{Name: "netdev", Netdev: true, Open: open},
		{Name: "stream", Keys: []string{"path", "mode"}, Open: open},
	}
	return b
}

func (b *bench) Open(s config.Spec) (frame.Port, error) { return b.kinds.Open(s) }

func (b *bench) OpenHost(string, frame.MAC) (frame.Port, error) { return mem.NewPort(), nil }

func (b *bench) parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c := config.Default()
	if err := c.Parse(b.kinds, "f.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

// start makes the switch that a file describes, as kvswitch run does.
func (b *bench) start(t *testing.T, c *config.Config) *vswitch.Switch {
	t.Helper()
	sc := c.Switch
	sc.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	sw, err := vswitch.New(sc)
	if err != nil {
		t.Fatal(err)
	}
	nothing := config.Nothing(c)
	steps, err := config.Diff(config.Default(), nothing, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := config.Apply(sw, b, nothing, steps); err != nil {
		t.Fatal(err)
	}
	b.opens = nil
	return sw
}

func (b *bench) running(t *testing.T, sw *vswitch.Switch) *config.Config {
	t.Helper()
	c, err := config.Running(sw, b.kinds, config.Default())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dump is the running state as a file.
func (b *bench) dump(t *testing.T, sw *vswitch.Switch) string {
	t.Helper()
	text, err := b.running(t, sw).Dump()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const whole = `
name: kvs7
mac: 52:54:00:00:00:07
host: br7,vlan=10
mtu: 1500
stp: stp
priority: 0x1000
hello: 1s
max-age: 10
forward-delay: 6s
tx-hold: 3
ageing: 60s
max-entries: 1000
vlan-filtering: on
workers: 2
busy-poll: always
metrics: 127.0.0.1:9200
uplinks:
  - eth0
  - eth1,cost=10
  - {name: eth2, trunk: 10-20+30, native: 1}
  - stream:far,path=/run/far.sock
  - {kind: stream, name: farther, path: /run/farther.sock}
ports:
  - netdev:tap0,vlan=10,isolated=on
  - kind: stream
    name: vm3
    path: /run/vm3.sock
    edge: off
    recover: 5m
fdb:
  - {mac: "52:54:00:00:00:99", vlan: 10, port: tap0}
  - {mac: "52:54:00:00:00:98", vlan: 10, port: br7}
`

func TestFileSaysWhatItSays(t *testing.T) {
	b := newBench()
	c := b.parse(t, whole)
	if got := c.Switch; got.Name != "kvs7" || got.STP.Mode != vswitch.ModeSTP || got.STP.Priority != 0x1000 || got.Workers != 2 ||
		got.BusyPoll != vswitch.BusyPollAlways || !got.VLANFiltering || got.MaxEntries != 1000 || got.Ageing.Seconds() != 60 ||
		got.STP.MaxAge.Seconds() != 10 || got.STP.TxHold != 3 || got.MAC.String() != "52:54:00:00:00:07" {
		t.Errorf("switch: %+v", got)
	}
	if c.HostName() != "br7" || c.MTU != 1500 || c.Metrics != "127.0.0.1:9200" {
		t.Errorf("host %q mtu %d metrics %q", c.HostName(), c.MTU, c.Metrics)
	}
	var ports []string
	for _, p := range c.Ports {
		ports = append(ports, fmt.Sprint(p.Spec, " ", p.Uplink))
	}
	want := []string{
		"netdev:eth0 true", "netdev:eth1,cost=10 true", "netdev:eth2,trunk=10-20+30,native=1 true",
		"stream:far,path=/run/far.sock true", "stream:farther,path=/run/farther.sock true",
		"netdev:tap0,vlan=10,isolated=on false", "stream:vm3,path=/run/vm3.sock,edge=off,recover=5m false",
	}
	if !slices.Equal(ports, want) {
		t.Errorf("ports\n got %q\nwant %q", ports, want)
	}
	if len(c.Static) != 2 || c.Static[0].String() != "52:54:00:00:00:99 vlan 10 on tap0" {
		t.Errorf("fdb: %v", c.Static)
	}
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "ports:\nuplinks: []\n"} {
		c := newBench().parse(t, text)
		if c.Switch.Name != "kvs0" || c.HostName() != "kvs0" || c.Switch.STP.Mode != vswitch.ModeRSTP || len(c.Ports) != 0 {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

// The defaults written here are those of the switch itself.
func TestDefaultIsTheSwitchs(t *testing.T) {
	sw, err := vswitch.New(vswitch.Config{BusyPoll: vswitch.DefaultBusyPoll})
	if err != nil {
		t.Fatal(err)
	}
	got, want := config.Default().Switch, sw.Config()
	want.MAC, want.Logger, want.Words, want.Clock = frame.MAC{}, nil, nil, nil
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPortsDoNotHaveTheHostInterfacesName(t *testing.T) {
	b := newBench()
	for text, want := range map[string]string{
		"ports: [netdev:kvs0]":                                 "port kvs0 has the name of the host interface",
		"name: a-name-longer-than-an-interface-has":            "host interface: name",
		"ports: [netdev:kvs0]\nhost: off":                      "",
		"name: a-name-longer-than-an-interface-has\nhost: br0": "",
	} {
		err := b.parse(t, text).Check()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestErrorsHaveLineAndColumn(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"nmae: kvs0\n", `f.yaml:1:1: unknown key "nmae"; known: name mac host`},
		{"name: kvs0\nports:\n  - netdev:tap0,vlna=1\n", `f.yaml:3:5: parse port "netdev:tap0,vlna=1": unknown key "vlna" for a netdev port`},
		{"ports:\n  - {kind: netdev, name: t, vlna: 1}\n", `f.yaml:2:29: unknown key "vlna"`},
		{"ports:\n  - {vlan: 1, name: t}\n", `f.yaml:2:5: the port's kind is missing`},
		{"ports:\n  - {kind: netdev, vlan: 1}\n", `f.yaml:2:6: the name is missing`},
		{"ports:\n  - tun:tap0\n", `f.yaml:2:5: parse port "tun:tap0": unknown kind of port "tun": want one of netdev, stream`},
		{"ports: {netdev: tap0}\n", "f.yaml:1:8: want a list"},
		{"workers: many\n", `f.yaml:1:10: workers "many": want a number from 1 to 64`},
		{"workers: 65\n", "f.yaml:1:10: workers"},
		{"workers: [1]\n", "f.yaml:1:10: want one word, not a list"},
		{"workers:\n", "f.yaml:1:10: the value is missing"},
		{"host: br0,vlan=5000\n", `f.yaml:1:7: host "br0,vlan=5000": set vlan=5000`},
		{"host: br0,vlan\n", `f.yaml:1:7: host "br0,vlan": "vlan" is not key=value`},
		{"stp: mstp\n", `f.yaml:1:6: stp "mstp": want rstp, stp or off`},
		{"ageing: 1.5s\n", `f.yaml:1:9: ageing "1.5s": want 1s to 1000000s, in whole seconds`},
		{"mac: 01:00:00:00:00:00\n", "f.yaml:1:6: mac"},
		{"name: kvs0\nname: kvs1\n", "f.yaml:2:1: mapping key \"name\" already defined"},
		{"ports: [\n", "f.yaml:1:8: sequence end token ']' not found"},
		{"x: &a 1\ny: *a\n", "f.yaml:1:1: unknown key"},
		{"name: &a kvs0\nhost: *a\n", "f.yaml:1:7: want one word, not an alias or anchor"},
		{"<<: {name: x}\n", "f.yaml:1:1: want one word, not an alias or anchor"},
		{"- name\n", "f.yaml:1:1: a configuration must be keys with values, not a list"},
		{"name: a\n---\nname: b\n", "f.yaml:3:5: a second document"},
		{"ports:\n  - netdev:t\n  - netdev:t\n", "f.yaml:3:5: port t is given twice"},
		{"fdb:\n  - {mac: 52:54:00:00:00:01, prot: x}\n", "f.yaml:2:30: unknown key \"prot\""},
		{"fdb:\n  - {mac: 52:54:00:00:00:01}\n", "an fdb entry needs a port"},
		{"name: \"a\\nb\"\n", "it can't hold the character"},
		{strings.Repeat("[\n", 100), "f.yaml:65:1: more than 64 brackets are open"},
		{"\n" + strings.Repeat("- ", 3000), "f.yaml:2: the line is longer than 4096 bytes"},
		{strings.Repeat("# nothing\n", 200000), "f.yaml: the file is longer than"},
		{"\xff\xfe", "f.yaml: the file is not UTF-8 text"},
	} {
		err := config.Default().Parse(newBench().kinds, "f.yaml", []byte(tc.text))
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.80q:\n got %v\nwant %s", tc.text, err, tc.want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %q", tc.text, err)
		}
	}
}

func TestNamesThatTheKernelOrTheGrammarRefuses(t *testing.T) {
	kinds := newBench().kinds
	for _, name := range []string{"", ".", "..", "a/b", "a b", "a\tb", "a\x00b", "a:b", "a=b", "sixteen-bytes-xx", "tap%d", "\xff"} {
		if s, err := kinds.ParseSpec("netdev:" + name); err == nil {
			t.Errorf("netdev:%q was taken as %+v", name, s)
		} else if strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: the error is not plain text: %q", name, err)
		}
	}
	for _, name := range []string{"fifteen-bytes-x", "tap0", "eth0.10", "ünïcödé"} {
		if _, err := kinds.ParseSpec("netdev:" + name); err != nil {
			t.Errorf("netdev:%s: %v", name, err)
		}
	}
	if _, err := kinds.ParseSpec("stream:a-name-longer-than-an-interface-may-have,path=/x"); err != nil {
		t.Errorf("a socket's name may be longer: %v", err)
	}
}

func TestSpecErrors(t *testing.T) {
	kinds := newBench().kinds
	for _, tc := range []struct{ text, want string }{
		{"tap0", "want KIND:NAME"},
		{"netdev:tap0,vlan", `"vlan" is not key=value`},
		{"netdev:tap0,vlan=1,vlan=2", "vlan is given twice"},
		{"netdev:tap0,vlan=4095", "want a number from 1 to 4094"},
		{"netdev:tap0,path=/x", `unknown key "path" for a netdev port`},
		{"netdev:tap0,,", `"" is not key=value`},
	} {
		if _, err := kinds.ParseSpec(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", tc.text, err, tc.want)
		}
	}
}

func TestDumpFedBackChangesNothing(t *testing.T) {
	for name, text := range map[string]string{
		"whole":   whole,
		"empty":   "",
		"no host": "host: off\n",
		"number":  "name: 007\nhost: '0x7'\n",
		"trunks":  "vlan-filtering: on\nports:\n  - netdev:a,native=5\n  - netdev:b,trunk=2-4,native-tagged=9\n  - netdev:c,tunnel=7\n  - netdev:d,trunk=2+3,untagged=3\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			sw := b.start(t, b.parse(t, text))
			first := b.dump(t, sw)
			fed := b.parse(t, first)
			steps, err := config.Diff(config.Default(), b.running(t, sw), fed)
			if err != nil || len(steps) != 0 {
				t.Errorf("fed back: steps %v, error %v\n%s", steps, err, first)
			}
			// And a switch started from it is the same switch.
			again := newBench()
			if second := again.dump(t, again.start(t, again.parse(t, first))); second != first {
				t.Errorf("started from its dump:\n%s\nwas\n%s", second, first)
			}
		})
	}
}

func TestDumpIsReadable(t *testing.T) {
	b := newBench()
	golden(t, "dump.yaml", b.dump(t, b.start(t, b.parse(t, whole))))
}

// golden compares with a file in testdata; UPDATE=1 in the environment rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got\n%s\nwant\n%s", name, got, want)
	}
}

var errInjected = errors.New("injected")
