package vhostuser

import (
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// What is given up leaves nothing behind: however many frames a guest could not
// be sent, or their senders took away while they were copied, the next ones go
// as soon as there are buffers.
func TestReceiveRingNeverStalls(t *testing.T) {
	small := func(n int) []frame.Out {
		list := make([]frame.Frame, n)
		for i := range list {
			list[i].Data = testFrame(64)
		}
		return outs(list)
	}
	for _, tc := range []struct {
		name     string
		features uint64
		buffer   []int // sizes of its descriptors
		left     int   // buffers that are there in the bad time, 0: as many as fit
		bad      func(t *testing.T, p *Port)
	}{
		{"too few mergeable buffers for a long frame", modern, []int{12, 1536}, 5, func(t *testing.T, p *Port) {
			for range 400 {
				p.Tx(0, outs([]frame.Frame{{Data: make([]byte, 60_000)}}))
			}
		}},
		{"frames longer than unmergeable buffers", featVersion1, []int{12, 1514}, 0, func(t *testing.T, p *Port) {
			for range 400 {
				p.Tx(0, outs([]frame.Frame{{Data: make([]byte, 9000)}, {Data: make([]byte, 9000)}}))
			}
		}},
		{"the sender's memory goes while it is copied", modern, []int{12, 1514}, 0, func(t *testing.T, p *Port) {
			f := frame.Frame{Data: goneMemory(t)}
			for range 1200 {
				if guarded(func() { p.Tx(0, []frame.Out{{Frame: &f}}) }) == nil {
					t.Fatal("the sender's fault went unnoticed")
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 256})
			p := g.attach(tc.features)
			fill := func(left int) {
				for range left {
					g.post(0, tc.buffer...)
				}
				g.rings[0].Publish()
			}
			if tc.left == 0 {
				tc.left = g.rings[0].Free() / len(tc.buffer)
			}
			fill(tc.left)
			tc.bad(t, p)
			sent := 0
			for range 20 {
				fill(g.rings[0].Free() / len(tc.buffer))
				sent += p.Tx(0, small(50))
				g.receive(0, 12)
			}
			if sent != 1000 {
				t.Errorf("%d of 1000 frames sent afterwards, link up: %v", sent, p.State().Up)
			}
		})
	}
}

// A ring that turns out to be broken in the middle of a batch has sent what it
// says: the frames before it arrive.
func TestTxCountsWhatArrivedBeforeTheRingBroke(t *testing.T) {
	g := newGuest(t, guestOptions{size: 64})
	p := g.attach(modern)
	for range 3 {
		g.post(0, 1536)
	}
	g.rings[0].Publish()
	avail := g.mem[g.rings[0].addr.avail-userBase:]
	avail[4+2*3], avail[2] = 64, 4 // a fourth buffer, which is none
	list := []frame.Frame{{Data: testFrame(60)}, {Data: testFrame(4000)}}
	sent := p.Tx(0, outs(list))
	if got := g.receive(0, 12); len(got) != sent || sent != 1 {
		t.Errorf("Tx = %d, and %d arrived", sent, len(got))
	}
	for range 2 { // the ring is found out at the latest by the next one
		p.Tx(0, outs(list[:1]))
	}
	if p.sinks[0].broken.Load() == nil {
		t.Error("the ring goes on")
	}
}
