package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// borrow runs the bridge helper as QEMU does, for an ordinary user, and returns
// the descriptor that QEMU would get.
func (k *kvs) borrow(t *testing.T, helper string) (tap *os.File, err error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "helper's end")
	cmd := exec.Command(helper, "--br=kvs0", "--fd=3")
	cmd.Env = append(os.Environ(), "KVSWITCH_RUN_DIR="+k.dir)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	b, oob := make([]byte, 16), make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(pair[0], b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d control messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "tap"), nil
}

// TestUserOfTheBridgeHelperGetsWhatTheListSaysAndNoMore borrows taps beyond the
// quota, keeps one beyond its time, and asks when the list says no by then.
func TestUserOfTheBridgeHelperGetsWhatTheListSaysAndNoMore(t *testing.T) {
	acl := filepath.Join(netns.Dir(t), "bridge.conf")
	t.Setenv("KVSWITCH_BRIDGE_CONF", acl)
	list := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(acl, []byte(text), 0o644), os.Chmod(acl, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	list("allow kvs0\n")
	host := netns.New(t).Host("host")
	k := run(t, host, "--no-host")
	helper := copyOf(t, "kvswitch-bridge-helper", 0o755)
	taps := func() (names []string) {
		for _, name := range host.Links() {
			if strings.HasPrefix(name, "tap") {
				names = append(names, name)
			}
		}
		return names
	}
	var held []*os.File
	defer func() {
		for _, f := range held {
			f.Close()
		}
	}()
	for range 16 {
		tap, err := k.borrow(t, helper)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, tap)
	}
	tap, err := k.borrow(t, helper)
	if err == nil {
		tap.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "has 16 taps and may have 16") || len(taps()) != 16 {
		t.Errorf("a 17th tap: %v; %d taps", err, len(taps()))
	}
	// One of them is to outlive its holder.
	before := taps()
	if err := unix.IoctlSetInt(int(held[0].Fd()), unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	_ = unix.IoctlSetInt(int(held[0].Fd()), unix.TUNSETOWNER, 65534) // it may be gone already
	held[0].Close()
	held = held[1:]
	list("allow kvs0\ndeny kvs0\n")
	netns.Await(t, startPatience, "the tap is gone", func() error {
		if now := taps(); len(now) != 15 {
			return fmt.Errorf("taps %v", now)
		}
		return nil
	})
	now := taps()
	gone := slices.DeleteFunc(before, func(name string) bool { return slices.Contains(now, name) })
	netns.Await(t, startPatience, "its port is gone", func() error {
		if ports := k.status().Ports; len(ports) != 15 {
			return fmt.Errorf("%d ports", len(ports))
		}
		return nil
	})
	if log := k.proc.Log(); strings.Count(log, "taken back") != 1 || !strings.Contains(log, gone[0]) {
		t.Errorf("the log does not say once that %s is taken back:\n%s", gone[0], log)
	}
	if tap, err := k.borrow(t, helper); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("a tap that the list denies: %v, %v", tap, err)
	}
}
