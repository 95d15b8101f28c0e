package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// TestAnOrdinaryUserHasAWholeSwitch runs the switch without any privilege, with
// socket ports only, between two guests.
func TestAnOrdinaryUserHasAWholeSwitch(t *testing.T) {
	host := netns.New(t).Host("host")
	dir := netns.Dir(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(netns.Dir(t), "kvswitch")
	if err := os.WriteFile(bin, text, 0o755); err != nil {
		t.Fatal(err)
	}
	k := &kvs{t: t, host: host, dir: dir}
	k.proc = host.Start(exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", bin, "run", "--run-dir", dir,
		"--no-host", "--port", "stream:a,path="+dir+"/a", "--port", fmt.Sprintf("dgram:b,local=%s/switch,remote=%[1]s/guest", dir)))
	t.Cleanup(k.stop)
	k.awaitReady()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.proc.Pid()))
	if err != nil || !strings.Contains(string(status), "CapPrm:\t0000000000000000") || !strings.Contains(string(status), "Uid:\t65534\t65534") {
		t.Errorf("the switch has privileges: %v\n%s", err, status)
	}

	a := vm.Launch(t, vm.Options{Name: "a", Host: host, Net: []string{
		"-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path=" + dir + "/a", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0a"}})
	b := vm.Launch(t, vm.Options{Name: "b", Host: host, Net: []string{
		"-netdev", fmt.Sprintf("dgram,id=n0,local.type=unix,local.path=%s/guest,remote.type=unix,remote.path=%[1]s/switch", dir),
		"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0b"}})
	// These QEMUs are root's, and so is the socket that the second one binds.
	netns.Await(t, startPatience, "QEMU's socket", func() error { return os.Chmod(dir+"/guest", 0o666) })
	for i, g := range []*vm.Guest{a, b} {
		g.AwaitBoot()
		g.Run(fmt.Sprintf("ip link set eth0 up && ip addr add 192.0.2.%d/24 dev eth0", i+1))
	}
	converse(t, a, "192.0.2.1", b, "192.0.2.2")

	// What it may not do it says in one line.
	k.refuses(1, []string{"tap0"}, "port", "add", "tap:tap0")
	k.refuses(1, []string{"eth0"}, "port", "add", "netdev:eth0")
}
