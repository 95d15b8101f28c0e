package vswitch

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// A batch is decided in runs of frames that look the same. Whatever is in it,
// what comes out and what is counted must be what its frames give one by one:
// one header too few compared, and a frame would go where its neighbour goes.
func TestBatchIsWorthItsFrames(t *testing.T) {
	vids := []uint16{1, 5, 10, 11}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 0))
		filtering, tunnel := seed%2 == 1, seed%8 == 3
		room := -1
		if r.IntN(3) == 0 {
			room = r.IntN(40)
		}
		whole := newQuietSwitch(t, filtering, tunnel, room, vids)
		single := newQuietSwitch(t, filtering, tunnel, room, vids)
		batch := randomBatch(r, vids)
		whole.h.Forward(1, slices.Clone(batch))
		for i := range batch {
			single.h.Forward(1, slices.Clone(batch[i:i+1]))
		}
		for i := range whole.ports {
			name := fmt.Sprintf("p%d", i+1)
			got, want := whole.ports[i].Sent(), single.ports[i].Sent()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d: %s sent\n%s, frame by frame\n%s", seed, name, wires(got), wires(want))
			}
			a, _ := whole.PortStatus(name)
			b, _ := single.PortStatus(name)
			if a.RX != b.RX || a.TX != b.TX || !reflect.DeepEqual(a.Drops, b.Drops) {
				t.Errorf("seed %d: %s counts %+v %+v %v, frame by frame %+v %+v %v", seed, name, a.RX, a.TX, a.Drops, b.RX, b.TX, b.Drops)
			}
		}
		whole.close()
		single.close()
		if t.Failed() {
			for i := range batch {
				t.Logf("frame %d: tag %08x %+v %x", i, batch[i].Tag, batch[i].Hdr, batch[i].Data[:min(len(batch[i].Data), 20)])
			}
			return
		}
	}
}

// What is counted on the way out is what leaves, tags and all.
func TestBytesSentAreThoseOfTheWire(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		q := newQuietSwitch(t, seed%2 == 1, seed%4 == 3, r.IntN(50), []uint16{1, 5, 10, 11})
		for range 3 {
			q.h.Forward(1, randomBatch(r, []uint16{1, 5, 10, 11}))
		}
		for i, p := range q.ports {
			var frames, bytes uint64
			for _, s := range p.Sent() {
				frames++
				bytes += uint64(len(s.Wire))
			}
			st, _ := q.PortStatus(fmt.Sprintf("p%d", i+1))
			if st.TX.Frames != frames || st.TX.Bytes != bytes {
				t.Errorf("seed %d: p%d counts %d frames, %d bytes; sent %d and %d", seed, i+1, st.TX.Frames, st.TX.Bytes, frames, bytes)
			}
		}
		q.close()
	}
}

// A super-frame is as much work as its segments, and none for a port that has
// just been found full.
func TestSegmentsCountAsWork(t *testing.T) {
	q := newQuietSwitch(t, false, false, -1, nil)
	defer q.close()
	data := mem.Build(mem.MAC(3), mem.MAC(1), 0, frame.EtherTypeIPv4, make([]byte, 40+100*100))
	copy(data[14:], []byte{0x45, 0, byte((40 + 10000) >> 8), byte((40 + 10000) & 0xff), 0, 0, 0, 0, 64, 6})
	data[14+20+12] = 5 << 4
	super := frame.Frame{Data: data, Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 100, CsumStart: 34, CsumOffset: 16}}
	q.ports[0].InjectFrames(super, super, super)
	if n := q.h.Turn(); n != 3+3*100 {
		t.Errorf("poll reports %d frames, want 3 and 300 segments", n)
	}
	if n := len(q.ports[1].Sent()); n != 300 {
		t.Fatalf("%d segments arrived, want 300", n)
	}
	q.ports[1].SetRoom(10)
	q.ports[0].InjectFrames(super, super, super)
	if n := q.h.Turn(); n != 3+100 {
		t.Errorf("poll reports %d frames, want 3 and the 100 segments of the first", n)
	}
	st, _ := q.PortStatus("p2")
	if n := len(q.ports[1].Sent()); n != 10 || st.Drops["egress-full"] != 90+2 {
		t.Errorf("%d segments arrived and %d were dropped, want 10, and 90 and two whole frames", n, st.Drops["egress-full"])
	}
}

