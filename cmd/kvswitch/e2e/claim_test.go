package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// TestOnlyASwitchKeepsADeviceFromASwitch binds what any user may bind and might
// be taken for a mark on a device, and then has a second switch ask for the first
// one's devices, before and after the first is killed.
func TestOnlyASwitchKeepsADeviceFromASwitch(t *testing.T) {
	s := newStar(t, netns.New(t), "switch", 2)
	for index := range 64 {
		if err := s.host.Do(func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			return unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@kvswitch/netdev/%d", index)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	dir := netns.Dir(t)
	start := func(name string, args ...string) *kvs {
		k := launch(t, s.host, dir, append([]string{"--name", name, "--no-host"}, args...)...)
		k.name = name
		k.awaitReady()
		return k
	}
	one := start("one", "--port", "netdev:p0")
	one.do("port", "add", "netdev:p1")
	holder := []string{"p0", "already a port of another kvswitch", "process " + strconv.Itoa(one.proc.Pid())}
	runRefused(t, s.host, holder, program, "run", "--run-dir", dir, "--name", "two", "--no-host", "--port", "netdev:p0")
	two := start("two")
	holder[0] = "p1"
	two.refuses(1, holder, "port", "add", "netdev:p1")
	one.proc.Kill()
	two.do("port", "add", "netdev:p0")
	two.do("port", "add", "netdev:p1")
}
