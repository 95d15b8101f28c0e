// Package doctor tells which of the things that a switch for virtual machines can
// use this host has, what follows from those it lacks, and how to mend that.
//
// It looks and opens, and asks QEMU for its version; it changes nothing, loads no
// module and attaches nothing.
// Every check stands alone: one that can't look says so. Any goroutine may
// call it.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kvswitch/kvswitch/switch/inkernel"
	"github.com/kvswitch/kvswitch/switch/port/netdev"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Status is how good a finding is.
type Status string

// OK is all well; Warn is something that costs comfort or speed; Missing is
// something without which a part of the switch does not work.
const (
	OK      Status = "ok"
	Warn    Status = "warn"
	Missing Status = "missing"
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Text   string `json:"text"` // what is found, and what follows from it
	Mend   string `json:"mend"` // what to do; "" when nothing is to be done
}

// Host is what the checks look at. Tests put something else in its place.
type Host struct {
	Root     string                          // put before every path
	RunDir   string                          // where control sockets will be
	Uname    func() (string, error)          // the kernel's release
	VHost    func() error                    // nil if vhost_net can be used
	TCX      func() error                    // nil if tcx programs can be attached
	Intake   func() error                    // nil if netdev ports can receive by BPF
	InKernel func() error                    // nil if their programs can forward by themselves
	QEMU     func() (string, error)          // what QEMU says of its version
	Limit    func() (hard uint64, err error) // most open files
}

// ThisHost is the machine that the program runs on. vhost tells whether QEMU can
// be given vhost_net, as package qemu knows it.
func ThisHost(runDir string, vhost func() error) Host {
	return Host{Root: "/", RunDir: runDir, Uname: release, VHost: vhost, TCX: tcx, Intake: netdev.IntakeAvailable, InKernel: inkernel.Available, QEMU: qemuVersion, Limit: openFiles}
}

// Examine makes every check, in a fixed order.
func (h Host) Examine() []Finding {
	caps, err := h.capabilities()
	checks := []Finding{
		h.kernel(),
		capabilityFinding(caps, err),
		h.tun(),
		h.shield(caps),
		h.intake(),
		h.shortWay(),
		h.vhost(),
		h.kvm(),
		h.qemu(),
		h.hugepages(),
		h.brNetfilter(),
		h.bridge(),
		h.files(),
		h.runDir(),
		h.unprivileged(caps),
	}
	return checks
}

func (h Host) path(elem ...string) string { return filepath.Join(append([]string{h.Root}, elem...)...) }

func release() (string, error) {
	var u unix.Utsname
	err := unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:]), err
}

// kernel versions that matter: PACKET_IGNORE_OUTGOING came with 4.20, without
// which a port would take its own frames for its neighbours'; USO on taps with
// 6.2, tcx with 6.6.
func (h Host) kernel() Finding {
	text, err := h.Uname()
	if err != nil {
		return Finding{"kernel", Warn, "its version can't be found out: " + err.Error(), ""}
	}
	var major, minor int
	if n, _ := fmt.Sscanf(text, "%d.%d", &major, &minor); n != 2 {
		return Finding{"kernel", Warn, fmt.Sprintf("its version %q can't be read", text), ""}
	}
	atLeast := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case !atLeast(4, 20):
		return Finding{"kernel", Missing, text + ": netdev ports need 4.20 or newer (PACKET_IGNORE_OUTGOING)", "install a newer kernel"}
	case !atLeast(6, 2):
		return Finding{"kernel", OK, text + ": large UDP frames (USO) are cut before they reach taps; 6.2 passes them whole", ""}
	}
	return Finding{"kernel", OK, text, ""}
}

// Capabilities that parts of the switch need, by their bits (capabilities(7)).
const (
	capNetAdmin = 1 << 12
	capNetRaw   = 1 << 13
	capSysAdmin = 1 << 21
	capBPF      = 1 << 39
)

// capabilities is the process's effective set.
func (h Host) capabilities() (set uint64, err error) {
	text, err := os.ReadFile(h.path("proc/self/status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			_, err := fmt.Sscanf(hex, "%x", &set)
			return set, err
		}
	}
	return 0, errors.New("no CapEff in /proc/self/status")
}