// However many ports flood, there is room in the queue for those that don't.
func TestOnePortsBPDUsLeaveRoomForOthers(t *testing.T) {
	s, err := New(Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), STP: STPConfig{Mode: ModeRSTP}})
	if err != nil {
		t.Fatal(err)
	}
	const ports = 50
	const bpdusWaiting = 16 // of one port's, at a time
	for i := range ports {
		p := mem.NewPort()
		defer p.Close()
		cfg := NewPortConfig("memory")
		cfg.Uplink = true // without BPDU guard
		if _, err := s.AddPort(fmt.Sprintf("p%d", i+1), p, cfg); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.Hand()
	if err != nil {
		t.Fatal(err)
	}
	wire := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, []byte{2, 0, 0, 0, 0, 1, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80}...)
	for in := range ports - 1 {
		for range 90 {
			h.Forward(in+1, []frame.Frame{{Data: wire}})
		}
	}
	if n := len(s.punts); n != (ports-1)*bpdusWaiting {
		t.Errorf("%d BPDUs wait, want %d of each port", n, bpdusWaiting)
	}
	h.Forward(ports, []frame.Frame{{Data: wire}})
	if st, _ := s.PortStatus(fmt.Sprintf("p%d", ports)); st.Drops["bpdu-rate"] != 0 {
		t.Error("the only BPDU of a port found no room")
	}
	// Those heard make room for others.
	s.hear(<-s.punts)
	h.Forward(1, []frame.Frame{{Data: wire}})
	if n := len(s.punts); n != 1 {
		t.Errorf("%d BPDUs wait once all were heard and p1 sent another, want that one", n)
	}
}

// quietSwitch has four ports in memory and a worker that the test drives.
// Station 1 and 2 are at port 1, 3 at port 2, 4 at port 3, in every VLAN.
type quietSwitch struct {
	*Switch
	h     *Hand
	ports []*mem.Port
}

// trunkVLAN is a trunk of members with a native VLAN.
func trunkVLAN(native uint16, members ...uint16) (v VLANConfig) {
	for _, vid := range members {
		v.Member.Add(vid)
	}
	v.SetNative(native, false)
	return v
}

func newQuietSwitch(t *testing.T, filtering, tunnel bool, room int, vids []uint16) *quietSwitch {
	t.Helper()
	s, err := New(Config{
		VLANFiltering: filtering, STP: STPConfig{Mode: ModeOff}, MAC: mem.MAC(99),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	q := &quietSwitch{Switch: s}
	first := trunkVLAN(1, 10, 11)
	if tunnel {
		first = TunnelVLAN(10)
	}
	all := VLANConfig{}
	all.Member.AddRange(1, 20)
	for i, vlan := range []VLANConfig{first, trunkVLAN(5, 10), AccessVLAN(1), all} {
		p := mem.NewPort()
		switch i {
		case 1:
			p.SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
		case 2:
			p.SetRoom(room)
		}
		cfg := NewPortConfig("memory")
		cfg.VLAN = vlan
		if _, err := s.AddPort(fmt.Sprintf("p%d", i+1), p, cfg); err != nil {
			t.Fatal(err)
		}
		q.ports = append(q.ports, p)
	}
	if !filtering {
		vids = []uint16{0}
	}
	for station, port := range []string{1: "p1", 2: "p1", 3: "p2", 4: "p3"} {
		for _, vid := range vids {
			if port == "" {
				continue
			}
			// A port may not be a member of every VLAN; then there is no such station.
			_ = s.AddFDB(mem.MAC(station), vid, port, true)
		}
	}
	if q.h, err = s.Hand(); err != nil {
		t.Fatal(err)
	}
	return q
}

func (q *quietSwitch) close() {
	for _, p := range q.ports {
		p.Close()
	}
}

// randomBatch has runs of one to nine frames that differ in their payload, and
// now and then in something that matters.
func randomBatch(r *rand.Rand, vids []uint16) []frame.Frame {
	dsts := []frame.MAC{mem.MAC(1), mem.MAC(3), mem.MAC(3), mem.MAC(4), mem.MAC(7),
		frame.Broadcast, {1, 0, 0x5e, 0, 0, 9}, {1, 0x80, 0xc2, 0, 0, 2}}
	srcs := []frame.MAC{mem.MAC(1), mem.MAC(1), mem.MAC(1), mem.MAC(2), {}, mem.MAC(99), {1, 2, 3, 4, 5, 6}}
	tpids := []uint16{frame.EtherTypeVLAN, frame.EtherTypeVLAN, frame.EtherTypeQinQ}
	var batch []frame.Frame
	for n := 1 + r.IntN(frame.BatchSize); len(batch) < n; {
		dst, src := dsts[r.IntN(len(dsts))], srcs[r.IntN(len(srcs))]
		tag := frame.Tag(tpids[r.IntN(len(tpids))])<<16 | frame.Tag(r.IntN(8))<<13 | frame.Tag(vids[r.IntN(len(vids))])
		if r.IntN(8) == 0 {
			tag = tag&^0xfff | frame.Tag([]int{0, 0xfff, 300}[r.IntN(3)])
		}
		beside, within := frame.Tag(0), frame.Tag(0)
		switch r.IntN(4) {
		case 0:
			beside = tag
		case 1:
			within = tag
		case 2:
			beside, within = tag, tag^0x1000
		}
		for range min(1+r.IntN(9), n-len(batch)) {
			size := []int{46, 100, 1486, 1500, 1501, 3000}[r.IntN(6)]
			payload := make([]byte, size)
			binary.BigEndian.PutUint32(payload[40:], uint32(len(batch))) // behind what offloads look at
			f := frame.Frame{Data: mem.Build(dst, src, within, 0x88b5, payload), Tag: beside}
			switch r.IntN(12) {
			case 0:
				f.Data = f.Data[:r.IntN(20)]
			case 1:
				f.Hdr = frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 34, CsumOffset: 6}
			case 2:
				f.Hdr = frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1400, CsumStart: 34, CsumOffset: 16}
			case 3:
				f.Data, f.Rest = f.Data[:40], [][]byte{f.Data[40:]}
			}
			batch = append(batch, f)
		}
	}
	return batch
}

