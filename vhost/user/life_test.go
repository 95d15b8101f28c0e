package vhostuser

import (
	"bytes"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
	"golang.org/x/sys/unix"
)

// In server mode the front end comes again: QEMU was killed and started, or the
// guest rebooted. The port, and what is seen of it, stay.
func TestServerModeOutlivesItsFrontEnds(t *testing.T) {
	p := openPort(t, Options{QueuePairs: 2})
	queues := p.Queues()
	fds := []int{queues[0].FD(), queues[1].FD()}
	for round := range 5 {
		f := newFrontend(t, p, guestOptions{size: 64})
		f.up(modern | featMQ | featProtocol)
		f.works()
		if queues[0].FD() != fds[0] || queues[1].FD() != fds[1] || len(p.Queues()) != 2 {
			t.Fatal("the queues changed")
		}
		f.conn.Close()
		wait(t, "the link to go down", func() bool { return !p.State().Up })
		if d := p.Detail().(Detail); d.Connections != uint64(round+1) {
			t.Fatalf("shown: %+v", d)
		}
	}
}

// In client mode the port looks for the front end until it is there, and again
// when it was gone: the switch may be restarted under a running guest.
func TestClientModeReconnects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, err := Open(Options{Path: path, Mode: Client, Reconnect: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var news atomic.Int64
	if err := p.Start(func() { news.Add(1); p.Acted(p.State()) }); err != nil {
		t.Fatal(err)
	}
	wait(t, "an attempt to fail", func() bool { return news.Load() > 0 })
	if s := p.State(); s.Up || s.Gone || s.Reason == "" {
		t.Errorf("without a front end: %+v", s)
	}
	f := &frontend{guest: newGuest(t, guestOptions{size: 64})}
	f.port = p
	for range f.rings {
		f.kicks, f.calls, f.errs = append(f.kicks, eventFD(t)), append(f.calls, eventFD(t)), append(f.errs, eventFD(t))
	}
	for range 4 {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetDeadline(time.Now().Add(20 * time.Second))
		if f.conn, err = l.AcceptUnix(); err != nil {
			t.Fatal(err)
		}
		f.conn.SetDeadline(time.Now().Add(20 * time.Second))
		for i := range f.rings {
			f.rings[i] = f.newRing(i, 0)
		}
		f.up(modern)
		f.works()
		f.conn.Close()
		l.Close()
		wait(t, "the link to go down", func() bool { return !p.State().Up })
	}
	ends(t, "Close without a front end", func() { p.Close() })
}

// The switch was killed with frames in its hands. QEMU restores the available
// index from the used ring, so that nothing is lost: what was lent comes again.
func TestRestartOfTheSwitchLosesNoDescriptor(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	for i := range 10 {
		f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(100+i)))
	}
	f.rings[1].Publish()
	var b [4]frame.Frame
	q := p.queues[0]
	q.Rx(b[:])
	q.Release()
	if n := q.Rx(b[:]); n != 4 { // lent when it dies
		t.Fatalf("Rx = %d", n)
	}
	// Another process takes over: another port on the same guest. The first one
	// never writes again.
	other := openPort(t, Options{})
	f.port = other
	f.connect()
	f.negotiate(modern)
	f.setMemory()
	used := f.rings[1].addr.used - userBase
	base := uint16(f.mem[used+2]) | uint16(f.mem[used+3])<<8
	if base != 4 {
		t.Fatalf("used index %d", base)
	}
	f.startRing(0, 0)
	f.startRing(1, base)
	f.expect(0, 104, 105, 106, 107, 108, 109)
	// NO_NOTIFY, which the dead one left behind, does not keep the guest silent.
	q = other.queues[0]
	if q.Arm() || !f.rings[1].WantKick() {
		t.Error("kicks stay off")
	}
	f.works()
	p.queues[0].live.Store(nil) // the dead don't return what they had
	p.queues[0].Release()
}

