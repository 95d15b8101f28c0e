package netdev

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// fakeRing is a ring in ordinary memory, which the test fills as the kernel
// would.
func fakeRing(slots int) *ring {
	r := &ring{fd: -1, size: slotSize(1500), big: &bigFrames{mem: make([]byte, 4096)}}
	r.mem = make([]byte, slots*r.size)
	for i := range slots {
		r.slots = append(r.slots, slotAt(r.mem, i*r.size))
	}
	return r
}

// fill puts a frame of that length, with a number in it, into slot i.
func (r *ring) fill(i int, status uint32, length, number int) {
	s := r.slots[i%len(r.slots)]
	s.Mac, s.Len, s.Snaplen = slotOverhead, uint32(length), uint32(min(length, r.size-slotOverhead))
	b := r.mem[(i%len(r.slots))*r.size+slotOverhead:]
	clear(b[:frame.HeaderLen+4])
	binary.BigEndian.PutUint32(b[frame.HeaderLen:], uint32(number))
	atomic.StoreUint32(&s.Status, status)
}

func (r *ring) owned() (n int) {
	for _, s := range r.slots {
		if s.Status != unix.TP_STATUS_KERNEL {
			n++
		}
	}
	return n
}

func TestRingLendsInOrderAroundItsEnd(t *testing.T) {
	const slots = 5
	r := fakeRing(slots)
	var lost, bad atomic.Uint64
	var b [4]frame.Frame
	put, got := 0, 0
	for got < 100 {
		for r.owned() < slots {
			r.fill(put, unix.TP_STATUS_USER, 60, put)
			put++
		}
		n := r.receive(b[:1+got%4], &lost, &bad)
		if n != 1+got%4 {
			t.Fatalf("%d frames lent, want %d", n, 1+got%4)
		}
		for i := range n {
			if number(b[i].Data) != got+i {
				t.Fatalf("frame %d is number %d", got+i, number(b[i].Data))
			}
		}
		if r.owned() != slots {
			t.Fatal("a slot was given back before release")
		}
		r.release()
		if r.owned() != slots-n {
			t.Fatalf("%d slots given back, want %d", slots-r.owned(), n)
		}
		got += n
	}
	if lost.Load()+bad.Load() != 0 {
		t.Errorf("%d lost, %d bad", lost.Load(), bad.Load())
	}
}

func TestRingNeverLendsASlotTwice(t *testing.T) {
	r := fakeRing(5)
	var lost, bad atomic.Uint64
	for i := range 5 {
		r.fill(i, unix.TP_STATUS_USER, 60, i)
	}
	var b [4]frame.Frame
	if n := r.receive(b[:], &lost, &bad); n != 4 {
		t.Fatalf("%d lent", n)
	}
	if n := r.receive(b[:], &lost, &bad); n != 1 {
		t.Fatalf("%d lent, want the last one", n)
	}
	if n := r.receive(b[:], &lost, &bad); n != 0 {
		t.Fatalf("%d lent, all are out", n)
	}
	r.release()
	if r.owned() != 0 || r.ready() {
		t.Error("slots kept after release")
	}
}

func TestRingSkipsAndCountsWhatIsNoFrame(t *testing.T) {
	const user, whole = unix.TP_STATUS_USER, unix.TP_STATUS_USER | unix.TP_STATUS_COPY
	for _, c := range []struct {
		what           string
		status         uint32
		length         int
		wantLost, want uint64
	}{
		{"shorter than a header", user, 13, 0, 1},
		{"empty", user, 0, 0, 1},
		{"cut off, without a copy", user, 9000, 1, 0},
		{"a copy that is not there", whole, 9000, 0, 1},
		{"a copy of any length", whole, 1 << 30, 0, 1},
	} {
		r := fakeRing(6)
		var lost, bad atomic.Uint64
		var b [8]frame.Frame
		r.fill(0, user, 60, 0)
		r.fill(1, c.status, c.length, 1)
		r.fill(2, user, 60, 2)
		if n := r.receive(b[:], &lost, &bad); n != 2 || number(b[0].Data) != 0 || number(b[1].Data) != 2 {
			t.Errorf("%s: %d frames lent", c.what, n)
		}
		r.release()
		// Nothing but such frames: the slots must not stay out of use.
		for i := 3; i < 9; i++ {
			r.fill(i, c.status, c.length, i)
		}
		for r.owned() > 0 {
			if n := r.receive(b[:], &lost, &bad); n != 0 {
				t.Fatalf("%s: %d lent", c.what, n)
			}
		}
		if lost.Load() != 7*c.wantLost || bad.Load() != 7*c.want {
			t.Errorf("%s: %d lost, %d bad", c.what, lost.Load(), bad.Load())
		}
	}
}

