package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
)

// brctl's words with the bridge's name, as a script that was written for brctl has
// them, and without it do the same.
func TestBrctlsWordsTakeTheBridgesName(t *testing.T) {
	h := start(t, "--name", "br0")
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	steps := []struct {
		words []string // without the bridge's name
		ok    func(*vswitch.Status, *vswitch.STPStatus) bool
	}{
		{[]string{"setageing", "60"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.AgeingS == 60 }},
		{[]string{"setageing", "0"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.AgeingS == 0 }},
		{[]string{"setageing", "300.0"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.AgeingS == 300 }},
		{[]string{"setbridgeprio", "4096"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return strings.HasPrefix(s.BridgeID, "1000.") }},
		{[]string{"setmaxage", "16"}, func(_ *vswitch.Status, t *vswitch.STPStatus) bool { return t.BridgeMaxAge == 16 }},
		{[]string{"setfd", "12"}, func(_ *vswitch.Status, t *vswitch.STPStatus) bool { return t.BridgeForwardDelay == 12 }},
		{[]string{"sethello", "1"}, func(_ *vswitch.Status, t *vswitch.STPStatus) bool { return t.BridgeHello == 1 }},
		{[]string{"setpathcost", "a", "100"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.Ports[0].STP.Cost == 100 }},
		{[]string{"setportprio", "a", "16"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.Ports[0].STP.PortID == "4001" }},
		{[]string{"hairpin", "a", "on"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.Ports[0].Settings["hairpin"] == "on" }},
		{[]string{"stp", "off"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.STP.Mode == "off" }},
		{[]string{"stp", "yes"}, func(s *vswitch.Status, _ *vswitch.STPStatus) bool { return s.STP.Mode == "rstp" }},
	}
	reset := func() {
		h.must("setageing", "299")
		h.must("stp", "set", "priority=32768", "hello=2s", "max-age=20s", "forward-delay=15s", "mode=stp")
		h.must("port", "set", "a", "cost=0", "prio=128", "hairpin=off")
	}
	for _, st := range steps {
		for _, words := range [][]string{st.words, append([]string{st.words[0], "br0"}, st.words[1:]...)} {
			reset()
			h.must(words...)
			status, tree := h.status(), decode[vswitch.STPStatus](h, "stp", "show")
			if !st.ok(&status, &tree) {
				t.Errorf("kvswitch %s: %+v %+v", strings.Join(words, " "), status, tree)
			}
		}
		h.refused(1, "switch br1 is not running", append([]string{st.words[0], "br1"}, st.words[1:]...)...)
	}
	for _, words := range [][]string{{"show"}, {"showmacs"}, {"showstp"}} {
		if with := h.must(append(words, "br0")...); words[0] != "showstp" && with != h.must(words...) || !strings.Contains(h.must("show"), "br0") {
			t.Errorf("kvswitch %s br0:\n%s", words[0], with)
		}
		h.refused(1, "switch br1 is not running", append(words, "br1")...)
	}
	h.refused(1, "no such interface", "addif", "br0", "nosuch0")
	h.refused(1, "switch br1 is not running", "addif", "br1", "nosuch0")
	h.refused(1, "`kvswitch run --name br7`", "addbr", "br7")
	h.refused(1, "end its `kvswitch run`", "delbr", "br7")
	h.must("delif", "br0", "a")
	if st := h.status(); len(st.Ports) != 0 {
		t.Errorf("left: %+v", st.Ports)
	}
}

