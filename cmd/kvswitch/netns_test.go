package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"

	"golang.org/x/sys/unix"
)

// What the opener does with real interfaces. Traffic across them is the end to
// end tests' business.

// box is a host of its own with a switch on it.
type box struct {
	host
	lab  *netns.Lab
	net  *netns.Host
	proc *netns.Proc
}

func newBox(t *testing.T) *box {
	lab := netns.New(t)
	return &box{host: host{t: t, dir: netns.Dir(t)}, lab: lab, net: lab.Host("box")}
}

// cables lays cables to another host.
func (b *box) cables(names ...string) {
	other := b.lab.Host("other")
	for _, name := range names {
		b.lab.Cable(b.net, name, other, name)
	}
}

// hold opens a tap as a guest's QEMU does, until the test ends.
func (b *box) hold(tap string) {
	b.t.Helper()
	err := b.net.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { unix.Close(fd) })
		ifr, err := unix.NewIfreq(tap)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		b.t.Fatalf("hold %s: %v", tap, err)
	}
}

// run starts a switch with a host interface.
func (b *box) run(args ...string) {
	b.t.Helper()
	b.proc = b.net.Start(b.command(append([]string{"run"}, args...)...))
	netns.Await(b.t, 20*time.Second, "the control socket answers", func() error {
		if r := b.kvswitch("show"); r.code != 0 {
			select {
			case <-b.proc.Done():
				b.t.Fatalf("the switch ended:\n%s", b.proc.Log())
			default:
			}
			return os.ErrNotExist
		}
		return nil
	})
}

func (b *box) stop() {
	b.t.Helper()
	if err := b.proc.Stop(10 * time.Second); err != nil {
		b.t.Errorf("stop: %v\n%s", err, b.proc.Log())
	}
}

func (b *box) command(args ...string) *exec.Cmd { return program(b.t, b.dir, args...) }

// on runs a verb on the box's own network: ifup and ifdown change interfaces.
func (b *box) on(args ...string) string {
	b.t.Helper()
	cmd := b.command(args...)
	out, err := b.net.Try(append([]string{"env", asProgram + "=1", "KVSWITCH_RUN_DIR=" + b.dir}, cmd.Args...)...)
	if err != nil {
		return "failed: " + out
	}
	return out
}

func TestHostInterfaceIsTheFirstUplinks(t *testing.T) {
	b := newBox(t)
	b.cables("eth0", "eth1")
	b.net.MTU("eth1", 4000)
	b.run("--port", "netdev:eth0", "--uplink", "eth1", "--workers", "2")
	st := b.status()
	if mac := b.net.MAC("eth1"); st.MAC != mac || b.net.MAC("kvs0") != mac || st.HostPort.MAC != mac {
		t.Errorf("switch %v, host interface %v, uplink %v", st.MAC, b.net.MAC("kvs0"), mac)
	}
	if st.HostPort.MTU != 4000 {
		t.Errorf("MTU %d, want the uplink's", st.HostPort.MTU)
	}
	if p := b.host.port("eth1"); !p.Uplink || !strings.Contains(b.must("config", "dump"), "- eth1,queues=2\n") {
		t.Errorf("uplink: %+v", p)
	}
	if b.host.port("eth0").Uplink {
		t.Error("a veth was taken for an uplink that nobody called one")
	}
	for _, verb := range [][]string{{"port", "del"}, {"delif"}, {"ifdown"}} {
		b.refused(1, "kvs0: it is the host interface, which goes with the switch", append(verb, "kvs0")...)
	}
	if r := b.kvswitch("__complete", "port", "del", ""); !strings.HasPrefix(r.out, "eth1\neth0\n:") && !strings.HasPrefix(r.out, "eth0\neth1\n:") {
		t.Errorf("completion of port del: %q", r.out)
	}
	// The uplink goes; the switch keeps its address.
	b.must("delif", "eth1")
	if after := b.status(); after.BridgeID != st.BridgeID || after.MAC != st.MAC {
		t.Errorf("without its uplink the switch is %s, was %s", after.BridgeID, st.BridgeID)
	}
	b.stop()
	if links := b.net.Links(); slices.Contains(links, "kvs0") {
		t.Errorf("left behind: %v", links)
	}
	if left, _ := os.ReadDir(b.dir); len(left) > 1 { // the log
		t.Errorf("left behind: %v", left)
	}
}

func TestInterfacesThatCannotBePorts(t *testing.T) {
	b := newBox(t)
	b.cables("eth0")
	b.net.Bridge("br0", "eth0")
	b.run()
	for name, want := range map[string]string{
		"eth0": "it belongs to kernel bridge br0; take it out first",
		"br0":  "it is a kernel bridge",
		"lo":   "the loopback interface can't be a port",
		"kvs0": "there is a port of that name already",
	} {
		b.refused(1, want, "addif", name)
	}
	if st := b.status(); len(st.Ports) != 0 {
		t.Errorf("ports: %+v", st.Ports)
	}
}

