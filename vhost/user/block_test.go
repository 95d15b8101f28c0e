package vhostuser

import (
	"encoding/binary"
	"testing"
	"time"

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
	for i := range f.rings {
		clog(f.calls[i])
		clog(f.errs[i])
		clog(f.kicks[i])
	}
	clog(logCall)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			f.post(0, 2048)
			f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(60)))
		}
		f.rings[0].Publish()
		f.rings[1].Publish()
		var b [4]frame.Frame
		q := p.queues[0]
		for range 5 {
			if q.Rx(b[:]) > 0 {
				q.Release()
			}
			q.Arm()
			p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
		}
		// And a ring that breaks.
		avail := f.mem[f.rings[1].addr.avail-userBase:]
		binary.LittleEndian.PutUint16(avail[2:], 3*64)
		q.Rx(b[:])
		for p.queues[0].broken.Load() == nil || p.State().Up {
			time.Sleep(time.Millisecond)
		}
		p.Detail()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the front end keeps others waiting")
	}
	for _, fd := range append(append([]int{logCall}, f.calls...), f.errs...) { // whoever waits goes on
		unix.SetNonblock(fd, true)
		drain(fd)
	}
	<-done
}
