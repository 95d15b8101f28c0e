package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"
)

// desk is a Helper on a fake switch.
type desk struct {
	*Helper
	dir     string
	ports   *fakePorts
	acl     string
	program string // this one, where every user may run it
}

func openDesk(t *testing.T, rules string) *desk {
	t.Helper()
	needTaps(t)
	checkNothingLeft(t)
	w, err := link.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	d := &desk{dir: openDir(t), ports: &fakePorts{}}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	d.program = write(t, filepath.Join(d.dir, "helper"), string(self), 0o755)
	d.acl = write(t, filepath.Join(d.dir, "bridge.conf"), rules, 0o644)
	d.Helper, err = ListenHelper(HelperConfig{
		Path: bridgehelper.SocketPath(d.dir, "kvs0"), Switch: "kvs0", ACL: []string{d.acl},
		MTU: func() int { return 1400 }, Ports: d.ports, Links: w,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// ask runs the helper as QEMU does, in a process of its own under uid, and
// returns what QEMU gets.
func (d *desk) ask(t *testing.T, uid uint32, args ...string) (tap *os.File, err error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "helper's end")
	cmd := exec.Command(d.program, append(args, "--fd=3")...)
	cmd.Env = append(os.Environ(), asHelper+"="+d.dir)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	b, oob := make([]byte, 16), make([]byte, 64)
	n, oobn, _, _, err := unix.Recvmsg(pair[0], b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	files, err := passed(oob[:oobn])
	if err != nil || n != 1 || b[0] != 0 || len(files) != 1 {
		closeAll(files)
		t.Fatalf("QEMU got %q and %d descriptors, %v; want one zero byte and one", b[:n], len(files), err)
	}
	return files[0], nil
}

// passed is the descriptors in a control message.
func passed(oob []byte) (files []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "tap"))
		}
	}
	return files, err
}

const nobody = 65534

func TestHelperGivesAnOrdinaryUserATap(t *testing.T) {
	d := openDesk(t, "allow kvs0\n")
	for _, vnet := range []bool{false, true} {
		args := []string{"--br=kvs0"}
		if vnet {
			args = append(args, "--use-vnet")
		}
		tap, err := d.ask(t, nobody, args...)
		if err != nil {
			t.Fatal(err)
		}
		names := d.ports.names()
		if len(names) != 1 || d.ports.spec(names[0]) != "netdev:"+names[0] {
			t.Fatalf("ports %v", names)
		}
		link, err := netlink.LinkByName(names[0])
		if err != nil {
			t.Fatal(err)
		}
		a := link.Attrs()
		if a.HardwareAddr[0] != 0xfe || a.MTU != 1400 || a.Flags&net.FlagUp == 0 {
			t.Errorf("tap %v, MTU %d, flags %v", a.HardwareAddr, a.MTU, a.Flags)
		}
		if has := link.(*netlink.Tuntap).Flags&netlink.TUNTAP_VNET_HDR != 0; has != vnet {
			t.Errorf("vnet_hdr is %v, want %v", has, vnet)
		}
		tap.Close() // the machine ends
		await(t, "the port to go with the tap", func() bool { return len(d.ports.names()) == 0 })
		if _, err := netlink.LinkByName(names[0]); err == nil {
			t.Error("the tap is still there")
		}
	}
}

