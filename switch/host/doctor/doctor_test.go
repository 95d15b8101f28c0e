package doctor_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/host/doctor"
)

// host is a machine in a folder, on which all is well.
func host(t *testing.T) doctor.Host {
	t.Helper()
	root := t.TempDir()
	h := doctor.Host{
		Root:   root,
		RunDir: "/run/kvswitch",
		Uname:  func() (string, error) { return "6.12.1-amd64", nil },
		VHost:  func() error { return nil },
		TCX:    func() error { return nil },
		Intake: func() error { return nil }, InKernel: func() error { return nil },
		QEMU: func() (string, error) {
			return "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c)\n", nil
		},
		Limit: func() (uint64, error) { return 1 << 20, nil },
	}
	put(t, h, "dev/net/tun", "")
	put(t, h, "dev/kvm", "")
	put(t, h, "proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n")
	put(t, h, "proc/meminfo", "HugePages_Total:       8\nHugePages_Free:        3\nHugepagesize:       2048 kB\n")
	put(t, h, "run/x", "")
	return h
}

func put(t *testing.T, h doctor.Host, path, text string) {
	t.Helper()
	path = filepath.Join(h.Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, h doctor.Host, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(h.Root, path)); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, h doctor.Host, check string) doctor.Finding {
	t.Helper()
	for _, f := range h.Examine() {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no check %q", check)
	return doctor.Finding{}
}

func TestAllIsWell(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range host(t).Examine() {
		if f.Status != doctor.OK || f.Text == "" || f.Mend != "" {
			t.Errorf("%+v", f)
		}
		if seen[f.Check] {
			t.Errorf("%s is checked twice", f.Check)
		}
		seen[f.Check] = true
	}
	if len(seen) != 15 {
		t.Errorf("%d checks, want 15: %v", len(seen), seen)
	}
}

func TestEachLackIsSaidWithItsMend(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*testing.T, *doctor.Host)
		check  string
		status doctor.Status
		text   string
		mend   string
	}{
		{"old kernel", func(_ *testing.T, h *doctor.Host) { h.Uname = func() (string, error) { return "4.19.0", nil } },
			"kernel", doctor.Missing, "need 4.20", "newer kernel"},
		{"middle-aged kernel", func(_ *testing.T, h *doctor.Host) { h.Uname = func() (string, error) { return "6.1.0-32", nil } },
			"kernel", doctor.OK, "USO", ""},
		{"strange kernel", func(_ *testing.T, h *doctor.Host) { h.Uname = func() (string, error) { return "plan9", nil } },
			"kernel", doctor.Warn, `"plan9"`, ""},
		{"no rights", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/self/status", "CapEff:\t0000000000000000\n") },
			"capabilities", doctor.Missing, "CAP_NET_ADMIN (no host interface, no taps), CAP_NET_RAW (no netdev ports), CAP_BPF", "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon+ep "},
		{"sys_admin stands for bpf", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/self/status", "CapEff:\t0000000000203000\n") },
			"capabilities", doctor.OK, "are there", ""},
		{"unprivileged", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/self/status", "CapEff:\t0\n") },
			"unprivileged use", doctor.OK, "needs no right at all", ""},
		{"no /proc", func(t *testing.T, h *doctor.Host) { remove(t, *h, "proc/self/status") },
			"capabilities", doctor.Warn, "can't be found out", ""},
		{"no tun", func(t *testing.T, h *doctor.Host) { remove(t, *h, "dev/net/tun") },
			"tun", doctor.Missing, "run --no-host works", "modprobe tun"},
		{"no kvm", func(t *testing.T, h *doctor.Host) { remove(t, *h, "dev/kvm") },
			"kvm", doctor.Warn, "emulated", "firmware"},
		{"QEMU 7.2 without KVM", func(t *testing.T, h *doctor.Host) { remove(t, *h, "dev/kvm") },
			"qemu", doctor.Warn, "7.2.22: without KVM it ends with a segmentation fault", "vectors=0"},
		{"QEMU 7.2 with KVM", func(*testing.T, *doctor.Host) {}, "qemu", doctor.OK, "7.2.22: guests without KVM need vectors=0", ""},
		{"another QEMU without KVM", func(t *testing.T, h *doctor.Host) {
			remove(t, *h, "dev/kvm")
			h.QEMU = func() (string, error) { return "QEMU emulator version 10.0.2\n", nil }
		}, "qemu", doctor.OK, "10.0.2", ""},
		{"no QEMU", func(t *testing.T, h *doctor.Host) {
			h.QEMU = func() (string, error) { return "", &exec.Error{Name: "qemu-system-x86_64", Err: exec.ErrNotFound} }
		}, "qemu", doctor.OK, "none in the PATH", ""},
		{"no vhost", func(_ *testing.T, h *doctor.Host) {
			h.VHost = func() error { return &fs.PathError{Op: "open", Path: "/dev/vhost-net", Err: fs.ErrNotExist} }
		},
			"vhost-net", doctor.Warn, "/dev/vhost-net", "modprobe vhost_net"},
		{"no right to vhost", func(_ *testing.T, h *doctor.Host) { h.VHost = func() error { return fs.ErrPermission } },
			"vhost-net", doctor.Warn, "permission", "give this user access"},
		{"no tcx", func(_ *testing.T, h *doctor.Host) { h.TCX = func() error { return errors.New("invalid argument") } },
			"tcx", doctor.OK, "clsact", ""},
		{"receives by BPF", func(*testing.T, *doctor.Host) {}, "bpf receive", doctor.OK, "shared memory", ""},
		{"receives by rings", func(_ *testing.T, h *doctor.Host) {
			h.Intake = func() error { return errors.New("load BPF program: no\nsecond line") }
		}, "bpf receive", doctor.Warn, "packet rings, which cost a third more for small frames: load BPF program: no", "Linux 6.2"},
		{"forwards in the kernel", func(*testing.T, *doctor.Host) {}, "in-kernel", doctor.OK, "never leave the kernel", ""},
		{"forwards by workers", func(_ *testing.T, h *doctor.Host) { h.InKernel = func() error { return errors.New("no such map") } },
			"in-kernel", doctor.Warn, "through the workers, slower than in the kernel: no such map", "Linux 6.2"},
		{"forwards by workers, as all do", func(_ *testing.T, h *doctor.Host) { h.Intake = func() error { return errors.New("no") } },
			"in-kernel", doctor.Warn, "see bpf receive", ""},
		{"no right to ask", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/self/status", "CapEff:\t0\n") },
			"tcx", doctor.Warn, "CAP_BPF", "as root"},
		{"no hugepages", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/meminfo", "HugePages_Total: 0\n") },
			"hugepages", doctor.Warn, "none are reserved", "vm.nr_hugepages"},
		{"hugepages", func(*testing.T, *doctor.Host) {},
			"hugepages", doctor.OK, "3 of 8 pages of 2048 kB are free", ""},
		{"br_netfilter", func(t *testing.T, h *doctor.Host) { put(t, *h, "proc/sys/net/bridge/x", "") },
			"br_netfilter", doctor.OK, "kvswitch's frames do not pass it", ""},
		{"bridge", func(t *testing.T, h *doctor.Host) { put(t, *h, "sys/module/bridge/x", "") },
			"bridge", doctor.OK, "does not use it", ""},
		{"few files", func(_ *testing.T, h *doctor.Host) { h.Limit = func() (uint64, error) { return 1024, nil } },
			"open files", doctor.Warn, "about 102 ports", "LimitNOFILE"},
		{"run directory in a file", func(t *testing.T, h *doctor.Host) { h.RunDir = "/run/x/y" },
			"run directory", doctor.Missing, "not a directory", "--run-dir"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t)
			tc.change(t, &h)
			f := find(t, h, tc.check)
			if f.Status != tc.status || !strings.Contains(f.Text, tc.text) || !strings.Contains(f.Mend, tc.mend) || tc.mend == "" && f.Mend != "" {
				t.Errorf("got %+v", f)
			}
			for _, f := range h.Examine() {
				if strings.ContainsAny(f.Text+f.Mend, "\n") {
					t.Errorf("more than one line: %+v", f)
				}
			}
		})
	}
}

// The real thing at least looks at everything and says something.
func TestThisHostCanBeExamined(t *testing.T) {
	for _, f := range doctor.ThisHost(t.TempDir(), func() error { return fs.ErrPermission }).Examine() {
		t.Logf("%-8s %-16s %s [%s]", f.Status, f.Check, f.Text, f.Mend)
		if f.Text == "" || f.Status == "" {
			t.Errorf("%+v", f)
		}
	}
}
