// Package vm boots real QEMU guests for tests and for the demonstration: a
// Debian cloud kernel with busybox, up in two seconds without KVM, driven by
// commands over a virtio-serial port that needs no network.
//
// It configures no network of its own: what a guest is attached to is for the
// caller to say, in QEMU's words. Guests die with the test that started them.
//
// Start and Launch belong on the test's goroutine; a Guest may be used by any.
package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/image"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

// Program is the QEMU that runs the guests.
const Program = "qemu-system-x86_64"

// bootTimeout is how long a guest may take to answer: it needs two seconds, and
// a hundred when it runs inside another guest on a busy machine.
const bootTimeout = 3 * time.Minute

// Options describe a guest. The zero value boots one without a network.
type Options struct {
	// Name tells guests apart in messages; "guest" by default.
	Name string
	// Host is where QEMU runs; nil is the namespace of this process.
	Host *netns.Host
	// Net are QEMU arguments that attach it: "-netdev", "tap,id=n0,…",
	// "-device", "virtio-net-pci,netdev=n0".
	Net []string
	// Args are further QEMU arguments.
	Args []string
	// Env is the environment of QEMU and its scripts; nil is this process's.
	Env []string
	// ExtraFiles are handed to QEMU as descriptors 3, 4 and so on.
	ExtraFiles []*os.File
	// MemMB is the memory in MiB; 256 by default.
	MemMB int
	// SMP is the number of processors; 1 by default.
	SMP int
	// Machine is QEMU's machine type; "pc" by default, which takes network
	// devices while it runs.
	Machine string
	// CPU is QEMU's processor model; a plain one that boots fast by default.
	CPU string
	// Accel is QEMU's -accel; by default KVM where a guest really boots under
	// it, else TCG.
	Accel string
	// Memfd puts the guest's memory into a shared file, as vhost-user needs.
	Memfd bool
	// QMP is the path of a socket on which QEMU listens for its machine
	// protocol; none by default.
	QMP string
	// Initrd are paths of further cpio archives that are unpacked over the
	// guest's file system; package initrd writes them.
	Initrd []string
	// Append is added to the kernel's command line.
	Append string
	// KeepOnReset lets the guest reboot. Without it a reset ends QEMU, so that
	// a crash is noticed.
	KeepOnReset bool
}

// Guest is a running virtual machine.
type Guest struct {
	tb      netns.TB
	name    string
	proc    *netns.Proc
	console string // path of what the guest's kernel said
	conn    *wire.Conn
	booted  chan struct{}

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan wire.Reply
	broken  error // once set, no reply will come
}

// kernelArgs make the kernel quiet, quick, and end at a panic.
const kernelArgs = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on " +
	"tsc=reliable no_timer_check cryptomgr.notests"

// guestImage is prepared once per process.
var guestImage = sync.OnceValues(func() (image.Image, error) {
	return image.Ensure(context.Background(), func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	})
})

// Start boots a guest and returns when it runs commands.
func Start(tb netns.TB, o Options) *Guest {
	tb.Helper()
	g := Launch(tb, o)
	g.AwaitBoot()
	return g
}

// Launch starts QEMU and doesn't wait for the guest: for several that boot at
// the same time, and for one that waits for an incoming migration.
func Launch(tb netns.TB, o Options) *Guest {
	tb.Helper()
	img, err := guestImage()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	if o.Accel == "" {
		o.Accel = accel(tb)
	}
	g, err := launch(tb, o, img)
	if err != nil {
		tb.Fatalf("start guest: %v", err)
	}
	return g
}

func launch(tb netns.TB, o Options, img image.Image) (*Guest, error) {
	tb.Helper()
	program, err := exec.LookPath(Program)
	if err != nil {
		return nil, fmt.Errorf("%w: install qemu-system-x86", err)
	}
	dir := netns.Dir(tb)
	if len(o.Initrd) > 0 {
		if img.Initrd, err = concatenate(filepath.Join(dir, "initrd"), append([]string{img.Initrd}, o.Initrd...)); err != nil {
			return nil, err
		}
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	tb.Cleanup(func() { ours.Close() })

	g := &Guest{
		tb:      tb,
		name:    cmp.Or(o.Name, "guest"),
		console: filepath.Join(dir, "console"),
		conn:    wire.NewConn(ours),
		booted:  make(chan struct{}, 1),
		pending: map[uint64]chan wire.Reply{},
	}
	cmd := exec.Command(program, arguments(o, img, g.console, 3+len(o.ExtraFiles))...)
	cmd.Env = o.Env
	cmd.ExtraFiles = append(append([]*os.File{}, o.ExtraFiles...), theirs)
	if o.Host != nil {
		g.proc = o.Host.Start(cmd)
	} else {
		g.proc = netns.Start(tb, cmd)
	}
	go g.receive()
	go func() {
		<-g.proc.Done()
		ours.Close() // ends receive even if a child of QEMU holds the other end
	}()
	tb.Cleanup(func() {
		if said := g.consoleTail(); tb.Failed() && said != "" {
			tb.Logf("--- console of %s, last lines:\n%s", g.name, said)
		}
	})
	return g, nil
}

// arguments are QEMU's for o, with the agent's socket as descriptor agent.
func arguments(o Options, img image.Image, console string, agent int) []string {
	mem := cmp.Or(o.MemMB, 256)
	machine := cmp.Or(o.Machine, "pc")
	args := []string{
		"-name", cmp.Or(o.Name, "guest"),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-accel", o.Accel,
		"-cpu", cmp.Or(o.CPU, "qemu64,+rdrand"),
		"-smp", strconv.Itoa(cmp.Or(o.SMP, 1)),
		"-m", strconv.Itoa(mem),
		"-kernel", img.Kernel,
		"-initrd", img.Initrd,
		"-append", strings.TrimSpace(kernelArgs + " " + o.Append),
		"-serial", "file:" + console,
		"-global", "virtio-net-pci.romfile=", // nobody boots from the network here
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", agent),
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
	if o.Memfd {
		args = append(args, "-object", fmt.Sprintf("memory-backend-memfd,id=ram,share=on,size=%dM", mem))
		machine += ",memory-backend=ram"
	}
	args = append(args, "-machine", machine)
	if !o.KeepOnReset {
		args = append(args, "-no-reboot")
	}
	if o.QMP != "" {
		args = append(args, "-qmp", "unix:"+o.QMP+",server=on,wait=off")
	}
	return append(append(args, o.Net...), o.Args...)
}

// socketpair is the two ends of the agent's line.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent"), nil
}

// concatenate writes archives one after the other, which the kernel takes as
// one. Each but the last is padded to the four bytes that the format wants.
func concatenate(target string, paths []string) (_ string, err error) {
	out, err := os.Create(target)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for _, p := range paths {
		in, err := os.Open(p)
		if err != nil {
			return "", err
		}
		n, err := io.Copy(out, in)
		in.Close()
		if err != nil {
			return "", err
		}
		if _, err := out.Write(make([]byte, -n&3)); err != nil {
			return "", err
		}
	}
	return target, nil
}
