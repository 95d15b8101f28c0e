package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

func openDesk(t *testing.T, rules string, log ...io.Writer) *desk {
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
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(log...), nil)),
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

// book is a log in memory.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *book) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *book) count(text string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Count(k.b.String(), text)
}

// Whatever the holder of a tap's descriptor does to keep the tap beyond its time,
// it is taken from him, and he is named in one line.
func TestHelperTakesBackATapThatIsMoreThanHeld(t *testing.T) {
	ioctl := func(f *os.File, request uint, arg int) {
		t.Helper()
		if err := unix.IoctlSetInt(int(f.Fd()), request, arg); err != nil {
			t.Fatal(err)
		}
	}
	index := 0 // of the tap
	for name, breach := range map[string]func(f *os.File, tap string) *os.File{
		"persistent": func(f *os.File, _ string) *os.File { ioctl(f, unix.TUNSETPERSIST, 1); return f },
		"owner":      func(f *os.File, _ string) *os.File { ioctl(f, unix.TUNSETOWNER, nobody); return f },
		"group":      func(f *os.File, _ string) *os.File { ioctl(f, unix.TUNSETGROUP, nobody); return f },
		"persistent and let go": func(f *os.File, _ string) *os.File {
			ioctl(f, unix.TUNSETPERSIST, 1)
			f.Close()
			return nil
		},
		"all of it undone at once": func(f *os.File, tap string) *os.File {
			ioctl(f, unix.TUNSETPERSIST, 1)
			f.Close()
			again, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			ifr, err := unix.NewIfreq(tap)
			if err != nil {
				t.Fatal(err)
			}
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			if err := unix.IoctlIfreq(int(again.Fd()), unix.TUNSETIFF, ifr); err != nil {
				t.Logf("it is being taken back: %v", err)
				again.Close()
				return nil
			}
			_ = unix.IoctlSetInt(int(again.Fd()), unix.TUNSETPERSIST, 0)
			if link, err := netlink.LinkByName(tap); err != nil || link.Attrs().Index != index {
				t.Log("it was taken back before it could be opened again: that one is new")
				again.Close()
				return nil
			}
			return again
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(book)
			d := openDesk(t, "allow kvs0\n", log)
			links := netdevs(t)
			f, err := d.ask(t, nobody, "--br=kvs0")
			if err != nil {
				t.Fatal(err)
			}
			tap := d.ports.names()[0]
			link, err := netlink.LinkByName(tap)
			if err != nil {
				t.Fatal(err)
			}
			index = link.Attrs().Index
			if f = breach(f, tap); f != nil {
				defer f.Close()
			}
			await(t, "the port to go", func() bool { return len(d.ports.names()) == 0 })
			await(t, "the tap to go", func() bool { return netdevs(t) == links })
			d.Close()
			if n := log.count("tap of a bridge helper is taken back"); n != 1 || log.count("uid=65534") == 0 {
				t.Errorf("the log has %d lines that say so: %s", n, log.b.String())
			}
			if n := log.count("level=WARN"); n != 1 {
				t.Errorf("%d warnings, want one: %s", n, log.b.String())
			}
		})
	}
}

