package vhostuser

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// bystander is another port whose guest must not notice anything.
func bystander(t *testing.T) *frontend {
	t.Helper()
	_, f := connected(t, Options{}, modern)
	t.Cleanup(func() {
		if !t.Failed() {
			f.works()
		}
	})
	return f
}

// The attacks of the catalogue, a subtest for each, with the CVEs of those that
// fell for it. Descriptor chains are attacked in package virtq; here is what
// they cost the port. Of the rest of the catalogue,
//   - attacks at L2 (floods of addresses, the switch's own address, BPDUs from a
//     guest, link-local groups, double tags) are the switch's to meet: its tests
//     TestL11…, TestL12…, TestGuestThatClaimsToBeRoot…, TestL7…, and
//     TestDoubleTagDoesNotHopVLANs;
//   - frames out of measure: runts TestRxDropsMalformedPackets, a GSO frame to a
//     guest without TSO TestTxDropsWhatCantBeSent and, cut by the switch first,
//     TestVhostUserGuestsWithoutAnOffload; longer than the MTU
//     TestOneTagPassesAboveTheMTU;
//   - faults of other devices ("not net": vhost-crypto's CVE-2020-10724 and
//     -14374 to -14378, vhost-user-gpu's CVE-2021-3544 to -3546) are of kinds
//     that are here: memory taken twice by a check and a use, lengths that wrap,
//     what is left mapped or allocated after a refusal.
func TestAttack(t *testing.T) {
	t.Run("descriptor chains cost the chain, not the device", func(t *testing.T) {
		// CVE-2018-1059, CVE-2020-10725, CVE-2019-9547, CVE-2016-6490, CVE-2016-5403
		p, f := connected(t, Options{}, modern)
		other := bystander(t)
		table, tableMem := f.alloc(64)
		end := f.regions[1].guest + f.regions[1].size
		d := func(addr uint64, n uint32, flags, next uint16) []byte {
			b := binary.LittleEndian.AppendUint64(nil, addr)
			b = binary.LittleEndian.AppendUint32(b, n)
			return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, flags), next)
		}
		const next, indirect = 1, 4
		for name, bad := range map[string][]byte{
			"past the end of a region": d(end-32, 64, 0, 0),
			"unmapped":                 d(0x10, 64, 0, 0),
			"wraps":                    d(^uint64(0)-8, 64, 0, 0),
			"zero length":              d(f.gpa(table), 0, 0, 0),
			"loop":                     d(f.gpa(table), 64, next, 0), // patched to its own head
			"next past the table":      d(f.gpa(table), 64, next, 64),
			"indirect of odd size":     d(f.gpa(table), 17, indirect, 0),
			"indirect unmapped":        d(0x10, 16, indirect, 0),
			"indirect in indirect":     d(f.gpa(table), 16, indirect, 0),
		} {
			copy(tableMem, d(f.gpa(table), 16, indirect, 0))
			errors := p.Counters().RxErrors
			head := f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(60)))
			slot := f.mem[int(f.rings[1].addr.desc-userBase)+16*int(head):]
			copy(slot, bad)
			if name == "loop" {
				binary.LittleEndian.PutUint16(slot[14:], head)
			}
			f.fromGuest(0, 61)
			if n := p.Counters().RxErrors - errors; n != 1 {
				t.Errorf("%s: %d errors counted, want 1", name, n)
			}
			if d := p.Detail().(Detail); d.Rings[1].LastError == "" {
				t.Errorf("%s: no reason shown", name)
			}
			other.works()
		}
		if !p.State().Up {
			t.Error("the link went down")
		}
		f.works()
	})

	t.Run("a ring whose indices lie is stopped, with its reason, until it is set up anew", func(t *testing.T) {
		// CVE-2019-3900: bounded work
		for name, lie := range map[string]func(f *frontend, ring int){
			"index jumps": func(f *frontend, ring int) { f.jump(ring) },
			"head past the table": func(f *frontend, ring int) {
				avail := f.mem[f.rings[ring].addr.avail-userBase:]
				for i := range 64 {
					binary.LittleEndian.PutUint16(avail[4+2*i:], 64)
				}
				binary.LittleEndian.PutUint16(avail[2:], binary.LittleEndian.Uint16(avail[2:])+1)
			},
		} {
			for ring := range 2 {
				t.Run(fmt.Sprintf("%s/ring=%d", name, ring), func(t *testing.T) {
					p, f := connected(t, Options{}, modern)
					other := bystander(t)
					f.works()
					lie(f, ring)
					var b [64]frame.Frame
					if p.queues[0].Rx(b[:]) != 0 {
						t.Error("frames from a ring that lies")
					}
					p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
					wait(t, "the link to go down", func() bool { return !p.State().Up })
					s := p.State()
					if !strings.Contains(s.Reason, fmt.Sprintf("ring %d:", ring)) || s.Gone {
						t.Errorf("state %+v", s)
					}
					if !readable(t, f.errs[ring]) {
						t.Error("the error descriptor was not signalled")
					}
					if d := p.Detail().(Detail); d.LastRefusal == "" || d.Rings[ring].Reason == "" {
						t.Errorf("shown: %+v", d)
					}
					other.works()
					// Not by anything short of a new start.
					f.setMemory()
					f.must(reqSetVringEnable, state(ring, 1))
					if p.State().Up {
						t.Fatal("up again by itself")
					}
					for i := range f.rings {
						f.ask(reqGetVringBase, state(i, 0))
						f.rings[i] = f.newRing(i, 0)
						f.startRing(i, 0)
					}
					f.works()
				})
			}
		}
	})

	t.Run("descriptors rewritten during processing", func(t *testing.T) {
		// CVE-2020-14375
		p, f := connected(t, Options{}, modern|allOffloads)
		other := bystander(t)
		for range 64 {
			f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(200)))
			f.post(0, 2048)
		}
		var stop atomic.Bool
		var written atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			good := f.gpa(int(f.regions[1].offset))
			for i := uint64(1); !stop.Load(); i = i*6364136223846793005 + 1442695040888963407 {
				written.Add(1)
				w := f.mem[f.rings[i>>63].addr.desc-userBase+8*(i>>40&127):]
				switch i >> 56 & 3 {
				case 0:
					binary.LittleEndian.PutUint64(w, i)
				case 1:
					binary.LittleEndian.PutUint64(w, good)
				default:
					binary.LittleEndian.PutUint64(w, 300|(i>>50&7)<<32|(i>>44&63)<<48)
				}
			}
		}()
		sink := newGuest(t, guestOptions{size: 64})
		into := sink.attach(modern)
		rounds := 3000
		if testing.Short() {
			rounds = 300
		}
		frames := 0
		var b [64]frame.Frame
		wait(t, "the writer to have been round", func() bool { return written.Load() > 1<<14 })
		// On a busy machine the two may hardly run at a time: then it takes longer.
		enough := func() bool {
			c := p.Counters()
			return frames > 0 && c.RxErrors > 0 && c.TxErrors > 0
		}
		for round, end := 0, time.Now().Add(20*time.Second); round < rounds || !enough() && time.Now().Before(end); round++ {
			for i := range f.rings { // make all 64 available again, whatever they say
				avail := f.mem[f.rings[i].addr.avail-userBase:]
				binary.LittleEndian.PutUint32(avail, 1|uint32(uint16((round+1)*64))<<16)
			}
			for {
				n := p.queues[0].Rx(b[:])
				if n == 0 {
					break
				}
				for k := range n {
					wire(&b[k]) // read every byte
				}
				frames += n
				into.Tx(0, outs(b[:n]))
				p.Tx(0, outs(b[:n]))
				p.queues[0].Release()
			}
			p.Tx(0, outs(slices.Repeat([]frame.Frame{{Data: testFrame(100)}}, 64)))
		}
		stop.Store(true)
		<-ended
		if !enough() {
			t.Errorf("%d frames, %+v: the test tests nothing", frames, p.Counters())
		}
		other.works()
	})

	t.Run("memory table replaced mid-burst", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		var stop atomic.Bool
		ended := make(chan int)
		go func() { // a worker
			seen := 0
			var b [64]frame.Frame
			for !stop.Load() || !p.queues[0].live.Load().Empty() {
				n := p.queues[0].Rx(b[:])
				for k := range n {
					if got := wire(&b[k]); !bytes.Equal(got, testFrame(100+seen%50)) {
						t.Errorf("frame %d is % x…", seen, got[:16])
					}
					seen++
				}
				if n > 0 {
					p.queues[0].Release()
				}
			}
			ended <- seen
		}()
		payload, fds := f.table()
		sent := 0
		leaksNothing(t, "replacing tables", func() {
			for range 300 {
				for f.rings[1].Free() > 0 {
					f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(100+sent%50)))
					sent++
				}
				f.rings[1].Publish()
				f.must(reqSetMemTable, payload, fds...)
				f.sent(0)
			}
		})
		stop.Store(true)
		if seen := <-ended; seen != sent {
			t.Errorf("%d of %d frames", seen, sent)
		}
		f.sent(0)
		f.works()
	})

	t.Run("dirty log of bad length", func(t *testing.T) {
		// CVE-2019-14835, CVE-2020-10722
		_, f := connected(t, Options{}, modern)
		small, big := memfd(t, 4096), memfd(t, 1<<20)
		leaksNothing(t, "refused logs", func() {
			for name, tc := range map[string]struct {
				size, offset uint64
				fd           int
			}{
				"too small for memory":   {4096, 0, small},
				"longer than the file":   {1 << 20, 0, small},
				"offset past the end":    {1 << 20, 1 << 20, big},
				"offset and size wrap":   {^uint64(0) - 4095, 8192, big},
				"no bytes":               {0, 0, big},
				"no whole words":         {1<<20 - 1, 0, big},
				"offset that misaligns":  {1<<20 - 8, 2, big},
				"a socket, not a memory": {1 << 20, 0, f.kicks[0]},
			} {
				if f.ack(reqSetLogBase, append(u64(tc.size), u64(tc.offset)...), tc.fd) {
					t.Errorf("%s: granted", name)
				}
			}
		})
		f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), big)
		// And with it, memory that it does not cover, or a used ring.
		r := append(slices.Clone(f.regions), memRegion{1 << 50, 4096, 1 << 50, 0})
		f.mustNot(reqSetMemTable, tablePayload(r), f.fd, f.fd, f.fd)
		f.mustNot(reqAddMemReg, r[2].encode(u64(0)), f.fd)
		f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
		a := f.rings[0].addr
		a.flags, a.log = vringFlagLog, 1<<50
		f.mustNot(reqSetVringAddr, a.encode())
		f.works()
	})

	t.Run("ring index and size out of range", func(t *testing.T) {
		// CVE-2020-10723; CVE-2019-14818
		p, f := connected(t, Options{}, modern)
		for _, index := range []int{2, 3, 255, 256, 65535, 65536, 1 << 31} {
			f.mustNot(reqSetVringNum, state(index, 64))
			f.mustNot(reqSetVringBase, state(index, 0))
			f.mustNot(reqSetVringEnable, state(index, 1))
			f.mustNot(reqGetVringBase, state(index, 0))
			a := f.rings[0].addr
			a.index = uint32(index)
			f.mustNot(reqSetVringAddr, a.encode())
			if index < 256 {
				f.mustNot(reqSetVringKick, u64(uint64(index)), f.kicks[0])
				f.mustNot(reqSetVringCall, u64(uint64(index)), f.kicks[0])
				f.mustNot(reqSetVringErr, u64(uint64(index)), f.kicks[0])
			}
		}
		f.works()
		for i := range f.rings {
			f.ask(reqGetVringBase, state(i, 0))
		}
		leaksNothing(t, "repeated sizes", func() {
			for range 100 {
				for _, size := range []int{0, 3, 65, 32769, 65536, 1 << 31} {
					f.mustNot(reqSetVringNum, state(0, size))
				}
				f.must(reqSetVringNum, state(0, 32768))
				f.must(reqSetVringNum, state(0, 64))
			}
		})
		f.mustNot(reqSetVringBase, state(0, 65536))
		f.mustNot(reqSetVringEnable, state(0, 2))
		if p.State().Up {
			t.Error("up")
		}
	})

	t.Run("ring addresses unmapped or misaligned", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		good := f.rings[1].addr
		for name, spoil := range map[string]func(*vringAddr){
			"descriptor table by 8": func(a *vringAddr) { a.desc += 8 },
			"available ring by 2":   func(a *vringAddr) { a.avail += 2 },
			"used ring by 2":        func(a *vringAddr) { a.used += 2 },
			"used ring by 1":        func(a *vringAddr) { a.used++ },
			"address 0":             func(a *vringAddr) { a.used = 0 },
			"guest addresses":       func(a *vringAddr) { a.desc = a.desc - userBase + guestBase },
			"end of the region":     func(a *vringAddr) { a.used = userBase + f.regions[0].size - 16 },
			"wraps":                 func(a *vringAddr) { a.used = ^uint64(0) - 3 },
		} {
			a := good
			spoil(&a)
			if f.ack(reqSetVringAddr, a.encode()) {
				t.Errorf("%s: granted", name)
			}
			if !p.State().Up {
				t.Fatalf("%s: took the ring down", name)
			}
			f.works() // where it was
		}
		// The same before the ring was started: then the start is refused.
		f.ask(reqGetVringBase, state(1, 0))
		a := good
		a.used = userBase + 1<<40
		f.must(reqSetVringAddr, a.encode())
		f.mustNot(reqSetVringKick, u64(1), f.kicks[1])
		if s := p.State(); s.Up || !strings.Contains(s.Reason, "ring 1") {
			t.Errorf("state %+v", s)
		}
	})

	t.Run("settings that may not change while rings run", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		f.mustNot(reqSetFeatures, u64(modern|featProtocol|featCsum))
		f.mustNot(reqSetVringNum, state(0, 128))
		f.mustNot(reqSetVringBase, state(0, 5))
		f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), memfd(t, 1<<20))
		f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
		f.works()
	})

	t.Run("inflight buffers out of bounds", func(t *testing.T) {
		// CVE-2021-3839, CVE-2020-10726
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.negotiate(modern)
		small := memfd(t, 4096)
		leaksNothing(t, "refused buffers", func() {
			for name, a := range map[string]inflightArea{
				"no queues":          {4096, 0, 0, 64},
				"too many queues":    {4096, 0, 3, 16},
				"65535 queues":       {1 << 40, 0, 65535, 64},
				"size 0":             {4096, 0, 2, 0},
				"size 48":            {4096, 0, 2, 48},
				"size 65535":         {4096, 0, 2, 65535},
				"longer than itself": {4096, 0, 2, 1024},
				"past the file":      {8192, 0, 2, 64},
				"offset past it":     {4096, 4096, 2, 64},
				"wraps":              {^uint64(0) - 100, 200, 2, 64},
			} {
				if f.ack(reqSetInflightFD, a.append(nil), small) {
					t.Errorf("SET_INFLIGHT_FD, %s: granted", name)
				}
				if a.size == 4096 && a.offset == 0 && (a.queues != 2 || a.queueSize != 1024) {
					f.mustNot(reqGetInflightFD, a.append(nil))
				}
			}
		})
		f.must(reqSetInflightFD, inflightArea{4096, 0, 2, 64}.append(nil), small)
		f.setMemory()
		f.startRing(0, 0)
		f.mustNot(reqSetInflightFD, inflightArea{4096, 0, 2, 64}.append(nil), small)
	})

	t.Run("descriptors that don't belong close the connection and are closed", func(t *testing.T) {
		// CVE-2022-0669
		other := bystander(t)
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		regions := tablePayload(f.regions)
		nine := slices.Repeat([]int{f.fd}, 9)
		f.conn.Close()
		wait(t, "the port to be free", func() bool { return p.Detail().(Detail).Peer == nil })
		for name, m := range map[string]struct {
			request uint32
			payload []byte
			fds     []int
		}{
			"one where none belongs":      {reqGetFeatures, nil, nine[:1]},
			"eight where none belongs":    {reqSetOwner, nil, nine[:8]},
			"nine with the memory table":  {reqSetMemTable, regions, nine},
			"nine with anything":          {reqSetVringNum, state(0, 64), nine},
			"253, the most there can be":  {reqSetOwner, nil, slices.Repeat(nine[:1], 253)},
			"none for two regions":        {reqSetMemTable, regions, nil},
			"one for two regions":         {reqSetMemTable, regions, nine[:1]},
			"three for two regions":       {reqSetMemTable, regions, nine[:3]},
			"two kicks":                   {reqSetVringKick, u64(0), nine[:2]},
			"no kick":                     {reqSetVringKick, u64(0), nil},
			"a kick against its own flag": {reqSetVringKick, u64(vringNoFD), nine[:1]},
			"no region":                   {reqAddMemReg, f.regions[0].encode(u64(0)), nil},
			"two to remove":               {reqRemMemReg, f.regions[0].encode(u64(0)), nine[:2]},
			"no log":                      {reqSetLogBase, append(u64(4096), u64(0)...), nil},
			"no inflight buffer":          {reqSetInflightFD, inflightArea{4096, 0, 2, 64}.append(nil), nil},
		} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				leaksNothing(t, name, func() {
					f.connect()
					f.negotiate(modern)
					if err := f.write(appendMessage(nil, m.request, flagVersion|flagNeedReply, m.payload), m.fds...); err != nil {
						t.Fatal(err)
					}
					f.closed()
					f.conn.Close()
				})
				if d := p.Detail().(Detail); !strings.Contains(d.LastRefusal, "protocol violation") && !strings.Contains(p.State().Reason, "protocol violation") {
					t.Errorf("reason %q, refusal %q", p.State().Reason, d.LastRefusal)
				}
				other.works()
			})
		}
		f.t = t
	})

	t.Run("descriptors of the wrong kind are refused and closed", func(t *testing.T) {
		_, f := connected(t, Options{}, modern)
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		null, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		readOnly, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		wrong := []int{pipe[0], pipe[1], null, dir, readOnly}
		defer func() {
			for _, fd := range wrong {
				unix.Close(fd)
			}
		}()
		leaksNothing(t, "descriptors of the wrong kind", func() {
			for _, fd := range append(wrong, f.fd) {
				f.mustNot(reqSetVringKick, u64(1), fd)
				f.mustNot(reqSetVringCall, u64(0), fd)
				f.mustNot(reqSetVringErr, u64(0), fd)
				f.mustNot(reqSetLogFD, nil, fd)
			}
			for _, fd := range append(wrong, f.kicks[0]) {
				f.mustNot(reqSetMemTable, tablePayload(f.regions), fd, fd)
				f.mustNot(reqAddMemReg, memRegion{1 << 50, 4096, 1 << 50, 0}.encode(u64(0)), fd)
				f.mustNot(reqSetLogBase, append(u64(1<<20), u64(0)...), fd)
			}
		})
		f.works()
	})

	t.Run("messages truncated, oversized, of another version, out of order", func(t *testing.T) {
		other := bystander(t)
		p := openPort(t, Options{})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.conn.Close()
		wait(t, "the port to be free", func() bool { return p.Detail().(Detail).Peer == nil })
		raw := func(request, flags, size uint32, payload []byte) []byte {
			b := appendMessage(nil, request, flags, payload)
			binary.LittleEndian.PutUint32(b[8:], size)
			return b
		}
		type attack struct {
			bytes []byte
			end   bool // the front end goes away by itself
		}
		attacks := map[string]attack{
			"half a header":                         {raw(1, 1, 0, nil)[:7], true},
			"half a payload":                        {raw(reqSetVringNum, 1, 8, []byte{1, 2, 3}), true},
			"4 GiB":                                 {raw(reqSetMemTable, 1, ^uint32(0), nil), false},
			"one byte too many":                     {raw(reqSetMemTable, 1, maxPayload+1, nil), false},
			"version 0":                             {raw(reqGetFeatures, 0, 0, nil), false},
			"version 2":                             {raw(reqGetFeatures, 2, 0, nil), false},
			"a reply":                               {raw(reqGetFeatures, flagVersion|flagReply, 0, nil), false},
			"a refused request without NEED_REPLY":  {raw(reqSetVringNum, 1, 8, state(0, 3)), false},
			"an unknown request without NEED_REPLY": {raw(999, 1, 0, nil), false},
			"a ring before everything":              {appendMessage(nil, reqGetInflightFD, 1, make([]byte, 24)), false},
		}
		for request := range requests {
			r := &requests[request]
			if r.name == "" || r.fds == fdsTable {
				continue
			}
			if r.min > 0 {
				attacks[r.name+" too short"] = attack{raw(uint32(request), 9, uint32(r.min-1), make([]byte, r.min-1)), false}
			}
			attacks[r.name+" too long"] = attack{raw(uint32(request), 9, uint32(r.max+1), make([]byte, r.max+1)), false}
		}
		attacks["SET_MEM_TABLE of 9 regions"] = attack{raw(reqSetMemTable, 9, 40, append(u64(9), make([]byte, 32)...)), false}
		attacks["SET_MEM_TABLE of more than it has"] = attack{raw(reqSetMemTable, 9, 40, append(u64(2), make([]byte, 32)...)), false}
		for name, a := range attacks {
			t.Run(name, func(t *testing.T) {
				f.t = t
				leaksNothing(t, name, func() {
					f.connect()
					if err := f.write(a.bytes); err != nil {
						t.Fatal(err)
					}
					if a.end {
						f.conn.CloseWrite()
					}
					f.closed()
					f.conn.Close()
				})
				if s := p.State(); s.Up || s.Reason == "" {
					t.Errorf("state %+v", s)
				}
			})
		}
		f.t = t
		other.works()
		// And none of it is held against a front end that behaves.
		f.connect()
		f.up(modern)
		f.works()
	})

	t.Run("thousands of connections, half messages, replies never read", func(t *testing.T) {
		other := bystander(t)
		p := openPort(t, Options{})
		leaksNothing(t, "connections", func() {
			n := 2000
			if testing.Short() {
				n = 200
			}
			dialAfter := func() (c net.Conn) { // those that still wait to be accepted
				wait(t, "room in the backlog", func() bool {
					var err error
					c, err = net.Dial("unix", p.opts.Path)
					return err == nil
				})
				return c
			}
			for i := range n {
				c := dialAfter()
				c.Write(appendMessage(nil, reqGetFeatures, 1, nil)[:i%12])
				c.Close()
			}
			other.works()
			// One that asks and asks and never reads fills the socket; the port
			// waits in its own goroutine, and still closes.
			wait(t, "the port to be free", func() bool { return p.Detail().(Detail).Peer == nil })
			c := dialAfter()
			c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			ask := bytes.Repeat(appendMessage(nil, reqGetFeatures, 1, nil), 100)
			for {
				if _, err := c.Write(ask); err != nil {
					break
				}
			}
			other.works()
			p.Detail()
			c.Close()
			wait(t, "the port to be free", func() bool { return p.Detail().(Detail).Peer == nil })
		})
		f := newFrontend(t, p, guestOptions{size: 64})
		f.up(modern)
		f.works()
	})

	t.Run("the memory file is cut short while the ring runs", func(t *testing.T) {
		// Each part of what the port reads and writes, in turn.
		for name, tc := range map[string]struct {
			keep func(f *frontend) int64 // bytes of the file
			use  func(t *testing.T, f *frontend, into *Port)
		}{
			"rings, and the worker looks": {func(*frontend) int64 { return 0 }, func(t *testing.T, f *frontend, _ *Port) {
				f.port.queues[0].Rx(make([]frame.Frame, 64))
			}},
			"rings, and the worker arms": {func(*frontend) int64 { return 0 }, func(t *testing.T, f *frontend, _ *Port) {
				f.port.queues[0].Arm()
			}},
			"rings, and there is something to send": {func(*frontend) int64 { return 0 }, func(t *testing.T, f *frontend, _ *Port) {
				if n := f.port.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}})); n != 0 {
					t.Errorf("Tx = %d", n)
				}
			}},
			"rings, while frames are lent": {func(*frontend) int64 { return 0 }, nil},
			"buffers, and headers are read": {func(f *frontend) int64 { return int64(f.regions[1].offset) }, func(t *testing.T, f *frontend, _ *Port) {
				if n := f.port.queues[0].Rx(make([]frame.Frame, 64)); n != 0 {
					t.Errorf("Rx = %d", n)
				}
			}},
			"buffers, and there is something to send": {func(f *frontend) int64 { return int64(f.regions[1].offset) }, func(t *testing.T, f *frontend, _ *Port) {
				f.port.Tx(0, outs(slices.Repeat([]frame.Frame{{Data: testFrame(1500)}}, 5)))
			}},
			"buffers, while they are lent to a worker that is not ready": {func(f *frontend) int64 { return int64(f.regions[1].offset) }, nil},
			"a request": {func(*frontend) int64 { return 0 }, func(t *testing.T, f *frontend, _ *Port) {
				f.write(appendMessage(nil, reqSetVringCall, 1, u64(0)), f.calls[0])
			}},
			"only Detail looks": {func(*frontend) int64 { return 0 }, func(t *testing.T, f *frontend, _ *Port) {
				if d := f.port.Detail().(Detail); d.Rings[0].Reason == "" {
					t.Error("nothing shown")
				}
				f.port.queues[0].Rx(make([]frame.Frame, 64))
			}},
		} {
			t.Run(name, func(t *testing.T) {
				other := bystander(t)
				p := openPort(t, Options{})
				leaksNothing(t, name, func() {
					t.Run("guest", func(t *testing.T) { // what it holds is given back with the subtest
						f := newFrontend(t, p, guestOptions{size: 64})
						f.up(modern)
						f.works()
						f.transmit(0, 1500)
						f.supply(0, 2048)
						cut := func() {
							if err := unix.Ftruncate(f.fd, tc.keep(f)); err != nil {
								t.Fatal(err)
							}
						}
						if tc.use != nil {
							cut()
							tc.use(t, f, other.port)
						} else {
							var b [4]frame.Frame
							if n := p.queues[0].Rx(b[:]); n != 1 {
								t.Fatalf("Rx = %d", n)
							}
							cut()
							if strings.HasPrefix(name, "buffers") {
								other.supply(0, 2048)
								if n := other.port.Tx(0, outs(b[:1])); n != 0 {
									t.Errorf("Tx = %d from memory that is gone", n)
								}
								// The sender's loss is not the receiver's fault.
								if !other.port.State().Up || len(other.receive(0, 12)) != 0 {
									t.Error("the receiver paid for it")
								}
								other.toGuest(0, 60)
								p.queues[0].Fault(fmt.Errorf("found by the worker"))
							}
							p.queues[0].Release()
						}
						wait(t, "the link to go down", func() bool { return !p.State().Up })
						f.closed()
						if s := p.State(); !strings.Contains(s.Reason, "memory") && !strings.Contains(s.Reason, "fault") {
							t.Errorf("reason %q", s.Reason)
						}
					})
				})
				f := newFrontend(t, p, guestOptions{size: 64})
				f.up(modern)
				f.works()
			})
		}
	})

	t.Run("the frame's own worker is told of the fault", func(t *testing.T) {
		p, f := connected(t, Options{}, modern)
		other := bystander(t)
		f.transmit(0, 1500)
		other.supply(0, 2048)
		var b [4]frame.Frame
		q := p.queues[0]
		if n := q.Rx(b[:]); n != 1 {
			t.Fatalf("Rx = %d", n)
		}
		unix.Ftruncate(f.fd, int64(f.regions[1].offset))
		// A worker that is ready for faults (frame.Faulter) gets it from Tx, too.
		err := guarded(func() { other.port.Tx(0, outs(b[:1])) })
		if err == nil {
			t.Fatal("Tx kept the sender's fault to itself")
		}
		other.toGuest(0, 60)
		q.Fault(err)
		q.Release()
		wait(t, "the link to go down", func() bool { return !p.State().Up })
	})

	t.Run("the socket: mode, symbolic links, stale and foreign sockets", testSocketFile)
}
