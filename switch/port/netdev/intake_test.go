package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// fakeIntake is an intake in ordinary memory, which the test fills as the program
// would. It begins at position at.
func fakeIntake(at uint32) (*intake, *filler) {
	s := sizeOfIntake(2 * blockSize)
	r := &intake{mem: make([]byte, s.total), consumed: make([]byte, 8), rung: make([]byte, 8), frames: at, units: at}
	r.shared, r.entries = intakeAt(r.mem, s.entries)
	r.data = r.mem[s.data:]
	r.shared.Head, r.shared.Tail = position(at, at), position(at, at)
	return r, &filler{r, s, at, at}
}

type filler struct {
	*intake
	size          intakeSize
	frames, units uint32
}

// put is the program for one frame: false if there is no room.
func (f *filler) put(number, length int, marks uint64, hdr frame.VnetHdr, tag frame.Tag) bool {
	room := 0
	if marks&entryExtra != 0 {
		room = intakeExtra
	}
	need := uint32((room + length + intakeUnit - 1) / intakeUnit)
	tail := atomic.LoadUint64(&f.shared.Tail)
	if f.frames-uint32(tail>>32) >= uint32(f.size.entries) || f.units+need-uint32(tail) > uint32(f.size.units) {
		return false
	}
	at := f.data[int(f.units)%f.size.units*intakeUnit:]
	if room > 0 {
		hdr.Put(at)
		binary.NativeEndian.PutUint32(at[intakeTag:], uint32(tag))
	}
	if length >= frame.HeaderLen+4 {
		clear(at[room : room+frame.HeaderLen])
		binary.BigEndian.PutUint32(at[room+frame.HeaderLen:], uint32(number))
	}
	entry := &f.entries[int(f.frames)%f.size.entries]
	f.frames++
	f.units += need
	atomic.StoreUint64(entry, uint64(f.frames)<<entryNumber|marks|uint64(length))
	return true
}

// Positions are 32 bits wide; a switch that runs for an hour goes around them.
func TestIntakeLendsInOrderAroundEveryEnd(t *testing.T) {
	for _, start := range []uint32{0, ^uint32(0) - 300} {
		r, f := fakeIntake(start)
		var lost, bad atomic.Uint64
		var b [7]frame.Frame
		put, got := 0, 0
		for got < 3000 {
			for f.put(put, 60+put*37%3000, 0, frame.VnetHdr{}, 0) {
				put++
			}
			tail := r.shared.Tail
			n := r.receive(b[:1+got%7], &lost, &bad)
			if n != 1+got%7 {
				t.Fatalf("start %d: %d frames lent, want %d", start, n, 1+got%7)
			}
			for i := range n {
				if k := got + i; number(b[i].Data) != k || len(b[i].Data) != 60+k*37%3000 || b[i].Hdr != (frame.VnetHdr{}) || b[i].Tag != 0 {
					t.Fatalf("start %d: frame %d is number %d of %d bytes", start, k, number(b[i].Data), len(b[i].Data))
				}
			}
			if r.shared.Tail != tail {
				t.Fatal("room was given back before release")
			}
			r.release()
			if r.shared.Tail != position(r.frames, r.units) {
				t.Fatal("room was not given back by release")
			}
			got += n
		}
	}
}