func TestIfupAttachesATapAndSetsItUp(t *testing.T) {
	b := newBox(t)
	b.net.Run("ip", "tuntap", "add", "tap0", "mode", "tap")
	b.run("--mtu", "9000")
	for range 2 { // a second guest of that name finds the first one's port
		if out := b.on("ifup", "tap0"); out != "" {
			t.Fatalf("ifup: %s", out)
		}
	}
	if p := b.host.port("tap0"); p.Kind != "netdev" || p.MTU != 9000 {
		t.Errorf("port: %+v", p)
	}
	if out := b.net.Run("ip", "link", "show", "tap0"); !strings.Contains(out, ",UP>") {
		t.Errorf("tap0 is not up: %s", out)
	}
	for range 2 { // one that was detached by hand is no failure
		if out := b.on("ifdown", "tap0"); out != "" {
			t.Errorf("ifdown: %s", out)
		}
	}
	if st := b.status(); len(st.Ports) != 0 {
		t.Errorf("ports: %+v", st.Ports)
	}
	if out := b.on("ifup", "nosuch"); !strings.Contains(out, "ifup nosuch: ") {
		t.Errorf("ifup of nothing: %s", out)
	}
	b.stop()
	if out := b.on("ifup", "tap0"); !strings.Contains(out, "no switch is running") {
		t.Errorf("ifup without a switch: %s", out)
	}
	if out := b.on("ifdown", "tap0"); !strings.Contains(out, "no switch is running") {
		t.Errorf("ifdown without a switch: %s", out)
	}
}

// A switch that is restarted knows nothing of the taps that guests brought; ifup
// is the mend that README names.
func TestIfupAttachesAGuestsTapAgainAfterARestart(t *testing.T) {
	b := newBox(t)
	b.hold("tap0")
	b.run()
	for range 2 {
		if out := b.on("ifup", "tap0"); out != "" {
			t.Fatalf("ifup: %s", out)
		}
		eventually(t, "the guest is on the segment", func() bool { return b.host.port("tap0").STP.State == "forwarding" })
		b.stop()
		b.run()
		if st := b.status(); len(st.Ports) != 0 {
			t.Errorf("ports after a restart: %+v", st.Ports)
		}
	}
}

// A tap that the switch made goes with its port, also when a crash came in
// between; one that somebody else made, or that a guest holds, stays.
func TestTapsGoWithTheirPorts(t *testing.T) {
	b := newBox(t)
	b.net.Run("ip", "tuntap", "add", "theirs", "mode", "tap")
	b.run("--mtu", "2000")
	b.must("port", "add", "tap:ours,queues=2")
	b.must("port", "add", "tap:theirs")
	b.must("port", "add", "tap:crashed")
	if p := b.host.port("ours"); p.Kind != "tap" || p.MTU != 2000 || p.Uplink {
		t.Errorf("ours: %+v", p)
	}
	b.must("port", "del", "ours")
	b.must("port", "del", "theirs")
	want := []string{"crashed", "theirs"}
	taps := func() (names []string) {
		for _, l := range b.net.Links() {
			if l != "lo" && l != "kvs0" && l != "kvs0-sw" { // its far end
				names = append(names, l)
			}
		}
		slices.Sort(names)
		return names
	}
	if got := taps(); !slices.Equal(got, want) {
		t.Errorf("taps %q, want %q", got, want)
	}
	b.proc.Kill()
	b.run("--port", "tap:crashed", "--port", "tap:held")
	b.hold("held")
	b.stop()
	if got := taps(); !slices.Equal(got, []string{"held", "theirs"}) {
		t.Errorf("after the stop: taps %q", got)
	}
	b.run("--port", "tap:held")
	eventually(t, "the guest is on the segment again", func() bool { return b.host.port("held").Link == "up" })
	b.cables("v0")
	b.refused(1, "a veth device has that name: attach it as netdev:v0", "port", "add", "tap:v0")
	b.refused(1, "owner=nobody-of-that-name: no such user", "port", "add", "tap:x,owner=nobody-of-that-name")
	b.refused(1, "queues=0: want a number", "port", "add", "tap:x,queues=0")
	if slices.Contains(b.net.Links(), "x") {
		t.Error("a refused tap is left")
	}
}

func TestReloadOfInterfacesIsWholeOrNothing(t *testing.T) {
	b := newBox(t)
	b.cables("a", "b", "c")
	file := filepath.Join(b.dir, "switch.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("host: off\nports: [netdev:a, 'netdev:b,isolated=on']\n")
	b.run("--config", file)
	before := b.must("config", "dump")
	write("host: off\nports: ['netdev:b,isolated=off', netdev:c, netdev:nosuch]\n")
	b.refused(1, "nosuch", "reload")
	if after := b.must("config", "dump"); after != before {
		t.Errorf("a refused reload changed something:\n%s\nwas:\n%s", after, before)
	}
	write("host: off\nports: [netdev:b, netdev:c]\n")
	if got, want := b.must("reload"), "remove port a\nset port b to its defaults\nadd port c\n"; got != want {
		t.Errorf("reload:\n%s\nwant:\n%s", got, want)
	}
	// What was let go can be had again.
	b.must("addif", "a")
}
