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
	"github.com/kvswitch/kvswitch/switch/porttest"
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
		whole.w.forward(whole.w.view, 1, slices.Clone(batch))
		for i := range batch {
			single.w.forward(single.w.view, 1, slices.Clone(batch[i:i+1]))
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

// quietSwitch has four ports in memory and a worker that the test drives.
// Station 1 and 2 are at port 1, 3 at port 2, 4 at port 3, in every VLAN.
type quietSwitch struct {
	*Switch
	w     *worker
	ports []*porttest.Port
}

func newQuietSwitch(t *testing.T, filtering, tunnel bool, room int, vids []uint16) *quietSwitch {
	t.Helper()
	s, err := New(Config{
		VLANFiltering: filtering, STP: STPConfig{Mode: "off"}, MAC: porttest.MAC(99),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	q := &quietSwitch{Switch: s}
	first := []KeyValue{{"trunk", "10-11"}, {"native", "1"}}
	if tunnel {
		first = []KeyValue{{"tunnel", "10"}}
	}
	words := [][]KeyValue{first, {{"trunk", "10"}, {"native", "5"}}, {{"vlan", "1"}}, {{"trunk", "1-20"}}}
	for i, word := range words {
		p := porttest.NewPort()
		switch i {
		case 1:
			p.SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
		case 2:
			p.SetRoom(room)
		}
		cfg := NewPortConfig("memory")
		if err := cfg.Set(word...); err != nil {
			t.Fatal(err)
		}
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
			_ = s.AddFDB(porttest.MAC(station), vid, port, true)
		}
	}
	if q.w, err = newWorker(0, s); err != nil {
		t.Fatal(err)
	}
	q.w.adopt(s.view.Load())
	return q
}

func (q *quietSwitch) close() {
	q.w.close()
	for _, p := range q.ports {
		p.Close()
	}
}

// randomBatch has runs of one to nine frames that differ in their payload, and
// now and then in something that matters.
func randomBatch(r *rand.Rand, vids []uint16) []frame.Frame {
	dsts := []frame.MAC{porttest.MAC(1), porttest.MAC(3), porttest.MAC(3), porttest.MAC(4), porttest.MAC(7),
		frame.Broadcast, {1, 0, 0x5e, 0, 0, 9}, {1, 0x80, 0xc2, 0, 0, 2}}
	srcs := []frame.MAC{porttest.MAC(1), porttest.MAC(1), porttest.MAC(1), porttest.MAC(2), {}, porttest.MAC(99), {1, 2, 3, 4, 5, 6}}
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
			f := frame.Frame{Data: porttest.Build(dst, src, within, 0x88b5, payload), Tag: beside}
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

func wires(sent []porttest.Received) (s string) {
	for _, r := range sent {
		s += fmt.Sprintf("\t%d bytes, %+v: %x\n", len(r.Wire), r.Hdr, r.Wire[:min(len(r.Wire), 64)])
	}
	return s
}