// A frame beyond frame.MaxLen lies in pieces around the ring's end, and is lent in
// parts, in as many calls and batches as it takes.
func TestIntakeLendsALongFrameInParts(t *testing.T) {
	r, f := fakeIntake(0)
	var lost, bad atomic.Uint64
	for round := range 50 {
		o := gso(round<<20, 100000)
		for i := range o.Data[54:] {
			o.Data[54+i] = byte(i >> (8 * (i % 2)) * (round + 1))
		}
		if !f.put(0, len(o.Data), entryExtra, o.Hdr, 0x8100_0007) {
			t.Fatal("no room")
		}
		at := int(f.units)*intakeUnit - (len(o.Data)+intakeExtra+intakeUnit-1)&^(intakeUnit-1)
		for from := 0; from < len(o.Data); from += intakePiece {
			copy(f.data[(at+from)%(f.size.units*intakeUnit)+intakeExtra:], o.Data[from:min(from+intakePiece, len(o.Data))])
		}
		o.Hdr.Put(f.data[at%(f.size.units*intakeUnit):])
		f.put(99, 60, 0, frame.VnetHdr{}, 0)
		var got []byte
		for end := false; !end; {
			var b [frame.BatchSize]frame.Frame
			n := r.receive(b[:1+round%3], &lost, &bad)
			if n == 0 {
				t.Fatalf("round %d: nothing, after %d bytes", round, len(got))
			}
			for _, g := range b[:n] {
				if end = len(g.Rest) == 0; end {
					break
				}
				if g.Tag != 0x8100_0007 || g.Hdr.GSOType != frame.GSOTCPv4 || gsoNumber(g.Data) != round<<20+len(got) || g.Len() > frame.MaxLen {
					t.Errorf("a part of %d bytes: %+v, tag %x, number %d", g.Len(), g.Hdr, g.Tag, gsoNumber(g.Data))
				}
				for _, piece := range g.Rest {
					got = append(got, piece...)
				}
			}
			r.release()
			if r.long.More() && uint32(r.shared.Tail>>32) != uint32(2*round) {
				t.Error("room was given back while parts of what lies there are still to be lent")
			}
		}
		if !bytes.Equal(got, o.Data[54:]) {
			t.Fatalf("round %d: %d bytes of payload, not those that were put in", round, len(got))
		}
	}
	if bad.Load() != 0 {
		t.Errorf("%d bad frames", bad.Load())
	}
	// What isn't TCP to be segmented can't be cut.
	o := gso(1, 100000)
	o.Hdr.GSOType = frame.GSOUDPL4
	f.put(0, len(o.Data), entryExtra, o.Hdr, 0)
	f.put(5, 60, 0, frame.VnetHdr{}, 0)
	var b [4]frame.Frame
	if n := r.receive(b[:], &lost, &bad); n != 1 || number(b[0].Data) != 5 || bad.Load() != 1 {
		t.Errorf("%d frames, %d bad", n, bad.Load())
	}
}

func TestIntakeTellsWhatIsRemarkableAboutAFrame(t *testing.T) {
	r, f := fakeIntake(0)
	hdr := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	f.put(0, 60, 0, hdr, 5)
	f.put(1, 60, entryValid, hdr, 5)
	f.put(2, 64, entryExtra, hdr, 0x8100_6005)
	f.put(3, frame.MaxLen, entryExtra, frame.VnetHdr{}, 0x88a8_0007)
	var lost, bad atomic.Uint64
	b := make([]frame.Frame, 8)
	for i := range b {
		b[i] = frame.Frame{Tag: 1, Strip: 4, Rest: [][]byte{nil}, Hdr: hdr}
	}
	if n := r.receive(b, &lost, &bad); n != 4 {
		t.Fatalf("%d frames", n)
	}
	for i, want := range []frame.Frame{
		{},
		{Hdr: frame.VnetHdr{Flags: frame.HdrDataValid}},
		{Hdr: hdr, Tag: 0x8100_6005},
		{Tag: 0x88a8_0007},
	} {
		g := b[i]
		if number(g.Data) != i || g.Hdr != want.Hdr || g.Tag != want.Tag || g.Strip != 0 || g.Rest != nil {
			t.Errorf("frame %d: %+v, tag %08x, strip %d", i, g.Hdr, uint32(g.Tag), g.Strip)
		}
	}
}

// BPDUs are the control socket's. Nothing but such frames must not fill the ring.
func TestIntakeLeavesBPDUsAlone(t *testing.T) {
	r, f := fakeIntake(0)
	var lost, bad atomic.Uint64
	var b [4]frame.Frame
	for i := range 1000 {
		if !f.put(i, 60, 0, frame.VnetHdr{}, 0) {
			t.Fatalf("no room for BPDU %d", i)
		}
		copy(r.data[int(f.units-1)%f.size.units*intakeUnit:], bpdu(0))
		if n := r.receive(b[:], &lost, &bad); n != 0 {
			t.Fatal("a BPDU was lent")
		}
	}
}

func TestThisKernelHasIntakes(t *testing.T) {
	err := kernelHasIntakes()
	netns.Need(t, "BPF functions of the kernel and its type information (Linux 6.2)", err)
	for _, queues := range []int{1, 2, 3, MaxQueues} {
		sw, _ := cable(t)
		p := openOn(t, sw, "port", Options{Queues: queues, RingBytes: 2 * blockSize})
		if d := p.Detail().(Detail); d.Receive != receiveIntake || d.Rings != queues {
			_ = sw.Do(func() error {
				p.watcher.Do(func() { _, _, err = p.takeIn(&attachment{keep: inMemory}, p.at.index, nil) })
				return nil
			})
			t.Errorf("%d queues: %+v: %v", queues, d, err)
		}
	}
}

// Whoever sleeps after Arm found nothing is woken up by the next frame, whenever
// it comes.
func TestNoWakeUpIsLost(t *testing.T) { eachWay(t, testNoWakeUpIsLost) }

