package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// Whatever word attaches a device, what it is decides: the tap of a VM is a
// guarded edge, a veth or a NIC finds out what is behind it.
func TestDefaultsGoByTheDevice(t *testing.T) {
	b := newBox(t)
	b.cables("a0", "a1", "a2", "a3", "a4")
	for _, tap := range []string{"t0", "t1", "t2", "t3", "t4"} {
		b.net.Run("ip", "tuntap", "add", tap, "mode", "tap")
	}
	file := filepath.Join(b.dir, "switch.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("ports: [netdev:a0, netdev:t0]\n")
	b.run("--config", file, "--port", "netdev:a1", "--port", "netdev:t1")
	b.must("addif", "a2")
	b.must("addif", "t2")
	b.must("port", "add", "netdev:a3")
	b.must("port", "add", "netdev:t3")
	write("ports: [netdev:a0, netdev:t0, netdev:a4, netdev:t4]\n")
	b.must("reload")
	b.must("port", "add", "tap:made")
	check := func() {
		t.Helper()
		for _, p := range b.status().Ports {
			if guest := p.Name[0] != 'a'; p.STP.BPDUGuard != guest {
				t.Errorf("%s: BPDU guard %v, want %v", p.Name, p.STP.BPDUGuard, guest)
			}
			if p.Uplink {
				t.Errorf("%s is an uplink, which nobody said", p.Name)
			}
		}
	}
	check()
	if n := len(b.status().Ports); n != 11 {
		t.Errorf("%d ports", n)
	}
	// A file is no less right while a device of its is gone.
	b.net.Run("ip", "link", "del", "a0")
	eventually(t, "a0 is gone", func() bool { return b.host.port("a0").Link == "down" })
	if out := b.must("reload"); out != "nothing to change\n" {
		t.Errorf("reload: %s", out)
	}
	check()
	// An uplink is one whatever it is.
	b.must("port", "del", "t3")
	b.must("port", "add", "netdev:t3", "--uplink")
	if p := b.host.port("t3"); !p.Uplink || p.STP.BPDUGuard {
		t.Errorf("an uplink that is a tap: %+v", p)
	}
}

// configBPDU is a frame with the BPDU of a neighbour that speaks STP.
func configBPDU() []byte {
	id := stp.BridgeID{Priority: 0x9000, Addr: mem.MAC(7)}
	pdu := stp.BPDU{Type: stp.TypeConfig, Root: id, Bridge: id, MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}.Append(nil)
	w := []byte{0x01, 0x80, 0xc2, 0, 0, 0, 0x02, 0x54, 0, 0, 0, 7, 0, byte(3 + len(pdu)), 0x42, 0x42, 0x03}
	return append(append(w, pdu...), make([]byte, 64-len(w)-len(pdu))...)
}

// A neighbour that speaks STP is no surprise at a NIC; where a guard holds a port,
// the verb that brought it about says so and what to do, and so does whatever
// shows the port from then on.
func TestHeldPortIsSaidByTheVerbThatCausedIt(t *testing.T) {
	b := newBox(t)
	far := b.lab.Host("far")
	b.lab.Cable(b.net, "eth0", far, "eth0")
	defer func(usual time.Duration) { holdWait = usual }(holdWait)
	holdWait = 20 * time.Second // it is said as soon as it is so; a busy machine is to be no fault
	station := far.Station("eth0")
	defer station.Close()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				station.Send(configBPDU())
			}
		}
	}()
	defer func() { close(stop); <-done }()
	file := filepath.Join(b.dir, "switch.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("host: off\n")
	b.run("--config", file)
	b.must("addif", "eth0")
	eventually(t, "the port hears its neighbour", func() bool {
		return strings.Contains(b.must("stp", "show", "--json"), `"rx_discarded": 0`) && !strings.Contains(b.must("stp", "show", "--json"), `"rx_config": 0`)
	})
	if p := b.host.port("eth0"); p.STP.Held != "" {
		t.Errorf("held: %+v", p.STP)
	}
	const held = "port eth0 is held by bpdu-guard: received a BPDU from bridge 9000.025400000007: " +
		"if a switch belongs there, `kvswitch stp port eth0 edge=auto bpdu-guard=off`; if not, take it away, then `kvswitch stp port eth0 recover=now`\n"
	says := func(words ...string) {
		t.Helper()
		if r := b.kvswitch(words...); r.code != 0 || r.errors != "kvswitch: warning: "+held {
			t.Errorf("kvswitch %s: exit %d: %q", strings.Join(words, " "), r.code, r.errors)
		}
	}
	says("stp", "port", "eth0", "bpdu-guard=on")
	says("stp", "port", "eth0", "recover=now")
	b.must("stp", "off")
	says("stp", "on")
	b.must("delif", "eth0")
	says("port", "add", "netdev:eth0,edge=on,bpdu-guard=on")
	b.must("delif", "eth0")
	write("host: off\nports: ['netdev:eth0,bpdu-guard=on']\n")
	says("reload")
	// And it is seen, with the mend, wherever the port is.
	if r := b.kvswitch("show"); !strings.HasSuffix(r.out, "\teth0\t(held by bpdu-guard)\n") || r.errors != "kvswitch: warning: "+held {
		t.Errorf("show: %+v", r)
	}
	if r := b.kvswitch("showstp"); r.errors != "kvswitch: warning: "+held {
		t.Errorf("showstp: %+v", r)
	}
	for _, words := range [][]string{{"port", "show"}, {"stp", "show"}} {
		if out := b.must(words...); !strings.HasSuffix(out, "\n\n"+held) {
			t.Errorf("%s:\n%s", strings.Join(words, " "), out)
		}
	}
	if out := b.must("port", "show", "eth0"); !strings.Contains(out, "recover=now`\n") || !strings.Contains(out, "bpdu-guard: received a BPDU") {
		t.Errorf("port show eth0:\n%s", out)
	}
	if log := b.proc.Log(); !strings.Contains(log, "`kvswitch stp port eth0 recover=now`") {
		t.Errorf("log:\n%s", log)
	}
	// What is said to help does.
	b.must("stp", "port", "eth0", "edge=auto", "bpdu-guard=off")
	if p := b.host.port("eth0"); p.STP.Held != "" {
		t.Errorf("still held: %+v", p.STP)
	}
}

// An address that the host loses the use of is warned of by the verb that takes
// the interface, and no longer once it has gone.
func TestAddressOnAPortIsWarnedOfWhileItIsThere(t *testing.T) {
	b := newBox(t)
	b.cables("eth0")
	b.net.Addr("eth0", "192.0.2.7/24")
	b.run()
	r := b.kvswitch("addif", "eth0")
	if want := "kvswitch: warning: eth0: the host can't be reached at 192.0.2.7/24 any more"; r.code != 0 || !strings.HasPrefix(r.errors, want) || strings.Count(r.errors, "\n") != 1 {
		t.Errorf("addif: %+v", r)
	}
	if w := b.host.port("eth0").Warnings; len(w) != 1 {
		t.Errorf("warnings: %q", w)
	}
	b.net.Run("ip", "addr", "del", "192.0.2.7/24", "dev", "eth0")
	eventually(t, "the warning has gone", func() bool { return len(b.host.port("eth0").Warnings) == 0 })
}
