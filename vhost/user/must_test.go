package vhostuser

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// What the vhost-user specification asks of a back end, a subtest for each
// demand, numbered. Elsewhere: 12, the dirty log, in TestLiveMigration,
// TestLoggingStops and TestRingsRestUntilTheDirtyLogComes; 14, what is in flight,
// in TestInflightBufferSurvivesTheBackEnd and package virtq. Not among them: 15,
// postcopy, which is not offered (see there), and 18, the conventions for
// back-end programs, which are for programs that are nothing else.
func TestBackEndMust(t *testing.T) {
	t.Run("01 answer with version 1 and the reply flag", func(t *testing.T) {
		p := openPort(t, Options{QueuePairs: 2})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.negotiate(modern | featMQ | featProtocol) // frontend.answer checks every header
		if n := f.askU64(reqGetQueueNum); n != 2 {
			t.Errorf("GET_QUEUE_NUM: %d", n)
		}
		if n := f.askU64(reqGetMaxMemSlots); n < 8 {
			t.Errorf("GET_MAX_MEM_SLOTS: %d", n)
		}
		if v := f.askU64(reqGetStatus); v != 0 {
			t.Errorf("GET_STATUS: %d", v)
		}
		if b := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(b, state(1, 0)) {
			t.Errorf("GET_VRING_BASE: % x", b)
		}
		f.send(reqGetInflightFD, inflightArea{queues: 4, queueSize: 64}.append(nil))
		if b, fds := f.answer(reqGetInflightFD); len(b) != inflightBytes || len(fds) != 1 {
			t.Errorf("GET_INFLIGHT_FD: %d bytes, %d descriptors", len(b), len(fds))
		}
		log := memfd(t, 1<<20)
		f.send(reqSetLogBase, append(u64(1<<20), u64(0)...), log)
		if b, _ := f.answer(reqSetLogBase); len(b) != 0 {
			t.Errorf("SET_LOG_BASE: reply of %d bytes", len(b))
		}
	})

	t.Run("02 REPLY_ACK for every request, unknown ones too", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		// Before it is negotiated the flag means nothing.
		if err := f.write(appendMessage(nil, reqSetOwner, flagVersion|flagNeedReply, nil)); err != nil {
			t.Fatal(err)
		}
		f.negotiate(modern | featProtocol)
		f.setMemory()
		f.must(reqSetOwner, nil)
		f.must(reqResetOwner, nil)
		f.must(reqSetVringNum, state(0, 64))
		f.must(reqSetVringEnable, state(0, 1))
		f.must(reqNetSetMTU, u64(1500))
		f.must(reqSetStatus, u64(3))
		f.must(reqSetVringCall, u64(0|vringNoFD))
		log := memfd(t, 1<<20)
		f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), log)
		for _, unknown := range []uint32{0, 21, 22, 23, 24, 25, 26, 33, 35, 41, 1000, 1 << 31} {
			f.mustNot(unknown, nil)
		}
		// Those with a reply of their own are unchanged.
		if err := f.write(appendMessage(nil, reqGetFeatures, flagVersion|flagNeedReply, nil)); err != nil {
			t.Fatal(err)
		}
		if b, _ := f.answer(reqGetFeatures); binary.LittleEndian.Uint64(b) != offeredFeatures {
			t.Errorf("GET_FEATURES with NEED_REPLY: % x", b)
		}
	})

	t.Run("03 protocol features before SET_FEATURES, only offered bits", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		if v := f.askU64(reqGetProtocolFeatures); v != offeredProtocol {
			t.Fatalf("GET_PROTOCOL_FEATURES: %#x", v)
		}
		f.send(reqSetProtocolFeatures, u64(protoReplyAck))
		if f.askU64(reqGetFeatures)&featProtocol == 0 {
			t.Fatal("bit 30 is not offered")
		}
		for bit := range 64 {
			v := uint64(1) << bit
			if got := f.ack(reqSetFeatures, u64(v)); got != (offeredFeatures&v != 0) {
				t.Errorf("feature bit %d: granted %v", bit, got)
			}
		}
		f.mustNot(reqSetProtocolFeatures, u64(protoReplyAck|protoBackReq))
		f.mustNot(reqSetProtocolFeatures, u64(1<<63))
		f.must(reqSetProtocolFeatures, u64(protoReplyAck|protoMQ))
	})

	t.Run("03 features by name", func(t *testing.T) {
		p, _ := connected(t, Options{}, modern|featCsum)
		d := p.Detail().(Detail)
		want := []string{"csum", "mrg_rxbuf", "indirect_desc", "protocol_features", "version_1"}
		if !slices.Equal(d.Features, want) {
			t.Errorf("features %v, want %v", d.Features, want)
		}
		if !slices.Contains(d.Protocol, "reply_ack") || len(d.Protocol) != 9 {
			t.Errorf("protocol features %v", d.Protocol)
		}
		for bit := range 64 {
			if v := uint64(1) << bit; offeredFeatures&v != 0 && len(names(featureNames, v)) != 1 ||
				offeredProtocol&v != 0 && len(names(protocolNames, v)) != 1 {
				t.Errorf("bit %d is offered without a name", bit)
			}
		}
	})

	t.Run("04 rings start enabled without bit 30, disabled with it", func(t *testing.T) {
		for _, features := range []uint64{modern, modern | featProtocol} {
			p := openPort(t, Options{})
			f := newFrontend(t, p, guestOptions{size: 64})
			f.negotiate(features)
			f.setMemory()
			f.startRing(0, 0)
			f.startRing(1, 0)
			if up := p.State().Up; up != (features&featProtocol == 0) {
				t.Errorf("features %#x: link up: %v, %s", features, up, p.State().Reason)
			}
			f.enable(0, 1)
			f.enable(1, 1)
			f.works()
		}
	})

	t.Run("05 stopped rings are not processed", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.negotiate(modern)
		f.setMemory()
		f.transmit(0, 60)
		f.supply(0, 2048)
		var b [4]frame.Frame
		if p.queues[0].Rx(b[:]) != 0 || p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}})) != 0 || f.sent(0) != 0 {
			t.Error("a ring that was never started is used")
		}
		f.startRing(0, 0)
		f.startRing(1, 0)
		f.expect(0, 60)
	})

	t.Run("05 started and disabled: transmit is consumed and discarded, receive gets nothing", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		f.enable(0, 0)
		f.enable(1, 0)
		for range 50 {
			f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(60)))
		}
		f.rings[1].Publish()
		f.supply(0, 2048)
		var b [64]frame.Frame
		if n := p.queues[0].Rx(b[:]); n != 0 {
			t.Errorf("%d frames of a disabled ring", n)
		}
		if n := f.sent(0); n != 50 {
			t.Errorf("%d of 50 discarded", n)
		}
		if p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}})) != 0 || len(f.receive(0, 12)) != 0 {
			t.Error("a disabled ring is supplied")
		}
		if s := p.State(); s.Up || s.Reason == "" {
			t.Errorf("state %+v", s)
		}
		f.enable(0, 1)
		f.enable(1, 1)
		f.works()
	})

	t.Run("06 start by kick descriptor, or at once without one", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		q := p.queues[0]
		if q.Arm() {
			t.Error("nothing came, and there is something")
		}
		f.must(reqSetVringKick, u64(1|vringNoFD)) // poll from now on
		if !q.Arm() {
			t.Error("a worker may sleep on a ring that must be polled")
		}
		f.fromGuest(0, 60)
	})

	t.Run("06 GET_VRING_BASE stops, and everything may be sent anew", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		base := uint16(0)
		for round := range 5 {
			f.works()
			base += 3
			// One more is on its way when the ring stops: it is lent, or waits.
			f.transmit(0, 99)
			if b := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(b, state(1, int(base))) {
				t.Fatalf("round %d: base % x, want %d", round, b, base)
			}
			if b := f.ask(reqGetVringBase, state(0, 0)); !bytes.Equal(b, state(0, int(base))) {
				t.Fatalf("round %d: base of ring 0 % x, want %d", round, b, base)
			}
			var b [4]frame.Frame
			if p.queues[0].Rx(b[:]) != 0 || f.sent(0) != 0 {
				t.Fatal("used after it was stopped")
			}
			if b := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(b, state(1, int(base))) {
				t.Fatalf("asked twice: base % x", b)
			}
			f.startRing(0, base)
			f.startRing(1, base)
			f.enable(0, 1)
			f.enable(1, 1)
			f.expect(0, 99) // neither lost nor twice
			f.toGuest(0, 99)
			base++
		}
	})

	t.Run("06 a frame that is lent comes back before the ring stops", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		f.transmit(0, 99)
		var b [4]frame.Frame
		if n := p.queues[0].Rx(b[:]); n != 1 {
			t.Fatalf("Rx = %d", n)
		}
		f.send(reqGetVringBase, state(1, 0))
		done := make(chan struct{})
		go func() { p.queues[0].Release(); close(done) }()
		if got, _ := f.answer(reqGetVringBase); !bytes.Equal(got, state(1, 1)) {
			t.Errorf("base % x, want 1", got)
		}
		<-done
		if f.sent(0) != 1 {
			t.Error("not returned")
		}
	})

	t.Run("07 reconfiguration while running", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		f.works()
		f.must(reqNetSetMTU, u64(9000))
		if p.State().MTU != 9000 {
			t.Errorf("MTU %d", p.State().MTU)
		}
		payload, fds := f.table()
		f.must(reqSetMemTable, payload, fds...)
		f.works()
		f.must(reqSetVringAddr, f.rings[1].addr.encode())
		f.works()
		f.must(reqSetVringCall, u64(0), eventFD(t))
		f.must(reqSetVringKick, u64(1), eventFD(t))
		f.works()
		if base := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(base, state(1, 12)) {
			t.Errorf("base % x, want 12", base)
		}
	})

	t.Run("08 memory regions by table and one by one", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64, regions: 20})
		f.negotiate(modern)
		for _, r := range f.regions { // more than a table holds
			f.must(reqAddMemReg, r.encode(u64(0)), f.fd)
		}
		overlap := f.regions[3]
		overlap.guest += 4096
		f.mustNot(reqAddMemReg, overlap.encode(u64(0)), f.fd)
		f.startRing(0, 0)
		f.startRing(1, 0)
		f.works()
		// A region that holds no ring and no buffer in use may go while rings run.
		spare := f.regions[20]
		f.regions = f.regions[:20]
		f.must(reqRemMemReg, spare.encode(u64(0)))
		f.mustNot(reqRemMemReg, spare.encode(u64(0)))
		wrong := f.regions[5]
		wrong.size--
		f.mustNot(reqRemMemReg, wrong.encode(u64(0)))
		f.works()
		// The descriptor that some front ends send is closed unused.
		fds := openFDs(t)
		f.must(reqAddMemReg, spare.encode(u64(0)), f.fd)
		f.must(reqRemMemReg, spare.encode(u64(0)), f.fd)
		if n := openFDs(t); n != fds {
			t.Errorf("%d descriptors open, %d before", n, fds)
		}
		// Without the rings' own region they rest, and go on when it is back.
		f.must(reqRemMemReg, f.regions[0].encode(u64(0)))
		if s := p.State(); s.Up {
			t.Error("link up without the rings' memory")
		}
		f.transmit(0, 77)
		f.must(reqAddMemReg, f.regions[0].encode(u64(0)), f.fd)
		f.expect(0, 77)
		f.works()
	})

	// QEMU before 8.0 sends them once for every queue pair.
	t.Run("08 a region that was added twice goes with its second removal", func(t *testing.T) {
		p := openPort(t, Options{QueuePairs: 2})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.negotiate(modern | featMQ)
		leaksNothing(t, "regions added and removed twice", func() {
			for range 2 {
				for _, r := range f.regions {
					f.must(reqAddMemReg, r.encode(u64(0)), f.fd)
				}
			}
			for i := range f.rings {
				f.startRing(i, 0)
			}
			f.works()
			for _, r := range f.regions {
				f.must(reqRemMemReg, r.encode(u64(0)))
			}
			f.works()
			for _, r := range f.regions {
				f.must(reqRemMemReg, r.encode(u64(0)))
				f.mustNot(reqRemMemReg, r.encode(u64(0)))
			}
			for i := range f.rings {
				f.ask(reqGetVringBase, state(i, 0))
				f.must(reqSetVringCall, u64(uint64(i)|vringNoFD))
				f.must(reqSetVringErr, u64(uint64(i)|vringNoFD))
			}
		})
	})

	t.Run("08 the slots are as many as said", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.negotiate(modern)
		slots := int(f.askU64(reqGetMaxMemSlots))
		for i := range slots + 1 {
			r := memRegion{uint64(i) << 20, 4096, uint64(i) << 20, 0}
			if got := f.ack(reqAddMemReg, r.encode(u64(0)), f.fd); got != (i < slots) {
				t.Fatalf("slot %d of %d: granted %v", i, slots, got)
			}
		}
	})

	t.Run("09 a failed SET_MEM_TABLE keeps the old map", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		f.works()
		good := f.regions
		bad := func(spoil func([]memRegion)) []byte {
			r := slices.Clone(good)
			spoil(r)
			return tablePayload(r)
		}
		leaksNothing(t, "refused tables", func() {
			for name, payload := range map[string][]byte{
				"past the end of the file": bad(func(r []memRegion) { r[1].size += 1 << 30 }),
				"size and offset wrap":     bad(func(r []memRegion) { r[1].size, r[1].offset = ^uint64(0)-4095, 4096 }),
				"size 0":                   bad(func(r []memRegion) { r[0].size = 0 }),
				"regions overlap":          bad(func(r []memRegion) { r[1].guest = r[0].guest + 4096 }),
				"user addresses overlap":   bad(func(r []memRegion) { r[1].user = r[0].user }),
				"guest addresses wrap":     bad(func(r []memRegion) { r[1].guest = ^uint64(0) - 4095 }),
			} {
				f.mustNot(reqSetMemTable, payload, f.fd, f.fd)
				f.works()
				_ = name
			}
			pipe := [2]int{}
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			f.mustNot(reqSetMemTable, tablePayload(good), f.fd, pipe[0])
			unix.Close(pipe[0])
			unix.Close(pipe[1])
			f.works()
		})
	})

	t.Run("10 rings by user address, descriptors by guest address", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		f.works() // its two never coincide
		a := f.rings[1].addr
		a.desc = a.desc - userBase + guestBase
		f.mustNot(reqSetVringAddr, a.encode())
		f.works()
	})

	t.Run("11 a descriptor that is replaced is closed", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		leaksNothing(t, "replacing descriptors", func() {
			for range 20 {
				for i := range f.rings {
					fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
					if err != nil {
						t.Fatal(err)
					}
					f.must(reqSetVringKick, u64(uint64(i)), fd)
					f.must(reqSetVringCall, u64(uint64(i)), fd)
					f.must(reqSetVringErr, u64(uint64(i)), fd)
					unix.Close(fd)
				}
			}
			f.works()
		})
		for i := range f.rings {
			f.must(reqSetVringCall, u64(uint64(i)|vringNoFD))
			f.must(reqSetVringErr, u64(uint64(i)|vringNoFD))
		}
		f.works()
	})

	t.Run("13 SEND_RARP broadcasts the guest's address", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		q := p.queues[0]
		if q.Arm() {
			t.Fatal("something is there already")
		}
		mac := []byte{0x52, 0x54, 0, 0xaa, 0xbb, 0xcc}
		f.must(reqSendRARP, append(mac, 0, 0))
		if !readable(t, q.FD()) || !q.Arm() {
			t.Fatal("the worker is not woken")
		}
		var b [4]frame.Frame
		if n := q.Rx(b[:]); n != 1 {
			t.Fatalf("Rx = %d", n)
		}
		want := slices.Concat(frame.Broadcast[:], mac, []byte{0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3}, mac, make([]byte, 4), mac, make([]byte, 22))
		if !bytes.Equal(b[0].Data, want) {
			t.Errorf("lent % x", b[0].Data)
		}
		q.Release()
		if q.Rx(b[:]) != 0 {
			t.Error("lent twice")
		}
		f.mustNot(reqSendRARP, append(frame.Broadcast[:], 0, 0))
		f.mustNot(reqSendRARP, make([]byte, 8))
		f.works()
	})

	t.Run("13 NET_SET_MTU", func(t *testing.T) {
		p, f := connected(t, Options{MTU: 9000}, modern)
		if p.State().MTU != 9000 {
			t.Errorf("before: %d", p.State().MTU)
		}
		for mtu, ok := range map[uint64]bool{0: false, 67: false, 68: true, 1500: true, 9000: true, 9001: false, 65536: false, 1 << 40: false} {
			before := p.State().MTU
			if got := f.ack(reqNetSetMTU, u64(mtu)); got != ok {
				t.Errorf("MTU %d: granted %v", mtu, got)
			}
			want := before
			if ok {
				want = int(mtu)
			}
			if got := p.State().MTU; got != want {
				t.Errorf("MTU %d: state says %d, want %d", mtu, got, want)
			}
		}
	})

	t.Run("13 status, and FEATURES_OK for features that were refused", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		f.must(reqSetStatus, u64(0xb))
		if v := f.askU64(reqGetStatus); v != 0xb {
			t.Errorf("status %#x", v)
		}
		f.mustNot(reqSetFeatures, u64(1<<34)) // RING_PACKED
		if v := f.askU64(reqGetStatus); v != 3 {
			t.Errorf("status %#x: FEATURES_OK stays", v)
		}
		f.works()
		f.must(reqSetStatus, u64(0)) // the driver resets the device
		if f.port.State().Up {
			t.Error("up after a reset")
		}
	})

	t.Run("13 RESET_DEVICE, and RESET_OWNER is ignored", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		f.must(reqResetOwner, nil)
		f.works()
		f.must(reqNetSetMTU, u64(1400))
		f.must(reqResetDevice, nil)
		if s := p.State(); s.Up || s.MTU != 0 || s.Offloads != (frame.Offloads{}) {
			t.Errorf("after the reset: %+v", s)
		}
		// The memory stays; all else comes anew.
		for i := range f.rings {
			f.rings[i] = f.newRing(i, 0)
		}
		f.must(reqSetFeatures, u64(modern|featProtocol))
		for i := range f.rings {
			f.startRing(i, 0)
			f.enable(i, 1)
		}
		f.works()
	})

	t.Run("15 postcopy is not offered and refused", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		if f.askU64(reqGetProtocolFeatures)&(1<<8) != 0 {
			t.Error("PAGEFAULT is offered")
		}
		for request := uint32(28); request <= 30; request++ { // ADVISE, LISTEN, END
			f.mustNot(request, nil)
		}
		f.works()
	})

	t.Run("16 suspended: no writes, no notifications, no messages", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		f.works()
		for i := range f.rings {
			f.ask(reqGetVringBase, state(i, 0))
			f.rings[i].EnableCalls()
		}
		f.transmit(0, 60)
		f.supply(0, 2048)
		drain(f.calls...)
		before := bytes.Clone(f.mem)
		var b [4]frame.Frame
		for range 10 {
			p.queues[0].Rx(b[:])
			p.queues[0].Arm()
			p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
		}
		if !bytes.Equal(before, f.mem) {
			t.Error("guest memory was written")
		}
		for i, fd := range f.calls {
			if readable(t, fd) {
				t.Errorf("ring %d was notified", i)
			}
		}
		if f.askU64(reqGetQueueNum) != 1 { // the next thing on the socket is its reply
			t.Error("no reply")
		}
	})

	t.Run("17 in-band notifications alone end the connection", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.send(reqSetProtocolFeatures, u64(protoInBand))
		f.closed()
		f.connect()
		f.send(reqSetProtocolFeatures, u64(protoReplyAck))
		f.mustNot(reqSetProtocolFeatures, u64(protoInBand|protoBackReq|protoReplyAck)) // not offered, but no such error
		f.up(modern)
		f.works()
	})

	t.Run("19 device-readable buffers and the tables are never written", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		for i := range 30 {
			f.guest.send(0, i%2 == 0, packet(frame.VnetHdr{}, 12, testFrame(60+i)), []int{12, 20}...)
		}
		f.rings[1].Publish()
		usedOff := int(f.rings[1].addr.used - userBase)
		used := f.mem[usedOff:][:virtq.UsedBytes(f.size)]
		before := bytes.Clone(f.mem)
		var b [64]frame.Frame
		if n := p.queues[0].Rx(b[:]); n != 30 {
			t.Fatalf("Rx = %d", n)
		}
		p.queues[0].Release()
		copy(before[usedOff:], used) // the used ring is the device's
		if !bytes.Equal(before, f.mem) {
			t.Error("something else than the used ring was written")
		}
	})

	t.Run("19 a spurious kick is harmless, and the flags are heeded", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		q := p.queues[0]
		if q.Arm() || !f.rings[1].WantKick() {
			t.Fatal("armed without wanting kicks")
		}
		kick(f.kicks[1])
		if !readable(t, q.FD()) {
			t.Fatal("a kick does not wake")
		}
		var b [4]frame.Frame
		if q.Rx(b[:]) != 0 || q.Arm() || readable(t, q.FD()) {
			t.Error("a spurious kick stays")
		}
		f.fromGuest(0, 60)
		if f.rings[1].WantKick() {
			t.Error("kicks wanted while the worker looks by itself")
		}
		if f.rings[0].WantKick() {
			t.Error("kicks wanted for new receive buffers")
		}
		f.rings[0].DisableCalls()
		f.rings[1].DisableCalls()
		drain(f.calls...)
		f.works()
		if readable(t, f.calls[0]) || readable(t, f.calls[1]) {
			t.Error("notified against NO_INTERRUPT")
		}
		f.rings[0].EnableCalls()
		f.rings[1].EnableCalls()
		f.works()
		if !readable(t, f.calls[0]) || !readable(t, f.calls[1]) {
			t.Error("not notified")
		}
	})

	t.Run("19 indices wrap at 65536", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		for i := range f.rings {
			f.rings[i] = f.newRing(i, 0xfff0)
		}
		f.negotiate(modern)
		f.setMemory()
		f.startRing(0, 0xfff0)
		f.startRing(1, 0xfff0)
		for range 20 {
			f.works()
		}
		if b := f.ask(reqGetVringBase, state(1, 0)); !bytes.Equal(b, state(1, (0xfff0+60)&0xffff)) {
			t.Errorf("base % x", b)
		}
	})

	t.Run("20 offloads follow what the guest takes", func(t *testing.T) {
		for features, want := range map[uint64]frame.Offloads{
			modern:                                      {},
			modern | allOffloads:                        {Csum: true, TSO4: true, TSO6: true, USO: true},
			modern | featGuestTSO4:                      {},
			modern | featGuestCsum:                      {Csum: true},
			modern | featGuestCsum | featGuestTSO6:      {Csum: true, TSO6: true},
			modern | featGuestCsum | featGuestUSO4:      {Csum: true},
			modern | featCsum | featHostTSO4:            {},
			modern | featGuestCsum | featGuestTSO4:      {Csum: true, TSO4: true},
			featMrgRxbuf | featGuestCsum | featMrgRxbuf: {Csum: true},
		} {
			p, _ := connected(t, Options{}, features)
			if got := p.State().Offloads; got != want {
				t.Errorf("features %#x: %+v, want %+v", features, got, want)
			}
		}
	})

	t.Run("21 the front end dies at any point, and another one comes", func(t *testing.T) {
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		steps := []func(){
			func() {},
			func() { f.negotiate(modern) },
			func() { f.setMemory() },
			func() { f.startRing(0, 0) },
			func() { f.startRing(1, 0) },
			func() { f.works() },
			func() { // lent when it dies
				f.transmit(0, 60)
				var b [4]frame.Frame
				if n := p.queues[0].Rx(b[:]); n != 1 {
					t.Fatalf("Rx = %d", n)
				}
				f.conn.Close()
				if !bytes.Equal(wire(&b[0]), testFrame(60)) {
					t.Error("a lent frame lost its memory")
				}
				p.queues[0].Release()
			},
			func() { f.write([]byte{1, 0, 0, 0, 1}) },
		}
		f.conn.Close()
		wait(t, "the first to be gone", func() bool { return p.Detail().(Detail).Peer == nil })
		for n := range steps {
			leaksNothing(t, "a front end that died", func() {
				f.connect()
				for i := range f.rings {
					f.rings[i] = f.newRing(i, 0)
				}
				for _, step := range steps[:n+1] {
					step()
				}
				f.conn.Close()
				wait(t, "it to be gone", func() bool { return p.Detail().(Detail).Peer == nil })
			})
			if s := p.State(); s.Up || s.Gone || s.Reason == "" {
				t.Fatalf("after step %d: %+v", n, s)
			}
		}
	})

	t.Run("21 a second front end is turned away and the first goes on", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		for range 50 {
			c, err := net.Dial("unix", p.opts.Path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Fatal("it is talked to")
			}
			c.Close()
		}
		f.works()
		if d := p.Detail().(Detail); d.LastRefusal == "" || d.Connections != 1 {
			t.Errorf("%d connections, last refusal %q", d.Connections, d.LastRefusal)
		}
	})
}

func memfd(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("kvswitch-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

func readable(t testing.TB, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func kick(fd int) { unix.Write(fd, one[:]) }

func drain(fds ...int) {
	var b [8]byte
	for _, fd := range fds {
		unix.Read(fd, b[:])
	}
}
