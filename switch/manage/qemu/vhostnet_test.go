package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

func TestVHostOpenSaysWhyNot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for _, c := range []struct{ path, want string }{
		{"/nonexistent/vhost-net", "modprobe vhost_net"},
		{"/dev/null", "no vhost_net device"},
		{file, "no vhost_net device"},
	} {
		files, err := openVHosts(c.path, 2)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("open %s: error %v, want %q in it", c.path, err, c.want)
		}
		if files != nil {
			t.Errorf("open %s: files beside an error", c.path)
		}
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func TestVHostExplainKeepsTheCause(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "CONFIG_VHOST_NET"},
		{unix.EACCES, "group kvm"},
		{unix.EPERM, "group kvm"},
		{unix.ENODEV, "no module"},
		{unix.ENXIO, "no module"},
		{unix.EMFILE, "too many open files"},
	} {
		err := explainVHost(&fs.PathError{Op: "open", Path: vhostPath, Err: c.err})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: explained as %q, want %q in it", c.err, err, c.want)
		}
	}
}

func TestVHostLackingNamesFeatures(t *testing.T) {
	const all = 1<<15 | 1<<27 | 1<<32
	if m := lackingVHost(all | 1<<60); m != nil {
		t.Errorf("lacking %v with all there", m)
	}
	if m := lackingVHost(all &^ (1 << 32)); len(m) != 1 || m[0] != "VIRTIO_F_VERSION_1" {
		t.Errorf("lacking %v, want VIRTIO_F_VERSION_1", m)
	}
	if m := lackingVHost(0); len(m) != len(neededVHost) {
		t.Errorf("lacking %v of nothing", m)
	}
}

// With a device, VHostAvailable and openVHosts must agree with it; without, VHostAvailable says
// what is missing. Both run somewhere: here, and in a guest with the module.
func TestVHostAvailableAgreesWithTheDevice(t *testing.T) {
	_, statErr := os.Stat(vhostPath)
	err := VHostAvailable()
	if errors.Is(statErr, fs.ErrNotExist) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no device, but VHostAvailable says %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	files, err := openVHosts(vhostPath, 3)
	if err != nil || len(files) != 3 {
		t.Fatalf("open: %d files, %v", len(files), err)
	}
	for _, f := range files {
		f.Close()
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// TestOnAHostWithVHostNet runs the tests above, those of the device, in a guest that is a host
// with vhost_net: Debian's cloud kernel.
func TestOnAHostWithVHostNet(t *testing.T) {
	if VHostAvailable() == nil {
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
	out, err := host.Try(inNamespace + "=1 /test -test.v -test.run TestVHost 2>&1")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}
