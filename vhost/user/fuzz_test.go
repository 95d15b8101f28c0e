package vhostuser

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// FuzzMessage feeds bytes to the parsers that see them first: nothing panics,
// what passes has the sizes that its handler counts on.
func FuzzMessage(f *testing.F) {
	f.Add(appendMessage(nil, reqGetFeatures, 1, nil), uint8(0))
	f.Add(appendMessage(nil, reqSetVringAddr, 9, make([]byte, 40)), uint8(0))
	f.Add(appendMessage(nil, reqSetMemTable, 1, tablePayload([]memRegion{{1, 2, 3, 4}})), uint8(1))
	f.Add(appendMessage(nil, reqSetVringKick, 1, u64(1|vringNoFD)), uint8(0))
	f.Add([]byte{5, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, nfds uint8) {
		if len(b) < headerBytes {
			return
		}
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if h.size > maxPayload {
			t.Fatalf("a payload of %d bytes passed", h.size)
		}
		if len(b)-headerBytes < int(h.size) {
			return
		}
		m := &message{header: h, payload: b[headerBytes:][:h.size], fds: make([]int, nfds%16)}
		r, err := m.find(^uint64(0))
		if err != nil {
			return
		}
		if n := len(m.payload); n < r.min || n > r.max {
			t.Fatalf("%s passed with %d bytes", r.name, n)
		}
		// What the handlers do with it first.
		switch {
		case r.fds == fdsTable:
			if regions, err := m.memTable(); err == nil && (len(regions) != len(m.fds) || len(regions) > maxTableFDs) {
				t.Fatalf("%d regions with %d descriptors", len(regions), len(m.fds))
			}
		case r.min >= 40:
			m.vringAddr()
			parseRegion(m.payload[8:])
		case r.min >= 20:
			m.inflightArea()
		case r.min >= 8:
			m.u64()
			m.vringState()
		}
	})
}

// FuzzSession lets the fuzzer be the front end: each step is a request, its
// payload, and the kinds of descriptors that come with it. Whatever the order,
// the port's queues can be used at every step, and in the end all is given back.
func FuzzSession(f *testing.F) {
	const (
		memory = 1 // kinds of descriptors
		event  = 2
		wrong  = 3
	)
	step := func(request uint8, fds []uint8, payload []byte) []byte {
		b := []byte{request, uint8(len(fds))}
		b = append(b, fds...)
		b = append(b, uint8(len(payload)>>8), uint8(len(payload)))
		return append(b, payload...)
	}
	g := newGuest(f, guestOptions{size: 16})
	regions := tablePayload(g.regions)
	var whole []byte
	whole = append(whole, step(reqSetProtocolFeatures, nil, u64(offeredProtocol))...)
	whole = append(whole, step(reqSetFeatures, nil, u64(modern))...)
	whole = append(whole, step(reqSetMemTable, []uint8{memory, memory}, regions)...)
	for i := range 2 {
		whole = append(whole, step(reqSetVringNum, nil, state(i, 16))...)
		whole = append(whole, step(reqSetVringBase, nil, state(i, 0))...)
		whole = append(whole, step(reqSetVringAddr, nil, g.rings[i].addr.encode())...)
		whole = append(whole, step(reqSetVringKick, []uint8{event}, u64(uint64(i)))...)
		whole = append(whole, step(reqSetVringCall, []uint8{event}, u64(uint64(i)))...)
	}
	f.Add(whole)
	f.Add(append(whole, step(reqGetVringBase, nil, state(1, 0))...))
	f.Add(append(whole, step(reqSetMemTable, []uint8{memory, wrong}, regions)...))
	f.Add(append(whole, step(reqResetDevice, nil, nil)...))
	f.Add(append(whole, step(reqSetLogBase, []uint8{memory}, append(u64(1<<16), u64(0)...))...))
	f.Add(append(whole[:len(whole)/2], step(reqSetInflightFD, []uint8{memory}, inflightArea{4096, 0, 2, 16}.append(nil))...))
	f.Add(append(whole, step(reqRemMemReg, nil, g.regions[0].encode(u64(0)))...))
	kinds := []int{-1, g.fd, eventFD(f), memfd(f, 100)}
	scratch := append([]byte(nil), g.mem...)
	f.Fuzz(func(t *testing.T, b []byte) {
		copy(g.mem, scratch)
		// A packet in the transmit ring and a buffer in the receive ring.
		for i, write := range []uint16{2, 0} {
			desc := g.mem[g.rings[i].addr.desc-userBase:]
			binary.LittleEndian.PutUint64(desc, g.regions[1].guest)
			binary.LittleEndian.PutUint64(desc[8:], 100|uint64(write)<<32)
			binary.LittleEndian.PutUint32(g.mem[g.rings[i].addr.avail-userBase:], 1<<16)
		}
		fds := openFDs(t)
		p, err := newPort(Options{Path: "none", QueuePairs: 1})
		if err != nil {
			t.Fatal(err)
		}
		p.dev = newDevice(p)
		p.conn = nil
		for steps := 0; len(b) >= 4 && steps < 40; steps++ {
			request, nfds := uint32(b[0]), int(b[1]%10)
			if b = b[2:]; len(b) < nfds+2 {
				break
			}
			m := &message{header: header{request: request, flags: flagVersion}}
			for _, k := range b[:nfds] {
				fd, err := unix.FcntlInt(uintptr(kinds[1+k%3]), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				m.fds = append(m.fds, fd)
			}
			b = b[nfds:]
			n := min(int(binary.BigEndian.Uint16(b))%(maxPayload+1), len(b)-2)
			m.payload, b = b[2:][:n], b[2+n:]
			rep, err := p.dev.do(m)
			discard(m.fds, nil)
			if rep.withFD {
				unix.Close(rep.fd)
			}
			if err != nil && err.Error() == "" {
				t.Fatal("an error without words")
			}
			p.update()
			p.Detail()
			var frames [4]frame.Frame
			q := p.queues[0]
			n = q.Rx(frames[:])
			for i := range n {
				wire(&frames[i])
			}
			p.Tx(0, outs(frames[:n]))
			q.Release()
			p.Tx(0, outs([]frame.Frame{{Data: testFrame(60)}}))
			q.Arm()
		}
		p.dev.stopAll()
		p.dev.free()
		p.free()
		if n := openFDs(t); n != fds {
			t.Fatalf("%d descriptors leaked", n-fds)
		}
	})
}
