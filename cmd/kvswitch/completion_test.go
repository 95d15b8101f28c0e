package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// completions are what the shell is offered for the last of args.
func (h *host) completions(args ...string) []string {
	h.t.Helper()
	lines := strings.Split(h.kvswitch(append([]string{"__completeNoDesc"}, args...)...).out, "\n")
	return lines[:max(0, slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, ":") }))]
}

func TestCompletionOffersValues(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	for _, tc := range []struct {
		args []string
		want []string // all that is offered, or "…" and some of it
	}{
		{[]string{"run", "--stp", ""}, []string{"rstp", "stp", "off"}},
		{[]string{"run", "--in-kernel", ""}, []string{"auto", "off"}},
		{[]string{"run", "--log-format", ""}, []string{"text", "json", "journal"}},
		{[]string{"run", "--port", ""}, []string{"netdev:", "tap:", "vhost-user:", "stream:", "dgram:"}},
		{[]string{"run", "--port", "tap:vm1,isolated="}, []string{"tap:vm1,isolated=on", "tap:vm1,isolated=off"}},
		{[]string{"run", "--workers", ""}, nil},
		{[]string{"port", "add", ""}, []string{"netdev:", "tap:", "vhost-user:", "stream:", "dgram:"}},
		{[]string{"port", "add", "vhost-user:vm1,mode="}, []string{"vhost-user:vm1,mode=server", "vhost-user:vm1,mode=client"}},
		{[]string{"port", "add", "vhost-user:vm1,mode=client,"}, []string{"…", "vhost-user:vm1,mode=client,path=", "vhost-user:vm1,mode=client,vlan="}},
		{[]string{"port", "add", "nosuch:vm1,"}, nil},
		{[]string{"port", "set", "vm1", "edge="}, []string{"edge=on", "edge=off", "edge=auto"}},
		{[]string{"port", "set", "vm1", "vlan="}, nil},
		{[]string{"port", "set", "vm1", ""}, []string{"…", "edge=", "vlan=", "max-learned="}},
		{[]string{"stp", "set", ""}, []string{"mode=", "priority=", "hello=", "max-age=", "forward-delay=", "tx-hold="}},
		{[]string{"stp", "set", "mode="}, []string{"mode=rstp", "mode=stp", "mode=off"}},
		{[]string{"stp", "port", "vm1", "recover="}, []string{"recover=now", "recover=300s"}},
		{[]string{"stp", "port", "vm1", "bpdu-guard="}, []string{"bpdu-guard=on", "bpdu-guard=off"}},
		{[]string{"vm", "attach", "--vhost", ""}, []string{"auto", "on", "off"}},
		{[]string{"vm", "attach", "--set", "hairpin="}, []string{"hairpin=on", "hairpin=off"}},
	} {
		got := h.completions(tc.args...)
		ok := slices.Equal(got, tc.want)
		if len(tc.want) > 0 && tc.want[0] == "…" {
			ok = !slices.ContainsFunc(tc.want[1:], func(w string) bool { return !slices.Contains(got, w) })
		}
		if !ok {
			t.Errorf("%q: %q, want %q", tc.args, got, tc.want)
		}
	}
}

func TestCompletionOffersInterfaces(t *testing.T) {
	b := newBox(t)
	b.net.Run("ip", "tuntap", "add", "tap7", "mode", "tap")
	b.net.Run("ip", "tuntap", "add", "tap8", "mode", "tap")
	offered := func(args ...string) []string {
		return strings.Fields(b.on(append([]string{"__completeNoDesc"}, args...)...))
	}
	for _, tc := range []struct{ args, want []string }{
		{[]string{"addif", ""}, []string{"tap7", "tap8"}},
		{[]string{"addif", "tap7", ""}, []string{"tap8"}},
		{[]string{"ifup", ""}, []string{"tap7", "tap8"}},
		{[]string{"run", "--uplink", ""}, []string{"tap7", "tap8", "netdev:"}},
		{[]string{"port", "add", "netdev:"}, []string{"netdev:tap7", "netdev:tap8"}},
	} {
		got := offered(tc.args...)
		for _, w := range tc.want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %q, want %q in it", tc.args, got, w)
			}
		}
		if slices.Contains(got, "lo") || len(tc.args) == 3 && tc.args[0] == "addif" && slices.Contains(got, "tap7") {
			t.Errorf("%q: %q", tc.args, got)
		}
	}
}

// With several switches and none named, the ports of all are offered.
func TestCompletionOffersPortsOfSeveralSwitches(t *testing.T) {
	dir := netns.Dir(t)
	left := start(t, "--name", "left", "--port", "stream:a,path="+dir+"/a")
	right := &host{t: t, dir: left.dir, log: new(bytes.Buffer)}
	right.start("--name", "right", "--port", "stream:b,path="+dir+"/b")
	eventually(t, "the second switch answers", func() bool { return right.kvswitch("show", "-s", "right").code == 0 })
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"port", "del", ""}, []string{"a", "b"}},
		{[]string{"port", "del", "-s", "right", ""}, []string{"b"}},
		{[]string{"fdb", "show", "-s", "left", "--port", ""}, []string{"a"}},
		{[]string{"stats", "-s", "nosuch", ""}, nil},
	} {
		if got := left.completions(tc.args...); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.args, got, tc.want)
		}
	}
}

// bash replaces what stands behind the last equals sign, and so must be given that.
func TestBashCompletionOfASpecsValues(t *testing.T) {
	script := (&host{t: t, dir: t.TempDir()}).must("completion", "bash")
	colon, equals := strings.Index(script, `special_char "$cur" :`), strings.Index(script, `special_char "$cur" =`)
	if colon < 0 || equals < 0 || colon < equals {
		t.Errorf("the script takes off what is before the colon at %d, before the equals sign at %d: want the latter first", colon, equals)
	}
}
