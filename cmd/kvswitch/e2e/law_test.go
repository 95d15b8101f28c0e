package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// bench is a star with a kvswitch in its middle, for tests that send one frame
// and say who must hear what.
type bench struct {
	*star
	kvs   *kvs
	sweep *sweep
}

// newBench builds a star of n ports and runs kvswitch on it with args.
func newBench(t *testing.T, n int, args ...string) *bench {
	t.Helper()
	s := newStar(t, netns.New(t), "switch", n)
	return &bench{s, onStar(s, args...), plainSweep(n)}
}

// hears sends frames into a port, one after the other, and returns what each
// port put out. Nothing is on the way any more when it returns.
func (b *bench) hears(port int, frames ...[]byte) [][][]byte {
	b.t.Helper()
	b.send(port, frames...)
	heard, err := b.settle(b.sweep)
	if err != nil {
		b.t.Fatal(err)
	}
	return heard
}

// expect sends a frame into a port and checks that exactly these ports put it
// out, once, and as it was.
func (b *bench) expect(what string, port int, f []byte, to ...int) {
	b.t.Helper()
	want := map[int][]byte{}
	for _, p := range to {
		want[p] = f
	}
	b.expectAs(what, port, f, want)
}

// expectAs is expect for frames that come out changed.
func (b *bench) expectAs(what string, port int, f []byte, want map[int][]byte) {
	b.t.Helper()
	for p, got := range b.hears(port, f) {
		w, wanted := want[p]
		switch {
		case !wanted && len(got) > 0:
			b.t.Errorf("%s: p%d put out %s", what, p, describe(got[0]))
		case wanted && len(got) != 1:
			b.t.Errorf("%s: p%d put out %d frames, want one", what, p, len(got))
		case wanted && !bytes.Equal(got[0], w):
			b.t.Errorf("%s: p%d put out %s\nwant %s", what, p, describe(got[0]), describe(w))
		}
	}
}

// others are all ports but these.
func (b *bench) others(not ...int) (ports []int) {
	for p := range b.ports {
		if !slices.Contains(not, p) {
			ports = append(ports, p)
		}
	}
	return ports
}

// teach lets a station be heard on a port.
func (b *bench) teach(port int, station frame.MAC) {
	b.t.Helper()
	b.expect("teaching "+station.String(), port, ether(frame.Broadcast, station, "here I am"), b.others(port)...)
}

// drops is how often a port has dropped a frame for a reason.
func (b *bench) drops(port int, reason string) uint64 {
	b.t.Helper()
	return b.kvs.port(b.ports[port]).Drops[reason]
}

// expectDropped sends frames into a port and checks that nobody hears them and
// that the port counts each under the reason, and under nothing else.
func (b *bench) expectDropped(what, reason string, port int, frames ...[]byte) {
	b.t.Helper()
	before := b.kvs.port(b.ports[port])
	for p, got := range b.hears(port, frames...) {
		for _, f := range got {
			b.t.Errorf("%s: p%d put out %s", what, p, describe(f))
		}
	}
	after := b.kvs.port(b.ports[port])
	for r, n := range after.Drops {
		grew := n - before.Drops[r]
		if r == reason && grew != uint64(len(frames)) || r != reason && grew != 0 {
			b.t.Errorf("%s: p%d counted %d frames as %s, want %d as %s", what, port, grew, r, len(frames), reason)
		}
	}
	if _, counted := after.Drops[reason]; !counted {
		b.t.Errorf("%s: p%d has no counter %s among %v", what, port, reason, after.Drops)
	}
	if grew := after.RX.Dropped - before.RX.Dropped; grew != uint64(len(frames)) {
		b.t.Errorf("%s: p%d counted %d dropped frames, want %d", what, port, grew, len(frames))
	}
}

// body is the text of a numbered test frame, padded to a usual length.
func body(n int) string {
	text := fmt.Sprintf("test %d ", n)
	return text + strings.Repeat("x", max(0, 46-len(text)))
}
