package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// crash kills the switch as a bug would.
func (b *box) crash() {
	b.t.Helper()
	b.proc.Kill()
	select {
	case <-b.proc.Done():
	case <-time.After(10 * time.Second):
		b.t.Fatal("the switch outlived SIGKILL")
	}
}

// addrGen is how an interface makes itself IPv6 addresses; "1" is not at all.
func (b *box) addrGen(name string) (mode string) {
	b.t.Helper()
	err := b.net.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/addr_gen_mode")
		mode = strings.TrimSpace(string(text))
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return mode
}

func TestWhatASwitchChangedIsPutBackAfterItWasKilled(t *testing.T) {
	b := newBox(t)
	b.cables("eth0", "eth1", "eth2")
	names := []string{"eth0", "eth1", "eth2"}
	b.net.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "0") // the lab has it off
	b.net.Sysctl("net/ipv6/conf/eth0/addr_gen_mode", "0")
	b.net.Sysctl("net/ipv6/conf/eth1/addr_gen_mode", "0")
	b.net.Sysctl("net/ipv6/conf/eth2/addr_gen_mode", "1") // by choice
	check := func(when string, want ...string) {
		t.Helper()
		for i, name := range names {
			if got := b.addrGen(name); got != want[i] {
				t.Errorf("%s: %s has addr_gen_mode %s, want %s", when, name, got, want[i])
			}
		}
	}
	b.run("--uplink", "eth0", "--port", "netdev:eth1", "--port", "netdev:eth2")
	check("as ports", "1", "1", "1")
	b.crash()
	check("killed", "1", "1", "1")
	// The next start has one of them as its port, under another name, and puts the
	// other back, which is none.
	b.net.Down("eth0")
	b.net.Run("ip", "link", "set", "eth0", "name", "wan0", "up")
	names[0] = "wan0"
	b.run("--uplink", "wan0")
	check("started anew", "1", "0", "1")
	b.stop()
	check("stopped", "0", "0", "1")
	if left, _ := filepath.Glob(filepath.Join(b.dir, "*")); len(left) != 0 {
		t.Errorf("left in the run directory: %v", left)
	}
	// The address that was kept off comes.
	netns.Await(t, 10*time.Second, "a link-local address", func() error {
		if out := b.net.Run("ip", "-6", "addr", "show", "dev", "wan0"); !strings.Contains(out, "fe80::") {
			return os.ErrNotExist
		}
		return nil
	})
	// Another device that has its index meanwhile is none of ours.
	b.run("--port", "netdev:eth1")
	index := b.net.Index("eth1")
	b.crash()
	b.net.Delete("eth1")
	b.net.Run("ip", "link", "add", "other0", "index", count(index), "type", "veth", "peer", "name", "far0")
	names = []string{"other0"}
	b.net.Sysctl("net/ipv6/conf/other0/addr_gen_mode", "1")
	b.run()
	check("another device", "1")
	b.stop()
	check("another device, stopped", "1")
}

// A tap that is somebody else's and was down is down again, and up while it is a port.
func TestAForeignTapThatWasSetUpIsDownAgain(t *testing.T) {
	b := newBox(t)
	isUp := func() bool { return strings.Contains(b.net.Run("ip", "link", "show", "vm1"), ",UP") }
	b.net.Run("ip", "tuntap", "add", "dev", "vm1", "mode", "tap")
	for _, end := range []func(){b.crash, b.stop} {
		b.run("--port", "tap:vm1")
		if !isUp() {
			t.Error("a tap that is a port is not up")
		}
		end()
	}
	if isUp() {
		t.Error("it is still up")
	}
}