func wires(sent []mem.Received) (s string) {
	for _, r := range sent {
		s += fmt.Sprintf("\t%d bytes, %+v: %x\n", len(r.Wire), r.Hdr, r.Wire[:min(len(r.Wire), 64)])
	}
	return s
}

// flipping is a port whose frames lie in memory that the sender rewrites after
// the switch has looked at it: a guest's second processor.
type flipping struct{ *mem.Port }

func (f *flipping) Queues() []frame.Queue {
	return []frame.Queue{&flippingQueue{Queue: f.Port.Queues()[0]}}
}

type flippingQueue struct{ frame.Queue }

func (*flippingQueue) Fault(error) {}

// rewriting is a port that, when it is given frames to send, first rewrites the
// Ethernet headers of some where they lie.
type rewriting struct {
	*mem.Port
	victims [][]byte
}

func (r *rewriting) Tx(hint int, out []frame.Out) int {
	for _, v := range r.victims {
		copy(v, []byte{1, 0x80, 0xc2, 0, 0, 0, 9, 9, 9, 9, 9, 9, 0x81, 0})
	}
	return r.Port.Tx(hint, out)
}

func TestWhatWasJudgedIsWhatIsSent(t *testing.T) {
	for _, filtering := range []bool{false, true} {
		for name, tag := range map[string]frame.Tag{"untagged": 0, "in VLAN 10": frame.MakeTag(frame.EtherTypeVLAN, 6, 10)} {
			for what, super := range map[string]bool{"plain": false, "to be finished": true} {
				s, err := New(Config{VLANFiltering: filtering, STP: STPConfig{Mode: ModeOff}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				if err != nil {
					t.Fatal(err)
				}
				from, to := &flipping{mem.NewPort()}, &rewriting{Port: mem.NewPort()}
				if super {
					to.SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
				}
				for i, p := range []frame.Port{from, to} {
					cfg := NewPortConfig("memory")
					cfg.VLAN = trunkVLAN(1, 10)
					if _, err := s.AddPort(fmt.Sprint("p", i), p, cfg); err != nil {
						t.Fatal(err)
					}
				}
				h, err := s.Hand()
				if err != nil {
					t.Fatal(err)
				}
				wire := mem.Build(mem.MAC(2), mem.MAC(1), tag, 0x88b5, make([]byte, 100))
				// Two of a kind are a run; the second was compared with the first.
				// It is finished after the first was sent.
				batch := []frame.Frame{{Data: slices.Clone(wire)}, {Data: slices.Clone(wire)}}
				if super {
					batch[1].Hdr = frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 60, CsumOffset: 6}
				}
				to.victims = [][]byte{batch[0].Data, batch[1].Data}
				h.Forward(1, batch)
				sent := to.Sent()
				if len(sent) != 2 {
					t.Fatalf("%s, %s: %d frames sent, want 2", name, what, len(sent))
				}
				for _, r := range sent {
					if got := r.Wire[:20]; string(got[:14]) != string(wire[:14]) {
						t.Errorf("filtering %v, %s, %s: sent % x, judged % x", filtering, name, what, got, wire[:20])
					}
				}
				from.Close()
				to.Close()
			}
		}
	}
}