// Inflight I/O tracking, over the socket: what was taken and not returned is
// taken again, in the order it was fetched first, and then what is new.
func TestInflightBufferSurvivesTheBackEnd(t *testing.T) {
	p := openPort(t, Options{})
	f := newFrontend(t, p, guestOptions{size: 64})
	f.negotiate(modern)
	f.send(reqGetInflightFD, inflightArea{queues: 2, queueSize: 64}.append(nil))
	answer, fds := f.answer(reqGetInflightFD)
	if len(fds) != 1 {
		t.Fatalf("%d descriptors", len(fds))
	}
	area := (&message{payload: answer}).inflightArea()
	if area.size != uint64(2*virtq.InflightBytes(64)) || area.offset != 0 || area.queues != 2 || area.queueSize != 64 {
		t.Fatalf("answer %+v", area)
	}
	if err := unix.Ftruncate(fds[0], 0); err == nil {
		t.Error("the buffer can be cut short")
	}
	start := func() {
		t.Helper()
		f.must(reqSetInflightFD, answer, fds[0])
		f.setMemory()
		f.startRing(0, 0)
		f.startRing(1, 0)
	}
	start()
	f.works()
	for i := range 8 {
		f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(100+i)))
	}
	f.rings[1].Publish()
	var b [5]frame.Frame
	if n := p.queues[0].Rx(b[:]); n != 5 {
		t.Fatalf("Rx = %d", n)
	}
	// The back end is gone. Its successor sees the guest, and the buffer, as they
	// are now.
	other := openPort(t, Options{})
	f.port = other
	f.connect()
	f.negotiate(modern)
	start()
	if base := other.queues[0].live.Load(); base.Next() != 3+5 || base.Used() != 3 {
		t.Errorf("starts at %d with %d returned", base.Next(), base.Used())
	}
	f.expect(0, 100, 101, 102, 103, 104, 105, 106, 107)
	f.works()
	p.queues[0].live.Store(nil)
	p.queues[0].Release()
	if got := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(got, state(1, 3+8+3)) {
		t.Errorf("base % x", got)
	}
}

// A migration: the dirty log is kept while the guest runs, every page that the
// back end wrote is in it, and the destination goes on where the source stopped.
func TestLiveMigration(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	f.works()
	const logBytes = (guestBase + 4*regionGap) / 4096 / 8
	logFD := memfd(t, logBytes)
	bits := make([]byte, logBytes)
	read := func() map[uint64]bool { // and clear
		t.Helper()
		if _, err := unix.Pread(logFD, bits, 0); err != nil {
			t.Fatal(err)
		}
		pages := make(map[uint64]bool)
		for i, v := range bits {
			for bit := range 8 {
				if v&(1<<bit) != 0 {
					pages[uint64(i*8+bit)] = true
				}
			}
		}
		clear(bits)
		if _, err := unix.Pwrite(logFD, bits, 0); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	// What QEMU sends when a migration starts, while traffic runs.
	logCall := eventFD(t)
	f.must(reqSetLogBase, append(u64(logBytes), u64(0)...), logFD)
	f.must(reqSetLogFD, nil, logCall)
	f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
	logUsed := func(i int) uint64 { return f.rings[i].addr.used - userBase + guestBase }
	for i := range f.rings {
		a := f.rings[i].addr
		a.flags, a.log = vringFlagLog, logUsed(i)
		f.must(reqSetVringAddr, a.encode())
	}
	if d := p.Detail().(Detail); !d.Logging {
		t.Error("not shown to be logging")
	}
	read()
	drain(logCall)

	// Pages that differ must be marked; those of the receive buffers and of the
	// used rings, and no page of what was only read.
	for range 20 {
		before := bytes.Clone(f.mem)
		for i := range f.rings {
			if i == 0 {
				f.post(0, 2048)
			} else {
				f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(1500)))
			}
			f.rings[i].Publish()
		}
		mine := bytes.Clone(f.mem) // after what the guest itself wrote
		if n := p.Tx(0, outs([]frame.Frame{{Data: testFrame(1700)}})); n != 1 {
			t.Fatalf("Tx = %d", n)
		}
		var b [4]frame.Frame
		if n := p.queues[0].Rx(b[:]); n != 1 {
			t.Fatalf("Rx = %d", n)
		}
		p.queues[0].Release()
		marked := read()
		for off := 0; off < len(f.mem); off += 4096 {
			changed := !bytes.Equal(mine[off:off+4096], f.mem[off:off+4096])
			if page := f.gpa(off) / 4096; changed && !marked[page] {
				t.Fatalf("page %#x was written and is not marked", page)
			} else if marked[page] && !changed && off >= int(f.regions[1].offset) {
				t.Fatalf("page %#x is marked and was not written", page)
			}
		}
		if len(marked) == 0 || bytes.Equal(before, f.mem) {
			t.Fatal("nothing was written")
		}
		f.receive(0, 12)
		f.sent(0)
	}
	if !readable(t, logCall) {
		t.Error("the log descriptor was not signalled")
	}

	// The source stops; the memory moves; the destination starts.
	f.transmit(0, 333)
	var bases [2]uint16
	for i := range f.rings {
		s := (&message{payload: f.ask(reqGetVringBase, state(i, 0))}).vringState()
		bases[i] = uint16(s.num)
	}
	read()
	p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
	p.queues[0].Rx(make([]frame.Frame, 4))
	if pages := read(); len(pages) != 0 {
		t.Errorf("%d pages written after the rings were stopped", len(pages))
	}
	other := openPort(t, Options{})
	f.port = other
	f.connect()
	f.negotiate(modern)
	f.setMemory()
	f.startRing(0, bases[0])
	f.startRing(1, bases[1])
	f.must(reqSendRARP, append([]byte{0x52, 0x54, 0, 0, 0, 1}, 0, 0))
	var b [4]frame.Frame
	q := other.queues[0]
	if n := q.Rx(b[:]); n != 2 || !bytes.Equal(b[0].Data, testFrame(333)) || b[1].Data[12] != 0x80 || b[1].Data[13] != 0x35 {
		t.Fatalf("the destination got %d", n)
	}
	q.Release()
	f.sent(0)
	f.works()
}

