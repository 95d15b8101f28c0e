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
