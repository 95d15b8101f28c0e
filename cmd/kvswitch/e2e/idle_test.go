package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

const idlePorts = 32

// runIdle starts a switch with ports on which nothing happens but its own hellos,
// and waits until all of them forward.
func runIdle(t *testing.T) *kvs {
	lab := netns.New(t)
	host, far := lab.Host("host"), lab.Host("far")
	args := []string{}
	for i := range idlePorts {
		name := fmt.Sprint("p", i)
		lab.Cable(host, name, far, name)
		args = append(args, "--port", "netdev:"+name)
	}
	k := run(t, host, args...)
	netns.Await(t, 30*time.Second, "all ports forward", func() error {
		for _, p := range k.status().Ports {
			if p.STP.State != "forwarding" {
				return fmt.Errorf("%s is %s", p.Name, p.STP.State)
			}
		}
		return nil
	})
	return k
}

// wakeUps is how often threads of the process have gone to sleep.
func (k *kvs) wakeUps() (n int) {
	k.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", k.proc.Pid()))
	if err != nil || len(tasks) == 0 {
		k.t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				i, _ := strconv.Atoi(strings.TrimSpace(v))
				n += i
			}
		}
	}
	return n
}

// An idle switch wakes up once a second, and for its hellos. It is counted by
// what it sends itself, so that a slow machine changes nothing. Most wake-ups are
// the Go runtime's, which looks after its threads while one of them sends.
func TestIdleSwitchSleepsBetweenItsHellos(t *testing.T) {
	k := runIdle(t)
	sent := func() int { p := k.treePort("p7"); return p.sent() }
	first, woke := sent(), k.wakeUps()
	netns.Await(t, time.Minute, "five hellos", func() error {
		time.Sleep(2 * time.Second) // looking wakes it up, too
		if n := sent() - first; n < 5 {
			return fmt.Errorf("%d hellos so far", n)
		}
		return nil
	})
	hellos, woken := (sent()-first)*idlePorts, k.wakeUps()-woke
	t.Logf("%d wake-ups for %d hellos", woken, hellos)
	if woken > 10*hellos {
		t.Errorf("%d wake-ups while %d hellos were sent", woken, hellos)
	}
}
