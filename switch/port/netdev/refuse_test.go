package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

func TestOpenRefusesWhatCannotBeAPortInOneLine(t *testing.T) {
	lab := netns.New(t)
	sw, far := lab.Host("sw"), lab.Host("far")
	for _, name := range []string{"enslaved", "taken", "free"} {
		lab.Cable(sw, name, far, name)
	}
	sw.Bridge("br0", "enslaved")
	sw.Run("ip", "tuntap", "add", "tun9", "mode", "tun")
	taken := openOn(t, sw, "taken", Options{})
	closed := watcherOf(t, sw)
	closed.Close()
	fds := openFiles(t)
	for _, c := range []struct {
		name string
		opt  Options
		want string
	}{
		{"", Options{}, "not a name"},
		{"a/b", Options{}, "slash"},
		{strings.Repeat("x", 128), Options{}, "limit is 15"},
		{"nowhere", Options{}, "no such interface"},
		{"lo", Options{}, "loopback"},
		{"tun9", Options{}, "not an Ethernet interface"},
		{"br0", Options{}, "it is a kernel bridge"},
		{"enslaved", Options{}, "belongs to kernel bridge br0; take it out first: ip link set enslaved nomaster"},
		{"taken", Options{}, "already a port of this kvswitch"},
		{"free", Options{Queues: -1}, "queues"},
		{"free", Options{Queues: MaxQueues + 1}, "queues"},
		{"free", Options{RingBytes: 1}, "ring of 1 bytes"},
		{"free", Options{RingBytes: MaxRingBytes + 1}, "ring of"},
		{"free", Options{Watcher: closed}, "closed"},
	} {
		p, err := tryOpen(sw, c.name, c.opt)
		if err == nil {
			p.Close()
			t.Errorf("%q %+v: opened", c.name, c.opt)
			continue
		}
		if text := err.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "\n") || !strings.HasPrefix(text, "open port on ") {
			t.Errorf("%q %+v: %q, want %q in one line", c.name, c.opt, text, c.want)
		}
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d open files before, %d after", fds, n)
	}
	// The same index in another namespace is another device, and a device that
	// was let go is free again.
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	openOn(t, sw, "taken", Options{})
	openOn(t, far, "taken", Options{})
}

// Whatever somebody binds who may not open packet sockets, names in the abstract
// space above all, is no mark: there is none that he could make.
func TestNobodyWithoutPrivilegeKeepsADeviceFromASwitch(t *testing.T) {
	sw, _ := cable(t)
	index := sw.Index("port")
	for _, listens := range []bool{false, true} {
		var fd int
		_ = sw.Do(func() (err error) {
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
				err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@kvswitch/netdev/%d", index)})
			}
			if err == nil && listens {
				err = unix.Listen(fd, 0)
			}
			if err != nil {
				t.Error(err)
			}
			return nil
		})
		p, err := tryOpen(sw, "port", Options{})
		if err != nil {
			t.Errorf("a stranger's socket, listening %v, keeps the device off: %v", listens, err)
		} else {
			if w := p.Warnings(); len(w) != 0 {
				t.Errorf("warnings %q", w)
			}
			p.Close()
		}
		unix.Close(fd)
	}
	// The mark itself takes CAP_NET_RAW.
	w := watcherOf(t, sw)
	w.Do(func() {
		dropCapabilities(t, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN)
		if m, _, err := claim(index, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("a mark without CAP_NET_RAW: %v, %v", m, err)
		}
	})
}

func TestMarkIsItsDevicesAndGoesWithIt(t *testing.T) {
	lab := netns.New(t)
	sw, far, away := lab.Host("sw"), lab.Host("far"), lab.Host("away")
	lab.Cable(sw, "port", far, "eth0")
	index := sw.Index("port")
	var m *mark
	try := func() (err error) {
		var unsure error
		_ = sw.Do(func() error { m, unsure, err = claim(index, 0); return nil })
		if unsure != nil {
			t.Errorf("unsure: %v", unsure)
		}
		return err
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	first := m
	sw.Down("port")
	if err := try(); !errors.As(err, new(taken)) {
		t.Errorf("a second mark, on a device that is down: %v", err)
	}
	sw.Up("port")
	_ = sw.Do(func() error {
		mine, _, err := claim(index, first.inode)
		if err != nil {
			t.Errorf("a mark beside one's own that is on its way out: %v", err)
		} else {
			unix.Close(mine.fd)
		}
		return nil
	})
	// The device leaves and comes back, with its old index as a rule.
	sw.Run("ip", "link", "set", "port", "netns", away.Name())
	away.Run("ip", "link", "set", "port", "netns", sw.Name())
	index = sw.Index("port")
	if err := try(); err != nil {
		t.Errorf("a device that has been away is still marked: %v", err)
	} else {
		unix.Close(m.fd)
	}
	unix.Close(first.fd)
}

func TestMarksAreReadFromTheKernelsList(t *testing.T) {
	const list = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n" +
		"00000000b57d7a1e 3      3    6b76   7     1 0      0      101\n" +
		"00000000b57d7a1e 3      3    0003   7     1 0      0      102\n" +
		"00000000b57d7a1e 3      3    6b76   77    0 0      1000   103\n" +
		"00000000b57d7a1e 3      3    6b76   -1    0 0      0      104\n" +
		"00000000b57d7a1e 3      3    6b76   7     0 0      0      105\n"
	got, err := marksOn(strings.NewReader(list), 7)
	if err != nil || !slices.Equal(got, []uint64{101, 105}) {
		t.Errorf("marks %v, %v", got, err)
	}
	if _, err := marksOn(strings.NewReader("sk 3 3 6b76 7 1 0 0 many\n"), 7); err == nil {
		t.Error("a line that is not the kernel's passes")
	}
}

func TestOpenWithoutPrivilegeSaysWhatIsMissing(t *testing.T) {
	sw, _ := cable(t)
	w := watcherOf(t, sw)
	// The Watcher's thread is its own and ends with it: it can be stripped.
	w.Do(func() { dropCapabilities(t, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN) })
	p, err := Open("port", Options{Watcher: w})
	if err == nil {
		p.Close()
		t.Fatal("opened without CAP_NET_RAW")
	}
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("%v", err)
	}
}

// dropCapabilities takes capabilities from the calling thread.
func dropCapabilities(t *testing.T, caps ...int) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Error(err)
	}
	for _, c := range caps {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Error(err)
	}
}