func TestHelperDenies(t *testing.T) {
	d := openDesk(t, "allow kvs1\ndeny kvs0\nallow all\n")
	links := netdevs(t)
	for _, uid := range []uint32{nobody, 0} { // root, too, as the original does
		if tap, err := d.ask(t, uid, "--br=kvs0"); err == nil {
			tap.Close()
			t.Errorf("uid %d was given a tap", uid)
		} else if !strings.Contains(err.Error(), "access denied by acl file") {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
	write(t, d.acl, "allow kvs0\n", 0o600)
	if tap, err := d.ask(t, nobody, "--br=kvs0"); err == nil {
		tap.Close()
		t.Error("a list that the user may not read allowed it")
	} else if !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("unreadable list: %v", err)
	}
	if tap, err := d.ask(t, nobody, "--br=kvs9"); err == nil {
		tap.Close()
		t.Error("a switch that does not run gave a tap")
	} else if !strings.Contains(err.Error(), "kvs9") || !strings.Contains(err.Error(), "not running") {
		t.Errorf("absent switch: %v", err)
	}
	if netdevs(t) != links || len(d.ports.names()) != 0 {
		t.Errorf("%d netdevs, %d before; ports %v", netdevs(t), links, d.ports.names())
	}
}

func TestHelperUndoesWhatAPeerSpoils(t *testing.T) {
	d := openDesk(t, "allow kvs0\n")
	dial := func() *net.UnixConn {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: bridgehelper.SocketPath(d.dir, "kvs0"), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answer := func(c *net.UnixConn) string {
		c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, bridgehelper.MaxReply)
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if _, err := bridgehelper.ParseReply(b[:n]); err != nil {
			return err.Error()
		}
		return ""
	}
	links := netdevs(t)
	good := bridgehelper.AppendRequest(nil, bridgehelper.Args{Bridge: "kvs0"})
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"connects and goes", func() { dial().Close() }},
		{"asks and goes", func() { c := dial(); c.Write(good); c.Close() }},
		{"asks and is given it, and goes", func() { c := dial(); c.Write(good); answer(c); c.Close() }},
		{"sends garbage", func() {
			c := dial()
			c.Write([]byte("GET / HTTP/1.1"))
			if a := answer(c); !strings.Contains(a, "not a request") {
				t.Errorf("answer %q", a)
			}
		}},
		{"asks for another switch", func() {
			c := dial()
			c.Write(bridgehelper.AppendRequest(nil, bridgehelper.Args{Bridge: "other"}))
			if a := answer(c); !strings.Contains(a, "switch kvs0, not other") {
				t.Errorf("answer %q", a)
			}
		}},
		{"sends too much", func() {
			c := dial()
			c.Write(append(good, make([]byte, 4000)...))
			if a := answer(c); !strings.Contains(a, "not a request") {
				t.Errorf("answer %q", a)
			}
		}},
		{"says nothing", func() {
			if a := answer(dial()); !strings.Contains(a, "timeout") {
				t.Errorf("answer %q", a)
			}
		}},
		{"is refused by the switch", func() {
			d.ports.mu.Lock()
			d.ports.refuse = errors.New("the switch is full")
			d.ports.mu.Unlock()
			if tap, err := d.ask(t, nobody, "--br=kvs0"); err == nil {
				tap.Close()
				t.Error("was given a tap")
			} else if !strings.Contains(err.Error(), "the switch is full") {
				t.Errorf("error %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.do()
			await(t, "everything to be undone", func() bool { return netdevs(t) == links && len(d.ports.names()) == 0 })
		})
	}
}

func TestHelperClosesWhileTapsLive(t *testing.T) {
	d := openDesk(t, "allow kvs0\n")
	tap, err := d.ask(t, nobody, "--br=kvs0")
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	d.Close()
	if len(d.ports.names()) != 1 {
		t.Error("Close took the port away")
	}
	if _, err := os.Lstat(bridgehelper.SocketPath(d.dir, "kvs0")); !os.IsNotExist(err) {
		t.Errorf("socket is still there: %v", err)
	}
}

// QEMU's end may be closed before the helper has its answer.
func TestHelperReportsThatQEMUWentAway(t *testing.T) {
	d := openDesk(t, "allow kvs0\n")
	links := netdevs(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := bridgehelper.Run(t.Context(), d.dir, bridgehelper.Args{Bridge: "kvs0", FD: pair[1]}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("error %v, want EPIPE", err)
	}
	await(t, "everything to be undone", func() bool { return netdevs(t) == links && len(d.ports.names()) == 0 })
}