// Logging is switched off, too, and the log goes away.
func TestLoggingStops(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	const logBytes = (guestBase + 4*regionGap) / 4096 / 8
	logFD := memfd(t, logBytes)
	f.must(reqSetLogBase, append(u64(logBytes), u64(0)...), logFD)
	f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
	f.works()
	f.must(reqSetFeatures, u64(modern|featProtocol))
	bits := make([]byte, logBytes)
	unix.Pwrite(logFD, bits, 0)
	f.works()
	if unix.Pread(logFD, bits, 0); slices.Max(bits) != 0 {
		t.Error("marked after logging was switched off")
	}
	if p.Detail().(Detail).Logging {
		t.Error("shown to be logging")
	}
}

// A guest may send as soon as its rings run. Until the switch has acted on that, a
// frame stays in the ring; on a port that is not up it can only be dropped.
func TestFirstFramesWaitForTheSwitch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	down := p.State()
	f := newFrontend(t, p, guestOptions{size: 64})
	q := p.queues[0]
	var b [4]frame.Frame
	f.negotiate(modern | featProtocol)
	f.setMemory()
	f.startRing(1, 0)
	f.enable(1, 1)
	f.transmit(0, 60) // with half a port
	if n := q.Rx(b[:]); n != 1 {
		t.Fatalf("Rx = %d on a port that is not up", n)
	}
	q.Release()
	f.transmit(0, 61)
	f.startRing(0, 0)
	f.enable(0, 1)
	for round := range 2 {
		if !p.State().Up {
			t.Fatal("the link is down")
		}
		p.Acted(down) // what the switch found before
		if n := q.Rx(b[:]); n != 0 || !q.Arm() {
			t.Fatalf("round %d: Rx = %d before the switch is ready, or it would sleep", round, n)
		}
		p.Acted(p.State())
		if n := q.Rx(b[:]); n != 1 || b[0].Len() != 61 {
			t.Fatalf("round %d: Rx = %d after the switch is ready", round, n)
		}
		q.Release()
		f.enable(0, 0) // the link goes down and comes up again
		f.enable(0, 1)
		f.transmit(0, 61)
	}
}
