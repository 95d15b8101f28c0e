package e2e

import (
	"encoding/json"
	"fmt"
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
	call := func(operation string) (string, error) {
		return host.Try("sh", "-c", fmt.Sprintf("KVSWITCH_RUN_DIR=%s %s/qemu.d/kvswitch web %s begin - <%s", dir, hooks, operation, example))
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
