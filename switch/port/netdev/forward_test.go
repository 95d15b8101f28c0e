package netdev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/inkernel"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// redirected is a port that programs may redirect to. Nothing is sent to it: a
// program that is only tried says what it would do.
type redirected struct {
	frame.Port
	index int
}

func (r *redirected) Target() frame.Target { return frame.Target{Index: r.index} }
func (r *redirected) Bind(int)             {}

// kernelRelay is a tier and a relay on one table and one view, and the program of
// the view's first port.
type kernelRelay struct {
	tier    *inkernel.Tier
	table   *fdb.Table
	relay   *relay.Relay
	view    *relay.View
	set     *intakeSet
	program *ebpf.Program
}

func newKernelRelay(t *testing.T, filtering bool) *kernelRelay {
	t.Helper()
	tier, err := inkernel.New(inkernel.Options{MaxEntries: 1000, Filtering: filtering})
	if errors.Is(err, unix.EPERM) || errors.Is(err, inkernel.ErrArch) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	k := &kernelRelay{tier: tier}
	if k.table, err = fdb.NewIn(tier.Memory(), 1000, 300); err != nil {
		t.Fatal(err)
	}
	k.relay = relay.New(0, k.table, nil)
	k.set, err = newIntakeSet(1, sizeOfIntake(2*blockSize), tier)
	t.Cleanup(func() {
		k.set.free()
		tier.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.set.close()
	if k.program, err = k.set.program(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.program.Close() })
	k.set.intakes[0].shared.Port = 1 + 1
	tier.Beat(time.Hour)
	return k
}

// follow makes relay and tier follow a view of these ports, the first of which is
// number 1.
func (k *kernelRelay) follow(filtering bool, ports ...relay.Port) {
	v := &relay.View{Seq: 1, Filtering: filtering, Ports: make([]relay.Port, 1+len(ports))}
	if k.view != nil {
		v.Seq = k.view.Seq + 1
	}
	for i, p := range ports {
		p.Name, p.Tx = fmt.Sprint("p", i+1), &redirected{index: 100 + i}
		p.Gen, p.Counters = k.table.Gen(uint16(i+1)), make([]relay.Counters, 1)
		v.SetPort(uint16(i+1), p, [relay.NumClasses]bool{})
	}
	k.view = v
	k.relay.Adopt(v)
	k.tier.Follow(v)
}

// try runs the program on a frame that came in by port 1, and returns the number
// of the port that it would redirect it to, or 0 if it left it to the worker.
func (k *kernelRelay) try(t *testing.T, wire []byte) int {
	t.Helper()
	var before [8]uint64
	for n := range k.view.Ports {
		before[n] = k.tier.Carried(n).TxFrames
	}
	verdict, err := k.program.Run(&ebpf.RunOptions{Data: wire})
	if err != nil {
		t.Fatal(err)
	}
	const redirect, shot = 7, 2
	to := 0
	for n := range k.view.Ports {
		if k.tier.Carried(n).TxFrames != before[n] {
			to = n
		}
	}
	if verdict == redirect != (to != 0) || verdict != redirect && verdict != shot {
		t.Fatalf("verdict %d, counted as sent by port %d", verdict, to)
	}
	r := k.set.intakes[0] // what was left to the worker: it has it
	var b [frame.BatchSize]frame.Frame
	if n := r.receive(b[:], nil, nil); n != 0 == (to != 0) {
		t.Fatalf("the worker has %d frames, port %d had one", n, to)
	}
	r.release()
	return to
}

// What the program does with a frame is what the relay would do with it, or it is
// left to the relay; and what is plain is not.
func TestTheKernelForwardsAsTheRelayDoes(t *testing.T) {
	for _, filtering := range []bool{false, true} {
		k := newKernelRelay(t, filtering)
		short, left := 0, 0
		for seed := range uint64(300) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			k.randomPorts(rnd, filtering)
			for range 20 {
				wire := randomWire(rnd)
				e := k.relay.Explain(1, frame.Frame{Data: wire})
				to := k.try(t, wire)
				if to == 0 {
					left++
					if k.plain(wire, e, filtering) {
						t.Errorf("seed %d: left to the relay: % x\n%+v", seed, wire[:18], e)
					}
					continue
				}
				short++
				if e.Verdict != relay.VerdictForward || len(e.Out) != 1 || int(e.Out[0]) != to {
					t.Errorf("seed %d: sent by port %d: % x\nthe relay: %+v", seed, to, wire[:18], e)
				}
			}
			if t.Failed() {
				return
			}
		}
		if short < 100 || left < 100 {
			t.Errorf("filtering %v: %d frames went the short way and %d were left: too few to tell", filtering, short, left)
		}
	}
}

