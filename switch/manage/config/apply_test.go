package config_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// reload takes a switch from one file to the next and returns the steps.
func (b *bench) reload(t *testing.T, sw *vswitch.Switch, last, want *config.Config) ([]string, error) {
	t.Helper()
	running := b.running(t, sw)
	steps, err := config.Diff(last, running, want)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, s := range steps {
		texts = append(texts, s.String())
	}
	return texts, config.Apply(sw, b, running, steps)
}

func portNames(sw *vswitch.Switch) (names []string) {
	for _, p := range sw.Status().Ports {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

func TestReloadAppliesTheDifference(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		steps          []string
	}{
		{"nothing", "ports: [netdev:a]", "ports: [netdev:a]", nil},
		{"port added", "", "ports: ['netdev:a,vlan=5']", []string{"add port a"}},
		{"port removed", "ports: [netdev:a, netdev:b]", "ports: [netdev:b]", []string{"remove port a"}},
		{"removal before addition", "ports: [netdev:a]", "ports: [netdev:b]", []string{"remove port a", "add port b"}},
		{"setting", "ports: [netdev:a]", "ports: ['netdev:a,vlan=5']", []string{"set port a to vlan=5"}},
		{"setting back", "ports: ['netdev:a,vlan=5']", "ports: [netdev:a]", []string{"set port a to its defaults"}},
		{"becomes uplink", "ports: [netdev:a]", "uplinks: [a]", []string{"set port a to its defaults, as an uplink"}},
		{"another device", "ports: ['stream:a,path=/x']", "ports: ['stream:a,path=/y']", []string{"replace port a (stream:a,path=/x) by stream:a,path=/y"}},
		{"ageing", "", "ageing: 10s", []string{"change ageing from 300s to 10s"}},
		{"word no longer said", "ageing: 10s", "", []string{"change ageing from 10s to 300s"}},
		{"times of the tree together", "", "max-age: 40\nforward-delay: 30\nhello: 2", []string{"change max-age from 20s to 40s, forward-delay from 15s to 30s"}},
		{"host's own name no longer said", "name: kvs7\nhost: kvs7", "name: kvs7", nil},
		{"host interface's VLAN", "host: br0", "host: br0,vlan=9,isolated=on", []string{"change host from br0 to br0,vlan=9,isolated=on"}},
		{"host interface's VLAN no longer said", "host: 'kvs0,vlan=9'", "", []string{"change host from kvs0,vlan=9 to kvs0"}},
		{"tree off", "", "stp: off", []string{"change stp from rstp to off"}},
		{"entry", "ports: [netdev:a]", "ports: [netdev:a]\nfdb: [{mac: '52:54:00:00:00:01', port: a}]", []string{"add fdb entry 52:54:00:00:00:01 vlan 1 on a"}},
		{"entry gone", "ports: [netdev:a]\nfdb: [{mac: '52:54:00:00:00:01', port: a}]", "ports: [netdev:a]", []string{"delete fdb entry 52:54:00:00:00:01 vlan 1 on a"}},
		{"entry moves", "ports: [netdev:a, netdev:b]\nfdb: [{mac: '52:54:00:00:00:01', port: a}]",
			"ports: [netdev:a, netdev:b]\nfdb: [{mac: '52:54:00:00:00:01', port: b}]", []string{"add fdb entry 52:54:00:00:00:01 vlan 1 on b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench()
			last, want := b.parse(t, tc.old), b.parse(t, tc.new)
			sw := b.start(t, last)
			steps, err := b.reload(t, sw, last, want)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(steps, tc.steps) {
				t.Errorf("steps\n got %q\nwant %q", steps, tc.steps)
			}
			// What runs now is what a switch started from the new file runs.
			fresh := newBench()
			if got, want := unpinned(b.dump(t, sw)), unpinned(fresh.dump(t, fresh.start(t, fresh.parse(t, tc.new)))); got != want {
				t.Errorf("after the reload:\n%s\na fresh start:\n%s", got, want)
			}
			if again, err := b.reload(t, sw, want, want); err != nil || len(again) != 0 {
				t.Errorf("the same file again: %q, %v", again, err)
			}
		})
	}
}

// unpinned is a dump without the address that each switch makes up.
func unpinned(dump string) string {
	lines := strings.Split(dump, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "mac:") }), "\n")
}

func TestReloadLeavesAloneWhatNoFileNames(t *testing.T) {
	b := newBench()
	file := b.parse(t, "ports: [netdev:a]")
	sw := b.start(t, file)
	// A VM's tap comes by ifup, and somebody changes a timer by hand.
	if _, err := sw.AddPort("tap0", mem.NewPort(), specConfig(t, b, "netdev:tap0,vlan=7")); err != nil {
		t.Fatal(err)
	}
	if err := sw.SetAgeing(60e9); err != nil {
		t.Fatal(err)
	}
	if err := sw.AddFDB(mem.MAC(9), 1, "tap0", true); err != nil {
		t.Fatal(err)
	}
	before := b.dump(t, sw)
	steps, err := b.reload(t, sw, file, b.parse(t, "ports: [netdev:a]"))
	if err != nil || len(steps) != 0 {
		t.Errorf("steps %q, error %v", steps, err)
	}
	if after := b.dump(t, sw); after != before {
		t.Errorf("changed:\n%s\nwas\n%s", after, before)
	}
}

