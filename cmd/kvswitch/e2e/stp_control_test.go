package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// takesEffect waits until a condition that a command brings about holds, and
// logs how long that took. The standard has changes take effect at once (17.13);
// that they do is shown in stp/testdata/parameters.txt, to the tick.
func takesEffect(t *testing.T, command string, ok func() error) {
	t.Helper()
	at := time.Now()
	netns.Await(t, startPatience, command+" takes effect", ok)
	t.Logf("%s: in effect after %v", command, time.Since(at).Round(time.Millisecond))
}

// Every word of brctl and every key of stp set and stp port that changes the
// tree, and what the other bridges see of it.
func TestParametersTakeEffectAtOnce(t *testing.T) {
	t.Parallel()
	l := newTriangle(t)
	rootIs := func(name string) func() error {
		return func() error {
			want := l.kvs(name).tree().BridgeID
			for _, b := range l.bridges {
				if d := l.kvs(b.name).tree(); d.RootID != want {
					return fmt.Errorf("root of %s is %s, want %s", b.name, d.RootID, want)
				}
			}
			return nil
		}
	}
	role := func(bridge, port, want string) func() error {
		return func() error {
			if p := l.kvs(bridge).treePort(port); p.Role != want {
				return fmt.Errorf("port %s of %s is %s, want %s", port, bridge, p.Role, want)
			}
			return nil
		}
	}
	// times are those in force, hello, max age and forward delay, everywhere but
	// on the bridge that sets them.
	times := func(hello, maxAge, forwardDelay int) func() error {
		return func() error {
			for _, name := range []string{"b", "c"} {
				if d := l.kvs(name).tree(); d.Hello != hello || d.MaxAge != maxAge || d.ForwardDelay != forwardDelay {
					return fmt.Errorf("%s has hello %d, max age %d, forward delay %d", name, d.Hello, d.MaxAge, d.ForwardDelay)
				}
			}
			return nil
		}
	}
	neighbour := func(version string) func() error {
		return func() error {
			if p := l.kvs("a").treePort("c"); p.Neighbour != version {
				return fmt.Errorf("a hears %q from c, want %q", p.Neighbour, version)
			}
			return nil
		}
	}
	for _, step := range []struct {
		bridge  string
		command string
		effect  func() error
	}{
		{"c", "setbridgeprio 0", rootIs("c")},
		{"c", "setbridgeprio 12288", rootIs("a")},
		{"b", "stp set priority=0", rootIs("b")},
		{"b", "stp set priority=8192", rootIs("a")},
		{"c", "setpathcost a 100000", role("c", "b", "root")},
		{"c", "setpathcost a 2000", role("c", "a", "root")},
		{"b", "stp port a cost=100000", role("b", "c", "root")},
		{"b", "stp port a cost=0", role("b", "a", "root")},
		{"a", "setfd 10", times(shortHello, shortMaxAge, 10)},
		{"a", "setmaxage 12", times(shortHello, 12, 10)},
		{"a", "sethello 1", times(1, 12, 10)},
		{"a", "stp set hello=2 max-age=6 forward-delay=4", times(2, 6, 4)},
		{"c", "stp set mode=stp", neighbour("stp")},
		{"c", "stp set mode=rstp", func() error {
			// Until it is asked, RSTP stays with what an STP neighbour understands.
			l.kvs("a").do("stp", "port", "c", "mcheck=now")
			return neighbour("rstp")()
		}},
	} {
		l.kvs(step.bridge).do(strings.Fields(step.command)...)
		takesEffect(t, step.bridge+": "+step.command, step.effect)
	}
	l.noStorm()
}

// Two cables between two bridges: the port priorities of the one nearer to the
// root decide which of them carries traffic.
func TestPortPriorityChoosesBetweenTwoCables(t *testing.T) {
	t.Parallel()
	l := newTreeLab(t, treePlan{
		name: "two kvswitch with two cables", cables: []string{"a-b", "a-b#2"}, pause: 5 * time.Millisecond,
		bridges: []treeBridge{
			{name: "a", priority: 4096, maker: kvswitchTree("rstp")},
			{name: "b", priority: 8192, maker: kvswitchTree("rstp")},
		},
	})
	if blocked := l.converges("a"); blocked[0] != "a-b#2" {
		t.Errorf("%v is blocked, want the cable at the higher port number", blocked)
	}
	a, b := l.kvs("a"), l.kvs("b")
	rootPortIs := func(want string) func() error {
		return func() error {
			if got := b.tree().RootPort; got != want {
				return fmt.Errorf("it is %s, want %s", got, want)
			}
			_, err := l.agreed("a", nil)
			return err
		}
	}
	for _, step := range []struct{ command, rootPort string }{
		{"setportprio b2 16", "a2"}, // 32 is usual; brctl counts in steps of 4
		{"setportprio b2 32", "a"},
		{"stp port b prio=240", "a2"},
		{"stp port b prio=128", "a"},
	} {
		a.do(strings.Fields(step.command)...)
		takesEffect(t, "a: "+step.command, rootPortIs(step.rootPort))
	}
	// A wrong value changes nothing.
	a.refuses(2, []string{"prio", "240"}, "stp", "port", "b", "prio=255")
	a.refuses(2, []string{"setportprio"}, "setportprio", "b", "64")
	if err := rootPortIs("a")(); err != nil {
		t.Error(err)
	}
	l.heals(l.now())
	l.noStorm()
}
