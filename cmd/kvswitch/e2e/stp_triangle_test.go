package e2e

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// newTriangle is three kvswitch with short timers; a is root, then comes b. The
// cable that they block is b-c, at c's end.
func newTriangle(t *testing.T) *treeLab {
	t.Helper()
	return newTriangleOf(t, kvswitchTree("rstp"))
}

func newTriangleOf(t *testing.T, maker treeMaker) *treeLab {
	t.Helper()
	plan := treePlan{name: "triangle of kvswitch", cables: []string{"a-b", "a-c", "b-c"}, pause: 2 * time.Millisecond}
	for i, name := range []string{"a", "b", "c"} {
		plan.bridges = append(plan.bridges, treeBridge{name: name, priority: (i + 1) << 12, maker: maker})
	}
	l := newTreeLab(t, plan)
	if blocked := l.settles("a"); blocked[0] != "b-c" {
		t.Fatalf("%s blocks %v", l.name, blocked)
	}
	return l
}

// settles waits until a lab of kvswitch alone converges, its stations hear each
// other, and no bridge has news of changes any more to tell the others.
func (l *treeLab) settles(root string, cut ...string) (blocked []string) {
	l.t.Helper()
	l.converges(root, cut...)
	netns.Await(l.t, treePatience, l.name+" is quiet", func() error {
		for _, b := range l.bridges {
			if !b.dead && l.kvs(b.name).tree().TopologyChange {
				return fmt.Errorf("%s tells of a change", b.name)
			}
		}
		return nil
	})
	blocked = l.converges(root, cut...)
	l.heals(l.now())
	return blocked
}

// kvs is the bridge of that name, which is a kvswitch.
func (l *treeLab) kvs(name string) *kvs {
	l.t.Helper()
	return l.bridge(name).treeMember.(kvsMember).kvs
}

// The bridges agree at once: with the longest timers there are, a network that
// waited for one would not heal while heals has patience.
func TestTrafficPassesAgainWhenACableIsCut(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testTrafficPassesAgainWhenACableIsCut)
}

func testTrafficPassesAgainWhenACableIsCut(t *testing.T) {
	t.Parallel()
	l := newTriangleOf(t, timedTree("rstp", longMaxAge, longForwardDelay))
	for _, cable := range []string{"a-b", "a-c"} {
		t.Logf("%s cut: traffic between all in %v", cable, l.heals(l.cut(cable)))
		l.converges("a", cable)
		l.join(cable)
		l.settles("a")
	}
	l.noStorm()
}

// What the root said lives for three hello times (17.21.23), whatever max age is;
// then the others agree at once.
func TestTrafficPassesAgainWhenTheRootIsKilled(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testTrafficPassesAgainWhenTheRootIsKilled)
}

func testTrafficPassesAgainWhenTheRootIsKilled(t *testing.T) {
	t.Parallel()
	l := newTriangleOf(t, timedTree("rstp", longMaxAge, longForwardDelay))
	a := l.bridge("a")
	m := moment{at: time.Now()}
	l.kvs("a").proc.Signal(unix.SIGKILL)
	<-l.kvs("a").proc.Done()
	a.dead = true
	m.round = l.chatter.rounds()
	t.Logf("root killed, its links up: traffic between the others in %v, hello time %ds", l.heals(m), shortHello)
	l.settles("b")
	l.noStorm()
}

// A frame that a guest sends as soon as its port is there must get through: the
// first is a DHCP request, as a rule, or a gratuitous ARP.
func TestFirstFrameOfANewGuestIsForwarded(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testFirstFrameOfANewGuestIsForwarded)
}

func testFirstFrameOfANewGuestIsForwarded(t *testing.T) {
	t.Parallel()
	l := newTriangle(t)
	b, k := l.bridge("b").host, l.kvs("b")
	guests := l.net.Host("guests")
	for i, kind := range []string{"netdev", "tap", "netdev", "tap"} {
		port := fmt.Sprintf("vm%d", i)
		first := ether(frame.Broadcast, mac(100+i), "first frame of "+port)
		if kind == "netdev" {
			l.net.Cable(b, port, guests, port)
			guest := guests.Station(port)
			k.do("port", "add", "netdev:"+port+",edge=on") // a container's
			guest.Send(first)
		} else {
			k.do("port", "add", "tap:"+port)
			guest := openTap(t, b, port)
			k.awaitPort(port, "is up", func(p portDoc) bool { return p.Link == "up" })
			if _, err := guest.Write(first); err != nil {
				t.Fatal(err)
			}
		}
		netns.Await(t, startPatience, "the first frame of "+port+" arrives", func() error {
			for {
				f, ok := l.chatter.stations[0].Recv(0) // a's
				if !ok {
					return fmt.Errorf("port is %+v", k.port(port))
				}
				if bytes.Equal(f, first) {
					return nil
				}
			}
		})
		if changes := k.treePort(port).Counters.TopologyChanges; changes != 0 {
			t.Errorf("%s caused %d topology changes, want none of an edge port", port, changes)
		}
	}
}

// openTap takes a tap as a virtual machine does.
func openTap(t *testing.T, host *netns.Host, name string) *os.File {
	t.Helper()
	var tap *os.File
	err := host.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		tap = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		t.Fatalf("open tap %s: %v", name, err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}