// What was done and undone before anybody looked can still be told.
func TestTermsTellOfATapThatWasLetGoOfInBetween(t *testing.T) {
	needTaps(t)
	tap, err := makeTap(1, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.close()
	if err := setLink(tap.name, true); err != nil {
		t.Fatal(err)
	}
	look := func() terms {
		t.Helper()
		now, err := termsOf(tap.index)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	before := look()
	if why := before.broke(look()); why != "" {
		t.Errorf("nothing was done, but %s", why)
	}
	fd := int(tap.queues[0].Fd())
	persist := func(fd, on int) {
		t.Helper()
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, on); err != nil {
			t.Fatal(err)
		}
	}
	persist(fd, 1)
	if why := before.broke(look()); why != "its holder made it persistent" {
		t.Errorf("persistent: %q", why)
	}
	tap.close()
	again := &tapDevice{name: tap.name}
	defer again.close()
	if err := again.addQueue(unix.IFF_TAP | unix.IFF_NO_PI); err != nil {
		t.Fatal(err)
	}
	persist(int(again.queues[0].Fd()), 0)
	if why := before.broke(look()); why != "it was let go of and opened again" {
		t.Errorf("all undone: %q", why)
	}
}

func TestHelperGivesEachUserSoManyTaps(t *testing.T) {
	d := openDesk(t, "allow kvs0\nlimit 2\n")
	ask := func(uid uint32) *os.File {
		t.Helper()
		tap, err := d.ask(t, uid, "--br=kvs0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tap.Close() })
		return tap
	}
	first := ask(nobody)
	ask(nobody)
	refused := func() {
		t.Helper()
		links := netdevs(t)
		if tap, err := d.ask(t, nobody, "--br=kvs0"); err == nil {
			tap.Close()
			t.Error("was given a third tap")
		} else if !strings.Contains(err.Error(), "has 2 taps and may have 2") || !strings.Contains(err.Error(), "limit 4") {
			t.Errorf("error %v", err)
		}
		if netdevs(t) != links {
			t.Error("a tap was made for a refused user")
		}
	}
	refused()
	ask(1234) // another user
	for range 3 {
		ask(0) // root, who can make taps by himself
	}
	first.Close()
	await(t, "the place to be free", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.taps[nobody] == 1
	})
	ask(nobody)
	refused()
}

// A user who is refused costs reading the list a few times a second, whatever he
// does, and keeps nobody else from a tap.
func TestHelperIsNotKeptBusyByARefusedUser(t *testing.T) {
	d := openDesk(t, "deny all\n")
	began := time.Now()
	const tries = 200
	told, busy := make(chan bool, tries), 0
	var asking sync.WaitGroup
	for range tries {
		asking.Go(func() {
			c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: bridgehelper.SocketPath(d.dir, "kvs0"), Net: "unixpacket"})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(2 * patience))
			b := make([]byte, bridgehelper.MaxReply)
			n, err := c.Read(b)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = bridgehelper.ParseReply(b[:n])
			if err == nil || err.Error() != errBusy.Error() && !strings.Contains(err.Error(), "access denied") {
				t.Errorf("answer %v", err)
			}
			told <- err.Error() != errBusy.Error()
		})
	}
	asking.Wait()
	close(told)
	refused := 0
	for t := range told {
		if t {
			refused++
		} else {
			busy++
		}
	}
	if most := maxJudged * (1 + int(time.Since(began)/refusalPause)); refused == 0 || refused > most {
		t.Errorf("%d of %d were judged, want 1 to %d", refused, tries, most)
	}
	if busy == 0 || refused+busy != tries {
		t.Errorf("%d were turned away, %d refused, of %d", busy, refused, tries)
	}
	write(t, d.acl, "allow kvs0\n", 0o644)
	tap, err := d.ask(t, nobody, "--br=kvs0") // the flood was root's
	if err != nil {
		t.Fatal(err)
	}
	tap.Close()
}

// A list that takes its time holds up those whom it is about, not the switch.
func TestHelperIsNotHeldUpByAList(t *testing.T) {
	d := openDesk(t, "")
	if err := os.Remove(d.acl); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(d.acl, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if tap, err := d.ask(t, nobody, "--br=kvs0"); err == nil {
			tap.Close()
			t.Error("a FIFO allowed it")
		} else if !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("error %v", err)
		}
	}
}

// A machine that starts again at once gets a tap of the same name, whose port may
// be there only when the old one's has gone.
func TestHelperGivesATapOfTheNameThatAnotherJustHad(t *testing.T) {
	d := openDesk(t, "allow kvs0\n")
	for range 50 {
		tap, err := d.ask(t, nobody, "--br=kvs0")
		if err != nil {
			t.Fatal(err)
		}
		tap.Close()
	}
	await(t, "the ports to go", func() bool { return len(d.ports.names()) == 0 })
}