func stationMAC(n int) frame.MAC { return frame.MAC{2, 0, 0, 0, 1, byte(n)} }

// randomPorts makes a view of four ports, and stations 0 to 7 somewhere on them.
func (k *kernelRelay) randomPorts(rnd *rand.Rand, filtering bool) {
	maybe := func() bool { return rnd.IntN(6) == 0 }
	var ports []relay.Port
	for range 4 {
		p := relay.Port{PVID: []uint16{0, 1, 1, 1, 5}[rnd.IntN(5)], MaxLen: []uint32{1514, 1514, 200}[rnd.IntN(3)],
			Forward: !maybe(), Isolated: maybe(), Hairpin: maybe(), Tunnel: maybe(), UntaggedOnly: maybe(),
			Member: new(frame.VIDSet), Untagged: new(frame.VIDSet)}
		p.Learning = p.Forward || maybe()
		p.Learn = p.Learning && !maybe()
		for _, vid := range []uint16{1, 5} {
			if !maybe() {
				p.Member.Add(vid)
			}
			if !maybe() {
				p.Untagged.Add(vid)
			}
		}
		if maybe() {
			p.Extra = relay.ExtraLocked
		}
		ports = append(ports, p)
	}
	for n := range uint16(5) {
		k.table.DropPort(n)
	}
	for i := range 8 {
		for _, vid := range []uint16{1, 5} {
			port := uint16(1 + rnd.IntN(4))
			if i < 4 && !maybe() {
				port = 1
			}
			if rnd.IntN(3) == 0 {
				_ = k.table.Set(fdb.MakeKey(stationMAC(i), vid), port, fdb.Static)
			} else {
				k.table.Learn(fdb.MakeKey(stationMAC(i), vid), fdb.Dest{Port: port, Gen: k.table.Gen(port)})
			}
		}
	}
	if maybe() {
		k.follow(filtering, ports...)
		k.table.Flush(uint16(1 + rnd.IntN(4))) // which the view has yet to learn of
		return
	}
	k.follow(filtering, ports...)
}

func randomWire(rnd *rand.Rand) []byte {
	dst, src := stationMAC(rnd.IntN(9)), stationMAC(rnd.IntN(5))
	switch rnd.IntN(12) {
	case 0:
		dst = frame.Broadcast
	case 1:
		dst = frame.MAC{1, 0, 0x5e, 0, 0, 1}
	case 2:
		src = frame.MAC{}
	case 3:
		src[0] |= 1
	}
	wire := append(append(make([]byte, 0, 1600), dst[:]...), src[:]...)
	for range max(0, rnd.IntN(12)-9) { // mostly none
		wire = append(wire, 0x81, 0, 0, 5)
	}
	wire = append(wire, 0x88, 0xb5)
	return append(wire, make([]byte, []int{46, 46, 46, 46, 186, 187, 1500, 1501, 1504, 1505}[rnd.IntN(10)])...)
}

// plain reports that nothing about a frame needs the relay.
func (k *kernelRelay) plain(wire []byte, e relay.Explanation, filtering bool) bool {
	if e.Verdict != relay.VerdictForward {
		return false
	}
	in, out := &k.view.Ports[1], &k.view.Ports[e.Out[0]]
	vid := uint16(1)
	if filtering {
		if wire[12] == 0x81 {
			return false // a tag among the bytes: no device hands one to the program
		}
		vid = in.PVID
	}
	d, ok := k.table.Lookup(fdb.MakeKey([6]byte(wire[6:12]), vid))
	return ok && d.Port == 1 && d.Gen == in.Gen && e.Out[0] != 1 && !in.Tunnel && !out.Tunnel
}