func capabilityFinding(set uint64, err error) Finding {
	if err != nil {
		return Finding{"capabilities", Warn, "they can't be found out: " + err.Error(), ""}
	}
	var lacking []string
	if set&capNetAdmin == 0 {
		lacking = append(lacking, "CAP_NET_ADMIN (no host interface, no taps)")
	}
	if set&capNetRaw == 0 {
		lacking = append(lacking, "CAP_NET_RAW (no netdev ports)")
	}
	if set&(capBPF|capSysAdmin) == 0 {
		lacking = append(lacking, "CAP_BPF (the host's own stack also hears netdev ports)")
	}
	if lacking == nil {
		return Finding{"capabilities", OK, "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF are there", ""}
	}
	return Finding{"capabilities", Missing, "without " + strings.Join(lacking, ", "),
		"run as root, or: setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon+ep " + program()}
}

func program() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "kvswitch"
}

// opens reports how a device can be opened: nil, or why not.
func (h Host) opens(path string) error {
	fd, err := unix.Open(h.path(path), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (h Host) tun() Finding {
	switch err := h.opens("dev/net/tun"); {
	case err == nil:
		return Finding{"tun", OK, "/dev/net/tun opens", ""}
	case errors.Is(err, fs.ErrPermission):
		return Finding{"tun", Missing, "/dev/net/tun may not be opened: no host interface, no taps", "run as root, or give this user the device"}
	default:
		return Finding{"tun", Missing, "/dev/net/tun can't be opened (" + err.Error() + "): no host interface, no taps; run --no-host works",
			"modprobe tun, or give this container the device"}
	}
}

func (h Host) shield(caps uint64) Finding {
	if caps&capNetAdmin == 0 || caps&(capBPF|capSysAdmin) == 0 {
		return Finding{"tcx", Warn, "whether the host's own stack can be shut out of netdev ports takes CAP_NET_ADMIN and CAP_BPF to find out", "run doctor as root"}
	}
	if h.TCX() != nil {
		return Finding{"tcx", OK, "the kernel has no tcx (Linux 6.6): netdev ports use a clsact filter, which a crash leaves behind until the next start", ""}
	}
	return Finding{"tcx", OK, "the host's own stack can be shut out of netdev ports", ""}
}

func (h Host) intake() Finding {
	if err := h.Intake(); err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n") // the verifier's errors have many lines
		return Finding{"bpf receive", Warn, "netdev ports receive by packet rings, which cost a third more for small frames: " + why,
			"Linux 6.2 or newer with CONFIG_DEBUG_INFO_BTF, and root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"}
	}
	return Finding{"bpf receive", OK, "netdev ports receive by BPF, in shared memory", ""}
}

func (h Host) shortWay() Finding {
	const check, lacks = "in-kernel", "frames between known stations go through the workers, slower than in the kernel: "
	switch err := h.InKernel(); {
	case err != nil:
		return Finding{check, Warn, lacks + err.Error(), "Linux 6.2 or newer on amd64, and root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"}
	case h.Intake() != nil:
		return Finding{check, Warn, lacks + "see bpf receive", ""}
	}
	return Finding{check, OK, "frames between known stations at netdev ports never leave the kernel", ""}
}

// tcx asks which tcx programs the loopback interface has: kernels without tcx
// don't know the question.
func tcx() error {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	return err
}

func (h Host) vhost() Finding {
	err := h.VHost()
	if err == nil {
		return Finding{"vhost-net", OK, "QEMU can leave guests' rings to the kernel (vhost=on)", ""}
	}
	mend := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		mend = "modprobe vhost_net"
	case errors.Is(err, fs.ErrPermission):
		mend = "give this user access to /dev/vhost-net"
	}
	return Finding{"vhost-net", Warn, "guests' frames on taps go through QEMU, not the kernel's vhost thread: " + err.Error(), mend}
}

func (h Host) kvm() Finding {
	switch err := h.opens("dev/kvm"); {
	case err == nil:
		return Finding{"kvm", OK, "/dev/kvm opens; whether a guest boots with it, only a guest can show", ""}
	case errors.Is(err, fs.ErrPermission):
		return Finding{"kvm", Warn, "/dev/kvm may not be opened by this user: guests run emulated, many times slower", "add the user to the group that owns /dev/kvm"}
	default:
		return Finding{"kvm", Warn, "there is no /dev/kvm: guests run emulated, many times slower",
			"turn virtualisation on in the firmware, or nested virtualisation in the host, and modprobe kvm_intel or kvm_amd"}
	}
}

