package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// TestIdleCostsNothing measures the processor time of a switch with 64 ports on
// which nothing happens but its own hellos.
func TestIdleCostsNothing(t *testing.T) {
	const (
		ports   = 64
		measure = 5 * time.Second
		most    = 0.005 // of a processor
	)
	lab := netns.New(t)
	host, far := lab.Host("host"), lab.Host("far")
	args := []string{}
	for i := range ports {
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
	used := func() time.Duration {
		t.Helper()
		d, err := k.proc.CPU()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	// The start is not idle: the first quiet interval counts, of a few.
	var share float64
	for range 4 {
		before, start := used(), time.Now()
		time.Sleep(measure) // this is the measurement, not a wait for something
		share = float64(used()-before) / float64(time.Since(start))
		t.Logf("%d idle ports use %.3f %% of a processor", ports, 100*share)
		if share < most {
			return
		}
	}
	t.Errorf("%d idle ports use %.3f %% of a processor, want less than %.1f %%", ports, 100*share, 100*most)
}