func specConfig(t *testing.T, b *bench, text string) vswitch.PortConfig {
	t.Helper()
	spec, err := b.kinds.ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := spec.PortConfig()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestReloadRefusesWhatCannotChangeLive(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"workers: 2", "workers from 1 to 2"},
		{"name: other\nhost: kvs0", "name from kvs0 to other"},
		{"host: off", "host from kvs0 to off"},
		{"host: br0,vlan=5", "host from kvs0 to br0,vlan=5"},
		{"vlan-filtering: on", "vlan-filtering from off to on"},
		{"busy-poll: always", "busy-poll from 20us to always"},
		{"mac: 52:54:00:00:00:01", "mac from"},
		{"max-entries: 10", "max-entries from 65536 to 10"},
	} {
		b := newBench()
		last := b.parse(t, "ports: [netdev:a]")
		sw := b.start(t, last)
		before := b.dump(t, sw)
		_, err := b.reload(t, sw, last, b.parse(t, tc.file+"\nports: [netdev:b]"))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("%s: error %v, want one that names %q", tc.file, err, tc.want)
		}
		if after := b.dump(t, sw); after != before || len(b.opens) != 0 {
			t.Errorf("%s: something was changed:\n%s\nwas\n%s", tc.file, after, before)
		}
	}
}

// A new device that can't be opened costs nothing: not one step is taken.
func TestReloadOpensEverythingFirst(t *testing.T) {
	b := newBench()
	last := b.parse(t, "ports: [netdev:a, netdev:b]")
	sw := b.start(t, last)
	a := b.opened["a"]
	_, err := b.reload(t, sw, last, b.parse(t, "ageing: 10s\nports: [netdev:b, netdev:c, netdev:nosuch]"))
	if err == nil || !strings.Contains(err.Error(), "no such interface") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("error %v", err)
	}
	if got := portNames(sw); !slices.Equal(got, []string{"a", "b"}) || a.Closed() {
		t.Errorf("ports %q, a closed: %v", got, a.Closed())
	}
	if !b.opened["c"].Closed() {
		t.Error("the device opened for c was left open")
	}
}

// A start takes back what it did, too, and names the step that failed.
func TestStartIsAllOrNothing(t *testing.T) {
	b := newBench()
	sw := b.start(t, b.parse(t, "host: off"))
	want := b.parse(t, "ports: [netdev:a, netdev:nosuch]")
	nothing := config.Nothing(want)
	steps, err := config.Diff(config.Default(), nothing, want)
	if err != nil || len(steps) != 3 || steps[0].String() != "make host interface kvs0" {
		t.Fatalf("%v, %v", steps, err)
	}
	err = config.Apply(sw, b, nothing, steps)
	var failure *config.Failure
	if !errors.As(err, &failure) || failure.Step.String() != "add port nosuch" || failure.Left != nil {
		t.Errorf("error %v", err)
	}
	if st := sw.Status(); st.Host != "" || len(st.Ports) != 0 || !b.opened["a"].Closed() {
		t.Errorf("host %q, ports %v, device closed: %v", st.Host, portNames(sw), b.opened["a"].Closed())
	}
}

// A step that fails takes back those before it, in every place it can fail.
func TestReloadIsAllOrNothing(t *testing.T) {
	const old = `
ageing: 100s
hello: 1
ports: [netdev:a, 'netdev:b,vlan=3', 'stream:s,path=/x']
fdb: [{mac: '52:54:00:00:00:01', port: a}, {mac: '52:54:00:00:00:02', port: s}]
`
	// The last step fails: the entry's port does not exist.
	const new = `
ageing: 200s
hello: 2
uplinks: [u]
ports: ['netdev:b,vlan=4', 'stream:s,path=/y', netdev:c]
fdb: [{mac: '52:54:00:00:00:03', port: nowhere}]
`
	b := newBench()
	last := b.parse(t, old)
	sw := b.start(t, last)
	before := b.dump(t, sw)
	steps, err := b.reload(t, sw, last, b.parse(t, new))
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "nowhere") {
		t.Fatalf("error %v", err)
	}
	if len(steps) < 8 {
		t.Errorf("only %d steps before the failure: %q", len(steps), steps)
	}
	if after := b.dump(t, sw); sorted(after) != sorted(before) {
		t.Errorf("not all was put back:\n%s\nwas\n%s", after, before)
	}
	for _, name := range []string{"u", "c"} {
		if !b.opened[name].Closed() {
			t.Errorf("the device of %s was left open", name)
		}
	}
}

// sorted is a dump without its order: a port put back may have another number.
func sorted(dump string) string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// When a replaced port's new device fails, the old attachment is opened again.
func TestReplaceThatFailsPutsTheOldDeviceBack(t *testing.T) {
	b := newBench()
	last := b.parse(t, "ports: ['stream:s,path=/x']\nfdb: [{mac: '52:54:00:00:00:02', port: s}]")
	sw := b.start(t, last)
	before := b.dump(t, sw)
	kinds := slices.Clone(b.kinds)
	open := kinds[1].Open
	kinds[1].Open = func(s config.Spec) (frame.Port, error) {
		if s.Value("path") == "/y" {
			return nil, fmt.Errorf("open %s: %w", s.Name, errInjected)
		}
		return open(s)
	}
	running := b.running(t, sw)
	steps, err := config.Diff(last, running, b.parse(t, "ports: ['stream:s,path=/y']\nfdb: [{mac: '52:54:00:00:00:02', port: s}]"))
	if err != nil {
		t.Fatal(err)
	}
	err = config.Apply(sw, &bench{kinds: kinds}, running, steps)
	if err == nil || !strings.Contains(err.Error(), "injected") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("error %v", err)
	}
	if after := b.dump(t, sw); after != before {
		t.Errorf("not put back:\n%s\nwas\n%s", after, before)
	}
}
