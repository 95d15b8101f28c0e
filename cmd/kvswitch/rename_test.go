package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// awaitPort waits until the switch shows a port called name and likes what it is.
func (b *box) awaitPort(name, what string, up bool) {
	b.t.Helper()
	netns.Await(b.t, 10*time.Second, name+": "+what, func() error {
		for _, p := range b.status().Ports {
			if p.Name == name && (p.Link == "up") == up {
				return nil
			}
		}
		return os.ErrNotExist
	})
}

func TestAPortFollowsItsDeviceThroughNamesAndAltnames(t *testing.T) {
	b := newBox(t)
	b.cables("eth0", "eth1")
	file := filepath.Join(b.dir, "kvs0.yaml")
	if err := os.WriteFile(file, []byte("uplinks: [eth0]\nfdb:\n  - {mac: 02:00:00:00:00:77, port: eth0}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.run("--config", file)
	b.net.Run("ip", "link", "set", "eth0", "name", "wan0")
	b.awaitPort("wan0", "the new name", true)
	if out := b.must("show"); !strings.Contains(out, "wan0") || strings.Contains(out, "eth0") {
		t.Errorf("show:\n%s", out)
	}
	for _, name := range []string{"eth0", "wan0"} {
		b.must("port", "set", name, "cost=77")
		if out := b.must("port", "show", name); !strings.Contains(out, "asked for as") || !strings.Contains(out, "cost 77") {
			t.Errorf("port show %s:\n%s", name, out)
		}
	}
	// The file that says eth0 still describes it, and so does a dump.
	if out := b.must("reload"); strings.Contains(out, "eth0") && !strings.Contains(out, "set port eth0") {
		t.Errorf("reload of the same file: %s", out)
	}
	dump := b.must("config", "dump")
	if !strings.Contains(dump, "- wan0") || strings.Contains(dump, "eth0") {
		t.Errorf("dump:\n%s", dump)
	}
	if err := os.WriteFile(file, []byte(dump), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := b.must("reload"); strings.TrimSpace(out) != "nothing to change" && out != "" {
		t.Errorf("feeding the dump back: %s", out)
	}
	// Another device may have the old name.
	b.net.Run("ip", "link", "set", "eth1", "down")
	b.net.Run("ip", "link", "set", "eth1", "name", "eth0", "up")
	b.must("addif", "eth0")
	b.must("delif", "wan0")
	b.must("delif", "eth0")
	if n := len(b.status().Ports); n != 0 {
		t.Errorf("%d ports are left", n)
	}
	// By an altname, a long one, too.
	for _, alt := range []string{"lan", "a-name-longer-than-an-interface-may-have"} {
		b.net.Run("ip", "link", "property", "add", "dev", "eth0", "altname", alt)
		b.must("addif", alt)
		if out := b.must("show"); !strings.Contains(out, "eth0") {
			t.Errorf("show:\n%s", out)
		}
		if dump := b.must("config", "dump"); !strings.Contains(dump, "netdev:"+alt) {
			t.Errorf("dump:\n%s", dump)
		}
		b.net.Delete("eth0")
		b.awaitPort(alt, "waits for its device", false)
		b.lab.Cable(b.net, "veth7", b.lab.Host("third"), "far")
		b.net.Run("ip", "link", "property", "add", "dev", "veth7", "altname", alt)
		b.awaitPort("veth7", "found by its altname", true)
		b.must("delif", alt)
		b.net.Run("ip", "link", "set", "veth7", "down")
		b.net.Run("ip", "link", "set", "veth7", "name", "eth0", "up")
	}
	b.stop()
}
