package vhostuser

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// A front end shares more than the guest's memory. Whatever of it goes away while
// something is sent to the guest is that guest's loss, and not the sender's, who
// may be a NIC that is not ready for faults at all.
func TestSharedFilesCutShortCostTheirOwnPort(t *testing.T) {
	for name, share := range map[string]func(f *frontend, fd int){
		"dirty log": func(f *frontend, fd int) {
			f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), fd)
			f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
		},
		"inflight note": func(f *frontend, fd int) {
			for i := range f.rings {
				f.ask(reqGetVringBase, state(i, 0))
			}
			f.must(reqSetInflightFD, inflightArea{1 << 20, 0, 2, 64}.append(nil), fd)
			for i := range f.rings {
				f.startRing(i, 0)
				f.enable(i, 1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := bystander(t)
			p := openPort(t, Options{})
			leaksNothing(t, name, func() {
				t.Run("guest", func(t *testing.T) {
					f := newFrontend(t, p, guestOptions{size: 64})
					f.up(modern | featProtocol)
					fd := memfd(t, 1<<20)
					share(f, fd)
					f.works()
					f.supply(0, 2048)
					if err := unix.Ftruncate(fd, 0); err != nil {
						t.Fatal(err)
					}
					// The sender is a guest whose worker is ready for faults in
					// its memory: none may reach it.
					other.transmit(0, 100)
					var b [4]frame.Frame
					if n := other.port.queues[0].Rx(b[:]); n != 1 {
						t.Fatalf("Rx = %d", n)
					}
					if err := guarded(func() { p.Tx(0, outs(b[:1])) }); err != nil {
						t.Errorf("the sender pays for it: %v", err)
					}
					other.port.queues[0].Release()
					wait(t, "the link to go down", func() bool { return !p.State().Up })
					f.closed()
					if s := p.State(); !strings.Contains(s.Reason, "memory") {
						t.Errorf("reason %q", s.Reason)
					}
				})
			})
			f := newFrontend(t, p, guestOptions{size: 64})
			f.up(modern)
			f.works()
		})
	}
}

// What was judged is what is sent, whatever became of the sender's memory.
func TestTxSendsTheHeaderThatWasJudged(t *testing.T) {
	judged := frame.Header{Dst: 0x0605040302ff, Tail: 0xb588_0c0b0a090802}
	var want [frame.HeaderLen]byte
	judged.Put(want[:])
	for name, change := range map[string]func(*frame.Out){
		"at once":     func(*frame.Out) {},
		"with a tag":  func(o *frame.Out) { o.EgressTag = frame.MakeTag(frame.EtherTypeVLAN, 0, 5) },
		"in pieces":   func(o *frame.Out) { o.Rest = [][]byte{testFrame(40)} },
		"tag removed": func(o *frame.Out) { o.Strip = frame.TagLen },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 64})
			p := g.attach(modern)
			g.supply(0, 2048)
			o := frame.Out{Frame: &frame.Frame{Data: testFrame(100)}, Header: &judged}
			change(&o)
			if n := p.Tx(0, []frame.Out{o}); n != 1 {
				t.Fatalf("Tx = %d", n)
			}
			got := g.receive(0, 12)
			if len(got) != 1 || string(got[0].frame) != string(o.AppendWire(nil)) {
				t.Fatalf("received %x, want %x", got, o.AppendWire(nil))
			}
			if string(got[0].frame[:12]) != string(want[:12]) {
				t.Errorf("addresses % x, judged % x", got[0].frame[:12], want[:12])
			}
		})
	}
}

// A migration that was called off leaves nothing behind: memory may be added
// that its log did not cover.
func TestMemoryIsAddedAfterAMigrationWasCalledOff(t *testing.T) {
	_, f := connected(t, Options{}, modern|featProtocol)
	f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), memfd(t, 1<<20))
	f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
	far := memRegion{1 << 50, 4096, 1 << 50, 0}
	f.mustNot(reqAddMemReg, far.encode(u64(0)), f.fd)
	fds, maps := resources(t)
	f.must(reqSetFeatures, u64(modern|featProtocol))
	if fds2, maps2 := resources(t); fds2 > fds || maps2 >= maps {
		t.Errorf("%d descriptors and %d mappings, before %d and %d: the log stays mapped", fds2, maps2, fds, maps)
	}
	f.must(reqAddMemReg, far.encode(u64(0)), f.fd)
	f.works()
}

// A ring that its driver broke needs no logging, and must not keep the guest from
// being moved to another host.
func TestBrokenRingDoesNotFailTheMigration(t *testing.T) {
	p, f := connected(t, Options{}, modern|featProtocol)
	f.jump(1)
	p.queues[0].Rx(make([]frame.Frame, 4))
	wait(t, "the ring to break", func() bool { return p.ring(1).broken.Load() != nil })
	f.must(reqSetLogBase, append(u64(1<<20), u64(0)...), memfd(t, 1<<20))
	f.must(reqSetFeatures, u64(modern|featProtocol|featLogAll))
}
