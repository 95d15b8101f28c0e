package vhostuser

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// A front end that makes its eventfds blocking ones, and fills them, has nobody
// wait for it: not a worker that notifies, nor whoever asks how the port is.
func TestFullEventFDsBlockNobody(t *testing.T) {
	if err := sysio.PrepareSignals(); err != nil {
		t.Skipf("signals are writes here: %v", err)
	}
	clog := func(fd int) {
		t.Helper()
		unix.Write(fd, binary.LittleEndian.AppendUint64(nil, ^uint64(0)-1))
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
	}
	p, f := connected(t, Options{}, modern)
	logCall := eventFD(t)
	f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), memfd(t, 1<<20))
	f.must(reqSetLogFD, nil, logCall)
	f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
	all := slices.Concat(f.calls, f.errs, f.kicks, []int{logCall})
	t.Cleanup(func() { // whoever waits after all goes on
		for _, fd := range all {
			unix.SetNonblock(fd, true)
			drain(fd)
		}
	})
	for _, fd := range all {
		clog(fd)
	}
	q := p.queues[0]
	ends(t, "the worker", func() {
		for range 10 {
			f.post(0, 2048)
			f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(60)))
		}
		f.rings[0].Publish()
		f.rings[1].Publish()
		var b [4]frame.Frame
		for range 5 {
			if q.Rx(b[:]) > 0 {
				q.Release()
			}
			q.Arm()
			p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
		}
		f.jump(1) // and a ring that breaks
		q.Rx(b[:])
	})
	wait(t, "the ring to be reported", func() bool { return q.broken.Load() != nil && !p.State().Up })
	ends(t, "Detail", func() { p.Detail() })
}
