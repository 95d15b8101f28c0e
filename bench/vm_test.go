package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// Real guests on the kernel's bridge: a ping and a stream arrive.
func TestGuestsAreMeasured(t *testing.T) {
	netns.RequirePrivilege(t)
	o := Options{
		Path: "vm", Quick: true, tolerant: true, trialLength: 50 * time.Millisecond, Runs: 1,
		kinds: slices.DeleteFunc(subject.Kinds("vm"), func(k subject.Kind) bool { return k.Family != "kernel" }),
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, s := range r.Series {
		if len(s.Values) > 0 && s.Median > 0 {
			found[s.Test] = true
		}
	}
	if !found["latency"] || !found["bulk"] {
		t.Errorf("measured %v, want latency and bulk; notes %q", found, r.Notes)
	}
}

func TestRoundTripsAreReadFromPing(t *testing.T) {
	got := roundTrips(`PING 10.75.1.2 (10.75.1.2): 56 data bytes
64 bytes from 10.75.1.2: seq=0 ttl=64 time=1.234 ms
64 bytes from 10.75.1.2: seq=1 ttl=64 time=0.056 ms

--- 10.75.1.2 ping statistics ---
3 packets transmitted, 2 packets received, 33% packet loss
round-trip min/avg/max = 0.056/0.645/1.234 ms
`)
	if want := []time.Duration{1234 * time.Microsecond, 56 * time.Microsecond}; !slices.Equal(got, want) {
		t.Errorf("round trips %v, want %v", got, want)
	}
}