func TestTagIsWhatTheKernelSays(t *testing.T) {
	const valid, tpid = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	r := fakeRing(1)
	var lost, bad atomic.Uint64
	var b [1]frame.Frame
	for _, c := range []struct {
		status uint32
		want   frame.Tag
	}{{0, 0}, {tpid, 0}, {valid, 0x8100_6005}, {valid | tpid, 0x88a8_6005}} {
		b[0] = frame.Frame{Tag: 1, Strip: 4, Rest: [][]byte{nil}}
		r.fill(0, unix.TP_STATUS_USER|c.status, 60, 0)
		r.slots[0].Vlan_tci, r.slots[0].Vlan_tpid = 0x6005, 0x88a8
		if n := r.receive(b[:], &lost, &bad); n != 1 || b[0].Tag != c.want || b[0].Strip != 0 || b[0].Rest != nil {
			t.Errorf("status %#x: %d lent, %+v", c.status, n, b[0])
		}
		r.release()
	}
}

func TestSlotsHoldAFullFrame(t *testing.T) {
	for _, mtu := range []int{68, 1280, 1500, 1504, 4000, 9000, 9216} {
		size := slotSize(mtu)
		if size < slotOverhead+frame.HeaderLen+frame.TagLen+mtu {
			t.Errorf("MTU %d: slots of %d bytes", mtu, size)
		}
		if size%16 != 0 { // TPACKET_ALIGNMENT
			t.Errorf("MTU %d: slots of %d bytes are not aligned", mtu, size)
		}
	}
	if slotSize(65535) != slotSize(maxSlotMTU) {
		t.Error("a veth's MTU makes every slot 64 KiB")
	}
	if slotSize(maxSlotMTU) > blockSize {
		t.Error("a slot is larger than a block")
	}
}

// A port's control socket and its rings must part BPDUs from the rest alike.
func FuzzFilterAndRingAgreeOnWhatABPDUIs(f *testing.F) {
	for _, seed := range [][]byte{
		bpdu(0), bpdu(15), bpdu(16), mem.Ethernet(frame.MAC{0x01, 0x80, 0xc2}, frame.MAC{}, ""), {0xff},
		{0x01, 0x80, 0xc2, 0, 1, 0}, {0x01, 0x80, 0xc2, 1, 0, 0}, bpdu(0)[:14], bpdu(0)[:16], bpdu(0)[:18], bpdu(0)[:19],
	} {
		f.Add(seed, true)
	}
	machine := func(raw []bpf.RawInstruction) *bpf.VM {
		program, ok := bpf.Disassemble(raw)
		if !ok {
			f.Fatal("not understood")
		}
		if _, tag := program[0].(bpf.LoadExtension); tag {
			program = program[2:] // the machine knows nothing of tags; other tests do
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			f.Fatal(err)
		}
		return vm
	}
	wants, nothing := machine(bpduFilter()), machine(nothingFilter())
	f.Fuzz(func(t *testing.T, b []byte, near bool) {
		if near && len(b) > 4 { // most random addresses are nowhere near
			copy(b, []byte{0x01, 0x80, 0xc2, 0})
		}
		want := len(b) >= 19 && frame.MAC(b[:6]).IsLinkLocal() && b[12] < 6 && string(b[14:19]) == "\x42\x42\x03\x00\x00"
		n, err := wants.Run(b)
		if err != nil || n > 0 != want || n > 0 && n <= frame.MaxLen {
			t.Errorf("the filter takes %d bytes of % x, %v", n, b, err)
		}
		if isBPDU(b) != want {
			t.Errorf("isBPDU of % x is %v", b, isBPDU(b))
		}
		if n, err := nothing.Run(b); n != 0 || err != nil {
			t.Errorf("the filter for nothing takes %d bytes, %v", n, err)
		}
	})
}
