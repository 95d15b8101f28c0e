package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// TestLibvirtHookAttachesADomainsTaps installs the hook and calls it as libvirt
// does, with the example of the documentation, whose interfaces are for two
// switches and none.
func TestLibvirtHookAttachesADomainsTaps(t *testing.T) {
	host := netns.New(t).Host("host")
	dir := netns.Dir(t)
	start := func(name string) *kvs {
		k := &kvs{t: t, host: host, dir: dir} // two in one directory, so stop's look at it would be wrong
		k.proc = host.Start(exec.Command(program, "run", "--run-dir", dir, "--name", name, "--no-host", "--vlan-filtering"))
		netns.Await(t, startPatience, name+" is ready", func() error {
			if _, stderr, code := k.try("show", "-s", name); code != 0 {
				return fmt.Errorf("%s", stderr)
			}
			return nil
		})
		return k
	}
	k := start("kvs0")
	start("kvs1")
	example, err := filepath.Abs("../../../switch/manage/qemu/testdata/ethernet.xml")
	if err != nil {
		t.Fatal(err)
	}
	hooks := filepath.Join(netns.Dir(t), "hooks")
	if out := k.do("libvirt", "hooks", "install", "--dir", hooks); !strings.Contains(out, "installed") {
		t.Errorf("hooks install says %q", out)
	}
	if out := k.do("libvirt", "hooks", "install", "--dir", hooks); !strings.Contains(out, "there already") {
		t.Errorf("hooks install, again, says %q", out)
	}
	// libvirt hands its hooks no environment.
	call := func(operation string) (string, error) {
		return host.Try("sh", "-c", fmt.Sprintf("env -i %s/qemu.d/kvswitch web %s begin - <%s", hooks, operation, example))
	}
	ports := func(name string) (names []string) {
		var st statusDoc
		if err := json.Unmarshal([]byte(k.do("show", "-s", name, "--json")), &st); err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Ports {
			names = append(names, p.Name)
		}
		return names
	}
	check := func(when string, kvs0, kvs1 []string) {
		t.Helper()
		if a, b := ports("kvs0"), ports("kvs1"); !slices.Equal(a, kvs0) || !slices.Equal(b, kvs1) {
			t.Errorf("%s: ports %v and %v, want %v and %v", when, a, b, kvs0, kvs1)
		}
	}

	// The second tap is missing: the guest must not start with half its network.
	host.Run("ip", "tuntap", "add", "web0", "mode", "tap")
	out, err := call("start")
	if err == nil || !strings.Contains(out, "web1") {
		t.Errorf("start without web1 says %q, %v", out, err)
	}
	check("start without web1", nil, nil)

	host.Run("ip", "tuntap", "add", "web1", "mode", "tap")
	for _, operation := range []string{"prepare", "start", "started", "reconnect"} {
		if out, err := call(operation); err != nil || out != "" {
			t.Errorf("%s says %q, %v", operation, out, err)
		}
	}
	check("running", []string{"web0"}, []string{"web1"})
	if out := host.Run("ip", "link", "show", "web0"); !strings.Contains(out, "mtu 9000 ") {
		t.Errorf("want MTU 9000: %s", out)
	}
	for _, want := range []struct{ name, port, mac, settings string }{
		{"kvs0", "web0", "52:54:00:6a:1d:01", "vlan=10,isolated=on"},
		{"kvs1", "web1", "52:54:00:6a:1d:02", "trunk=20+30,native=1"},
	} {
		if out := k.do("fdb", "show", "-s", want.name, "--port", want.port); !strings.Contains(out, want.mac) {
			t.Errorf("%s does not know %s on %s:\n%s", want.name, want.mac, want.port, out)
		}
		if dump := k.do("config", "dump", "-s", want.name); !strings.Contains(dump, "netdev:"+want.port+","+want.settings+"\n") {
			t.Errorf("want %s with %s, config dump of %s:\n%s", want.port, want.settings, want.name, dump)
		}
	}
	for _, operation := range []string{"stopped", "release", "release"} {
		if out, err := call(operation); err != nil || out != "" {
			t.Errorf("%s says %q, %v", operation, out, err)
		}
	}
	check("ended", nil, nil)
	if out := k.do("libvirt", "hooks", "uninstall", "--dir", hooks); !strings.Contains(out, "removed") {
		t.Errorf("hooks uninstall says %q", out)
	}
}

// A port that was made for a guest's tap is no other guest's, and goes by itself;
// one that the file has keeps what it says.
func TestNoGuestInheritsAnothersPort(t *testing.T) {
	host := netns.New(t).Host("host")
	dir := netns.Dir(t)
	file := filepath.Join(dir, "kvs0.yaml")
	if err := os.WriteFile(file, []byte("ports: ['tap:own,max-learned=7']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k := run(t, host, "--no-host", "--config", file)
	make := func(name string) { host.Run("ip", "tuntap", "add", name, "mode", "tap") }
	ifup := func(name string) { host.Run(program, "--run-dir", k.dir, "ifup", name) }
	dumped := func(want string) {
		t.Helper()
		if dump := k.do("config", "dump"); !strings.Contains(dump, ":"+want+"\n") {
			t.Errorf("want %s, config dump:\n%s", want, dump)
		}
	}
	for _, name := range []string{"tap0", "byhand"} {
		make(name)
	}
	ifup("tap0")
	k.do("addif", "byhand")
	k.do("port", "set", "tap0", "isolated=on", "max-learned=3")
	k.do("port", "set", "byhand", "max-learned=5")
	dumped("tap0,isolated=on,max-learned=3")

	// QEMU is killed, and the next one has the same name for its tap.
	host.Run("ip", "link", "del", "tap0")
	k.awaitPort("tap0", "is down", func(p portDoc) bool { return p.Link == "down" })
	make("tap0")
	ifup("tap0")
	dumped("tap0")
	ifup("own")
	dumped("own,max-learned=7")

	// And that one ends, too.
	for _, name := range []string{"tap0", "byhand", "own"} {
		host.Run("ip", "link", "del", name)
	}
	netns.Await(t, startPatience, "the guest's port to go", func() error {
		names := []string{}
		for _, p := range k.status().Ports {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, []string{"own", "byhand"}) {
			return fmt.Errorf("ports %v", names)
		}
		return nil
	})
	if log := k.proc.Log(); !strings.Contains(log, "its tap is gone") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
	make("byhand")
	k.awaitPort("byhand", "is back", func(p portDoc) bool { return p.Link == "down" && p.MAC != "" })
	dumped("byhand,max-learned=5")
}
