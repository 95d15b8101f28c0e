package vhostuser

import (
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// A batch of everything: plain, in pieces, with an offload header, with a tag to
// put in, a chain to refuse; into single and merged buffers.
func TestRxAndTxAllocateNothing(t *testing.T) {
	tso := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	for name, features := range map[string]uint64{"merged": modern | allOffloads, "single": featVersion1 | allOffloads} {
		t.Run(name, func(t *testing.T) {
			x, y := newGuest(t, guestOptions{size: 64}), newGuest(t, guestOptions{size: 64})
			px, py := x.attach(features), y.attach(features)
			var chains [][]virtq.Buf
			for i, cut := range [][]int{{12 + 60}, {12, 1514}, {12, 20, 400, 300}, {12 + 64}, {5}, {12, 3, 3, 3, 3, 3, 100}, {12 + 3000}} {
				var bufs []virtq.Buf
				for k, n := range cut {
					off, b := x.alloc(n)
					if k == 0 && i%3 == 2 {
						tso.Put(b)
					}
					bufs = append(bufs, virtq.Buf{Addr: x.gpa(off), Len: uint32(n)})
				}
				chains = append(chains, bufs)
			}
			space := make([]virtq.Buf, 64)
			for i := range space {
				off, b := y.alloc(2048)
				space[i] = virtq.Buf{Addr: y.gpa(off), Len: uint32(len(b)), Write: true}
				y.rings[0].Add(space[i])
			}
			y.rings[0].Publish()
			q := px.queues[0]
			var b [frame.BatchSize]frame.Frame
			var out [frame.BatchSize]frame.Out
			done := make([]virtq.Done, 64)
			frames, received := 0, 0
			n := testing.AllocsPerRun(100, func() {
				for _, bufs := range chains {
					x.rings[1].Add(bufs...)
				}
				x.rings[1].Publish()
				n := q.Rx(b[:])
				for i := range n {
					out[i] = frame.Out{Frame: &b[i]}
					if i%2 == 1 {
						out[i].EgressTag = frame.MakeTag(frame.EtherTypeVLAN, 0, 5)
					}
				}
				py.Tx(0, out[:n])
				q.Release()
				q.Rx(b[:])
				q.Arm()
				frames += n
				x.rings[1].Reap(done)
				n, _ = y.rings[0].Reap(done)
				received += n
				for _, d := range done[:n] {
					y.rings[0].Add(space[d.Head])
				}
				y.rings[0].Publish()
			})
			if n != 0 {
				t.Errorf("%v allocations for a batch", n)
			}
			// AllocsPerRun runs once more, to warm up.
			if want := 101 * 6; frames != want || received < 101*5 {
				t.Errorf("%d frames lent and %d buffers filled, want %d and more than %d", frames, received, want, 101*5)
			}
		})
	}
}
