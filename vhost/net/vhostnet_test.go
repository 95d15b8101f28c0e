package vhostnet

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenSaysWhyNot(t *testing.T) {
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
		files, err := openN(c.path, 2)
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

func TestExplainKeepsTheCause(t *testing.T) {
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
		err := explain(&fs.PathError{Op: "open", Path: Path, Err: c.err})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: explained as %q, want %q in it", c.err, err, c.want)
		}
	}
}

func TestLackingNamesFeatures(t *testing.T) {
	const all = 1<<15 | 1<<27 | 1<<32
	if m := lacking(all | 1<<60); m != nil {
		t.Errorf("lacking %v with all there", m)
	}
	if m := lacking(all &^ (1 << 32)); len(m) != 1 || m[0] != "VIRTIO_F_VERSION_1" {
		t.Errorf("lacking %v, want VIRTIO_F_VERSION_1", m)
	}
	if m := lacking(0); len(m) != len(needed) {
		t.Errorf("lacking %v of nothing", m)
	}
}

// With a device, Available and Open must agree with it; without, Available says
// what is missing. Both run somewhere: here, and in a guest with the module.
func TestAvailableAgreesWithTheDevice(t *testing.T) {
	_, statErr := os.Stat(Path)
	err := Available()
	if errors.Is(statErr, fs.ErrNotExist) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no device, but Available says %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	files, err := Open(3)
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

func descriptors(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