func testNoWakeUpIsLost(t *testing.T) {
	a, b := pair(t, Options{})
	q := b.Queues()[1]
	const frames = 20000
	var seen atomic.Int64
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var lent [frame.BatchSize]frame.Frame
		for seen.Load() < frames {
			n := q.Rx(lent[:])
			q.Release()
			seen.Add(int64(n))
			if n > 0 || q.Arm() {
				continue
			}
			if k, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 5000); err != nil && err != unix.EINTR || err == nil && k == 0 {
				done <- fmt.Errorf("asleep after %d frames: %d, %v", seen.Load(), k, err)
				return
			}
		}
		done <- nil
	}()
	for i := range frames {
		send(t, a, numbered(i, 60))
		for spin := i % 50; spin > 0; spin-- { // comes at another moment of the other side's every time
			runtime.Gosched()
		}
		for i%3 == 0 && seen.Load() < int64(i+1) {
			select {
			case err := <-done:
				t.Fatal(err)
			default:
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Several processors deliver to one device at the same time.
func TestProcessorsShareAnIntake(t *testing.T) { eachWay(t, testProcessorsShareAnIntake) }

func testProcessorsShareAnIntake(t *testing.T) {
	sw, far := cable(t)
	b := openOn(t, sw, "port", Options{RingBytes: 4 << 20})
	a := openOn(t, far, "eth0", Options{Queues: 4})
	awaitState(t, b, "up", up)
	const senders, each = 4, 5000
	var sending sync.WaitGroup
	var sent, received atomic.Int64
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				f := numbered(i, 60+i%1400)
				f[11] = byte(s) // of the source address
				for a.Tx(s, []frame.Out{{Frame: &frame.Frame{Data: f}}}) == 0 {
				}
				for n := sent.Add(1); n-received.Load() > 500; { // no more than the ring holds
					runtime.Gosched()
				}
			}
		})
	}
	next := [senders]int{}
	total := 0
	netns.Await(t, 30*time.Second, "every frame", func() error {
		for _, g := range take(b) {
			s := g.data[11]
			if int(s) >= senders || number(g.data) != next[s] || len(g.data) != 60+next[s]%1400 {
				t.Fatalf("sender %d: number %d of %d bytes, want %d", s, number(g.data), len(g.data), next[s])
			}
			next[s]++
			total++
		}
		received.Store(int64(total))
		if total < senders*each {
			return errors.New(fmt.Sprint(total, " so far"))
		}
		return nil
	})
	sending.Wait()
	if c := b.Counters(); c != (frame.Counters{}) {
		t.Errorf("counters %+v", c)
	}
}

// bpftool shows whose programs and maps those are.
func TestProgramsAndMapsHaveNamesThatSayWhose(t *testing.T) {
	netns.RequirePrivilege(t)
	netns.Need(t, "BPF functions of the kernel and its type information (Linux 6.2)", kernelHasIntakes())
	set, err := newIntakeSet(2, sizeOfIntake(2*blockSize), nil)
	defer set.free()
	defer set.close()
	if err != nil {
		t.Fatal(err)
	}
	intake, err := set.program()
	if err != nil {
		t.Fatal(err)
	}
	defer intake.Close()
	shield, err := shieldProgram(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer shield.Close()
	names := []string{mapName(t, set.intakes[0].bell)}
	for _, p := range []*ebpf.Program{intake, shield} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, mapName(t, m))
			m.Close()
		}
	}
	slices.Sort(names)
	want := []string{"kvswitch_bell", "kvswitch_bells", "kvswitch_frames", "kvswitch_intake", "kvswitch_shield", "kvswitch_sizes", "kvswitch_uplink", "kvswitch_uplink"}
	if !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

func mapName(t *testing.T, m *ebpf.Map) string {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

// The kernel lets a program look at its own data by CAP_PERFMON only. Without it a
// port has rings, and the shield.
func TestWithoutPermissionToLookAtTheKernelsDataAPortHasRings(t *testing.T) {
	sw, far := cable(t)
	netns.Need(t, "BPF functions of the kernel and its type information (Linux 6.2)", kernelHasIntakes())
	w := watcherOf(t, sw)
	w.Do(func() { dropCapabilities(t, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN) })
	p, err := Open("port", Options{Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d := p.Detail().(Detail)
	if d.Receive != receiveRing || d.NotBPF != "load BPF program: operation not permitted" || d.Shield == shieldNone {
		t.Errorf("%+v", d)
	}
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, p, "up", up)
	roundTrip(t, p, far.Station("eth0"), 1)
}
