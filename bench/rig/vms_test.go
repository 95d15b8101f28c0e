package rig

import (
	"slices"
	"testing"
	"time"
)

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
