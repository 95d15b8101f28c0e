package vhostuser

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Row 12 of what a back end must do, where it is easy to lose a page: whatever
// the order in which log and feature come, nothing is written unlogged.

const logAll = modern | featProtocol | featLogAll

// marks reports whether a dirty log has a mark, and clears it.
func marks(t *testing.T, fd int) bool {
	t.Helper()
	b := make([]byte, 1<<20)
	if _, err := unix.Pread(fd, b, 0); err != nil {
		t.Fatal(err)
	}
	marked := slices.Max(b) != 0
	clear(b)
	unix.Pwrite(fd, b, 0)
	return marked
}

func logBase(size uint64) []byte { return append(u64(size), u64(0)...) }

func TestRingsRestUntilTheDirtyLogComes(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	f.must(reqSetFeatures, u64(logAll))
	if s := p.State(); s.Up || !strings.Contains(s.Reason, "log") {
		t.Errorf("state %+v", s)
	}
	f.supply(0, 2048)
	f.transmit(0, 77)
	var b [4]frame.Frame
	if n := p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}})); n != 0 {
		t.Errorf("Tx = %d, unlogged", n)
	}
	if n := p.queues[0].Rx(b[:]); n != 0 {
		t.Errorf("Rx = %d, and the used ring would be written unlogged", n)
	}
	// QEMU that starts a device in the middle of a migration sends it last.
	log := memfd(t, 1<<20)
	f.must(reqSetLogBase, logBase(1<<20), log)
	f.expect(0, 77)
	f.works()
	if !marks(t, log) {
		t.Error("nothing was logged")
	}
	f.must(reqSetFeatures, u64(modern|featProtocol))
	f.must(reqSetFeatures, u64(logAll))
	if p.State().Up {
		t.Error("up with the log of the migration before, which is gone")
	}
}

// What a driver's reset leaves of a migration is nothing: a log that stayed
// would be written to for a device that nobody migrates.
func TestResetDropsTheDirtyLog(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	_, maps := resources(t)
	log := memfd(t, 1<<20)
	f.must(reqSetLogBase, logBase(1<<20), log)
	f.must(reqSetFeatures, u64(logAll))
	f.works()
	f.must(reqResetDevice, nil)
	if _, now := resources(t); now != maps {
		t.Errorf("%d mappings, %d before there was a log", now, maps)
	}
	for i := range f.rings {
		f.rings[i] = f.newRing(i, 0)
	}
	f.must(reqSetFeatures, u64(logAll))
	for i := range f.rings {
		f.startRing(i, 0)
		f.enable(i, 1)
	}
	if p.State().Up {
		t.Error("up without a log")
	}
	f.must(reqSetLogBase, logBase(1<<20), log)
	f.works()
}

// A log with no room for a used ring is refused, and the one before goes on.
func TestLogThatDoesNotCoverTheUsedRingIsRefused(t *testing.T) {
	_, f := connected(t, Options{}, modern)
	const far = 1 << 40 // what the first log covers and the second doesn't
	long, short := memfd(t, 1<<26), memfd(t, 1<<20)
	f.must(reqSetLogBase, logBase(1<<26), long)
	f.must(reqSetFeatures, u64(logAll))
	for i := range f.rings {
		a := f.rings[i].addr
		a.flags, a.log = vringFlagLog, far
		f.must(reqSetVringAddr, a.encode())
	}
	f.works()
	marks(t, long)
	leaksNothing(t, "a refused log", func() { f.mustNot(reqSetLogBase, logBase(1<<20), short) })
	f.works()
	if !marks(t, long) || marks(t, short) {
		t.Error("logged in the one that was refused")
	}
}
