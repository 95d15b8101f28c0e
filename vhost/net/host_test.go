package vhostnet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

// TestOnAHostWithVHostNet runs this package's tests in a guest that is a host
// with vhost_net: Debian's cloud kernel.
func TestOnAHostWithVHostNet(t *testing.T) {
	if Available() == nil {
		t.Skip("this is one")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var a initrd.Archive
	a.Program("/test", self)
	data, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(netns.Dir(t), "test.cpio")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	host := vm.Start(t, vm.Options{Name: "host", SMP: 2, MemMB: 1024, Initrd: []string{path}})
	host.Run("modprobe tun && modprobe vhost_net && ip link set lo up && mkdir -p /tmp")
	env := ""
	if os.Getenv(compare) != "" {
		env = compare + "=1 "
	}
	out, err := host.Try(env + "/test -test.v -test.run 'Rings|Available|Explain|Lacking' 2>&1")
	if err != nil || strings.Contains(out, "no vhost_net here") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}
