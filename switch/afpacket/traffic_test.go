package afpacket

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
)

func TestTCPCrossesTwoVethsAtDefaultOffloads(t *testing.T) {
	lab := netlab.New(t)
	a, sw, b := lab.Host("a"), lab.Host("sw"), lab.Host("b")
	lab.Cable(a, "eth0", sw, "pa")
	lab.Cable(b, "eth0", sw, "pb")
	a.Addr("eth0", "10.0.0.1/24")
	b.Addr("eth0", "10.0.0.2/24")
	join(t, nil, openOn(t, sw, "pa", Options{}), openOn(t, sw, "pb", Options{}))
	a.Reaches("10.0.0.2")
	start := time.Now()
	a.Transfer(b, netip.MustParseAddr("10.0.0.2"), 64<<20, 20*time.Second)
	t.Logf("64 MiB in %v", time.Since(start))
	if n := a.ChecksumErrors() + b.ChecksumErrors(); n != 0 {
		t.Errorf("%d checksum errors", n)
	}
}