// Every time that brctl takes is taken, in any order and each for itself; a
// forward delay below the standard's least is that.
func TestBrctlsTimesNeedNoOrder(t *testing.T) {
	h := start(t)
	for _, tree := range []string{"rstp", "off"} {
		for _, tc := range []struct {
			words             []string
			hello, age, delay uint32
		}{
			{[]string{"setfd", "4"}, 2, 20, 4},
			{[]string{"setfd", "30.00"}, 2, 20, 30},
			{[]string{"setmaxage", "40"}, 2, 40, 15},
			{[]string{"setmaxage", "6"}, 2, 6, 15},
			{[]string{"sethello", "10"}, 10, 20, 15},
			{[]string{"setfd", "0"}, 2, 20, 0},
			{[]string{"setfd", "2"}, 2, 20, 2},
		} {
			if r := h.kvswitch("stp", "set", "mode="+tree, "hello=2s", "max-age=20s", "forward-delay=15s"); r.code != 0 {
				t.Fatal(r.errors)
			}
			if r := h.kvswitch(tc.words...); r.code != 0 {
				t.Errorf("%s, %q: exit %d\n%s", tree, tc.words, r.code, r.errors)
			}
			got := decode[vswitch.STPStatus](h, "stp", "show")
			if got.BridgeHello != tc.hello || got.BridgeMaxAge != tc.age || got.BridgeForwardDelay != max(tc.delay, stp.MinForwardDelay) {
				t.Errorf("%s, %q: hello %d, max age %d, forward delay %d", tree, tc.words, got.BridgeHello, got.BridgeMaxAge, got.BridgeForwardDelay)
			}
		}
	}
}

// A noun alone shows, list and ls do, and they take what show takes.
func TestNounsAloneShow(t *testing.T) {
	h := start(t)
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	h.must("fdb", "add", "52:54:00:00:00:01", "--port", "a", "--static")
	for noun, shows := range map[string]string{"port": "show", "fdb": "show", "vlan": "show", "stp": "show", "vm": "list", "config": "dump"} {
		want := h.must(noun, shows)
		for _, words := range [][]string{{noun}, {noun, "list"}, {noun, "ls"}, {noun, "show"}, {noun, "-s", "kvs0"}} {
			if got := h.must(words...); got != want {
				t.Errorf("kvswitch %s:\n%s\nwant\n%s", strings.Join(words, " "), got, want)
			}
		}
	}
	for _, words := range [][]string{{"list"}, {"ls"}, {"show"}} {
		if out := h.must(words...); !strings.HasPrefix(out, "bridge name\t") {
			t.Errorf("kvswitch %s:\n%s", words[0], out)
		}
	}
	if list := decode[[]vswitch.FDBEntry](h, "fdb", "--port", "a"); len(list) != 1 {
		t.Errorf("fdb --port a --json: %+v", list)
	}
}

// The words of a port in a switch that doesn't filter, and what else the log warns
// of, are said by the verb too, whichever it is.
func TestVerbsSayWhatTheLogWarnsOf(t *testing.T) {
	h := &host{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	file := h.socket("switch.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte("host: off\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	h.start("--config", file)
	warns := func(want string, words ...string) {
		t.Helper()
		r := h.kvswitch(words...)
		want = "kvswitch: warning: " + want
		if r.code != 0 || strings.Count(r.errors, "\n") != 1 || !strings.HasPrefix(r.errors, want) {
			t.Errorf("kvswitch %s: exit %d: %q, want %q", strings.Join(words, " "), r.code, r.errors, want)
		}
	}
	const text = "its VLAN settings have no effect: the switch does not filter VLANs, all its ports are on one segment; start it with --vlan-filtering to have "
	warns("a: "+text+"vlan=10", "port", "add", "stream:a,vlan=10,path="+h.socket("a"))
	warns("a: "+text+"vlan=20", "port", "set", "a", "vlan=20")
	warns("a: "+text+"trunk=5,native=20", "vlan", "add", "a", "5")
	h.must("port", "set", "a", "isolated=on") // nothing new
	if w := h.port("a").Warnings; len(w) != 1 || !strings.HasPrefix(w[0], text) {
		t.Errorf("warnings: %q", w)
	}
	warns("a: "+text+"trunk=5+20,native=1", "vlan", "add", "a", "1", "--pvid", "--untagged")
	warns("a: "+text+"trunk=5,native=1", "vlan", "del", "a", "20")
	h.must("vlan", "del", "a", "5")
	if w := h.port("a").Warnings; len(w) != 0 {
		t.Errorf("warnings that are no longer true: %q", w)
	}
	write("ports: ['stream:b,vlan=30,path=" + h.socket("b") + "']\n")
	warns("b: "+text+"vlan=30", "reload")
	if out := h.must("reload"); out != "nothing to change\n" {
		t.Errorf("reload once more: %q", out)
	}
}