// qemuVersion is what the QEMU of this machine's architecture says.
func qemuVersion() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, "qemu-system-"+unix.ByteSliceToString(u.Machine[:]), "--version").Output()
	return string(text), err
}

// qemu knows the one version that a vhost-user port ends: 7.2 with MSI-X and
// without KVM reads through nil when a vhost device starts, whatever its back end.
func (h Host) qemu() Finding {
	text, err := h.QEMU()
	_, version, found := strings.Cut(text, "version ")
	version, _, _ = strings.Cut(version, "\n")
	version, _, _ = strings.Cut(version, " ")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return Finding{"qemu", OK, "there is none in the PATH", ""}
	case err != nil || !found:
		return Finding{"qemu", OK, "its version can't be found out", ""}
	case strings.HasPrefix(version, "7.2.") && h.opens("dev/kvm") == nil:
		return Finding{"qemu", OK, version + ": guests without KVM need vectors=0 on vhost-user cards", ""}
	case strings.HasPrefix(version, "7.2."):
		return Finding{"qemu", Warn, version + ": without KVM it ends with a segmentation fault when a vhost-user card with MSI-X starts",
			"give such a guest's device vectors=0: -device virtio-net-pci,netdev=n0,vectors=0"}
	}
	return Finding{"qemu", OK, version, ""}
}

func (h Host) hugepages() Finding {
	text, err := os.ReadFile(h.path("proc/meminfo"))
	if err != nil {
		return Finding{"hugepages", Warn, "they can't be counted: " + err.Error(), ""}
	}
	var total, free, size int
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "HugePages_Total: %d", &total)
		fmt.Sscanf(line, "HugePages_Free: %d", &free)
		fmt.Sscanf(line, "Hugepagesize: %d", &size)
	}
	if total == 0 {
		return Finding{"hugepages", Warn, "none are reserved: vhost-user guests use ordinary shared memory, somewhat slower; DPDK guests do not start",
			"sysctl vm.nr_hugepages=512"}
	}
	return Finding{"hugepages", OK, fmt.Sprintf("%d of %d pages of %d kB are free", free, total, size), ""}
}

func (h Host) brNetfilter() Finding {
	if _, err := os.Stat(h.path("proc/sys/net/bridge")); err == nil {
		return Finding{"br_netfilter", OK, "it is loaded, and makes iptables rules drop frames of kernel bridges; kvswitch's frames do not pass it", ""}
	}
	return Finding{"br_netfilter", OK, "it is not loaded, and would not touch kvswitch's frames", ""}
}

func (h Host) bridge() Finding {
	if _, err := os.Stat(h.path("sys/module/bridge")); err == nil {
		return Finding{"bridge", OK, "the kernel's bridge is there; kvswitch does not use it", ""}
	}
	return Finding{"bridge", OK, "the kernel's bridge module is not loaded, and not needed", ""}
}

// wantFiles is the number of open files that a thousand ports need: a netdev
// port has six descriptors, a vhost-user port with two queues nine.
const wantFiles = 10000

func (h Host) files() Finding {
	hard, err := h.Limit()
	if err != nil {
		return Finding{"open files", Warn, "their limit can't be found out: " + err.Error(), ""}
	}
	if hard < wantFiles {
		return Finding{"open files", Warn, fmt.Sprintf("at most %d: enough for about %d ports", hard, hard/10), "raise it: LimitNOFILE= in the unit, or ulimit -Hn"}
	}
	return Finding{"open files", OK, fmt.Sprintf("at most %d", hard), ""}
}

func openFiles() (uint64, error) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return l.Max, err
}

// runDir looks at the nearest directory that is there.
func (h Host) runDir() Finding {
	dir := h.path(h.RunDir)
	for {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		if err == nil {
			return Finding{"run directory", OK, h.RunDir + " can take control sockets", ""}
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return Finding{"run directory", Missing, fmt.Sprintf("%s can't take control sockets: %v", h.RunDir, err),
				"choose another with --run-dir or KVSWITCH_RUN_DIR, or run as root"}
		}
		dir = filepath.Dir(dir)
	}
}

func (h Host) unprivileged(caps uint64) Finding {
	if caps&capNetAdmin != 0 {
		return Finding{"unprivileged use", OK, "not needed here; it works with --no-host and stream, dgram and vhost-user ports", ""}
	}
	return Finding{"unprivileged use", OK, "kvswitch run --no-host with stream, dgram and vhost-user ports needs no right at all", ""}
}
