package netdev

import (
	"errors"
	"fmt"
	"runtime"
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
		{"sixteen-chars-xx", Options{}, "limit is 15"},
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

func TestClaimIsKeptByOtherSwitchesAndNotByStrangers(t *testing.T) {
	sw, _ := cable(t)
	index := sw.Index("port")
	for _, c := range []struct {
		holder  string
		uid     int
		refused bool
	}{{"root", 0, true}, {"a stranger", 65534, false}} {
		// A listener's credentials are those of the thread that called listen.
		var fd int
		held := make(chan struct{})
		go func() {
			defer close(held)
			runtime.LockOSThread() // the thread ends with its changed user
			_ = sw.Do(func() error {
				if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(c.uid), ^uintptr(0)); errno != 0 {
					t.Errorf("become %s: %v", c.holder, errno)
				}
				fd, _ = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@kvswitch/netdev/%d", index)}); err != nil {
					t.Error(err)
				}
				if err := unix.Listen(fd, 1); err != nil {
					t.Error(err)
				}
				unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
				return nil
			})
		}()
		<-held
		p, err := tryOpen(sw, "port", Options{})
		if (err != nil) != c.refused {
			t.Errorf("%s holds the name: %v", c.holder, err)
		}
		if p != nil {
			if w := strings.Join(p.Warnings(), "\n"); !strings.Contains(w, "unprivileged process") {
				t.Errorf("warnings %q", w)
			}
			p.Close()
		}
		unix.Close(fd)
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
