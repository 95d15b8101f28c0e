package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// flood sends frames from a device as fast as one core can, until it is stopped.
type flood struct {
	sent atomic.Uint64
	stop func()
}

// startFlood sends the frames over and over.
func startFlood(t *testing.T, host *netns.Host, device string, frames [][]byte) *flood {
	t.Helper()
	fd := -1
	err := host.Do(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatalf("open %s of %v for a flood: %v", device, host, err)
	}
	f := &flood{}
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(fd, frames, &stopped)
		unix.Close(fd)
	}()
	f.stop = func() {
		stopped.Store(true)
		<-done
	}
	t.Cleanup(f.stop)
	return f
}

func (f *flood) run(fd int, frames [][]byte, stopped *atomic.Bool) {
	msgs := make([]sysio.Mmsghdr, len(frames))
	for i := range frames {
		msgs[i].SetIovecs([]unix.Iovec{sysio.Piece(frames[i])})
	}
	for !stopped.Load() {
		for next := 0; next < len(msgs); {
			n, errno := sysio.Send(fd, msgs[next:])
			f.sent.Add(uint64(n))
			if next += n; errno != 0 {
				next++ // no room for this one
			}
		}
	}
}

// garbage is what makes most work and what looks most like a BPDU: unknown
// stations at both ends, broadcasts, long frames, BPDUs in a VLAN, other
// protocols' frames to bridges, and what is no BPDU from its first octets on.
func garbage() (frames [][]byte) {
	random := rand.New(rand.NewPCG(1, 2))
	station := func() frame.MAC {
		m := mac(0x8000 + random.IntN(0x4000))
		m[3] = 0x20 // nobody's
		return m
	}
	lldp := frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	for i := range 64 {
		body := "garbage" + strings.Repeat("!", 40)
		switch i % 8 {
		case 0:
			frames = append(frames, ether(frame.Broadcast, station(), body))
		case 1:
			frames = append(frames, ether(station(), station(), body+strings.Repeat("!", 1400)))
		case 2:
			frames = append(frames, llc(bridgeGroup, station(), []byte{0, 0, 2, 2, rstDesignated}, cTag(uint16(1+i))))
		case 3:
			frames = append(frames, llc(bridgeGroup, station(), []byte{0xff, 0xff, 2, 2, rstDesignated}))
		case 4:
			frames = append(frames, ether(bridgeGroup, station(), body))
		case 5:
			frames = append(frames, ether(lldp, station(), body))
		default:
			frames = append(frames, ether(station(), station(), body))
		}
	}
	return frames
}

// bpduWatch counts the BPDUs that one bridge sends another from now on.
type bpduWatch struct {
	from, to       *treeBridge
	sent, received int // before
}

func (l *treeLab) watchBPDUs(from, to string) *bpduWatch {
	w := &bpduWatch{from: l.bridge(from), to: l.bridge(to)}
	w.sent, w.received = w.look(l)
	return w
}

// look returns how many one has sent and the other received.
func (w *bpduWatch) look(l *treeLab) (sent, received int) {
	// The receiver first: what is under way then is not taken for received.
	to := l.kvs(w.to.name).treePort(w.from.name)
	from := l.kvs(w.from.name).treePort(w.to.name)
	return from.sent() - w.sent, to.received() - w.received
}

func TestGarbageAtLineRateDoesNotLoseTheTree(t *testing.T) {
	inKernelModes(t, testGarbageAtLineRateDoesNotLoseTheTree)
}

func testGarbageAtLineRateDoesNotLoseTheTree(t *testing.T) {
	l := newTriangle(t)
	was := l.shape("")
	b := l.kvs("b")
	before := b.port("a").RX.Frames

	begin := time.Now()
	f := startFlood(t, l.bridge("a").host, "b", garbage())
	// What b hears of a comes through the flood, and so does what c hears of b:
	// unknown and broadcast frames leave through every port.
	watches := []*bpduWatch{l.watchBPDUs("a", "b"), l.watchBPDUs("b", "c"), l.watchBPDUs("a", "c")}
	for _, w := range watches {
		netns.Await(t, treePatience, "hellos get through the flood", func() error {
			sent, received := w.look(l)
			// Four hellos: longer than what a bridge was told lives. One may be
			// lost on the way: the kernel's queue between the hosts is full.
			if sent < 4 || received < sent-1 {
				return fmt.Errorf("%s sent %d, %s received %d", w.from.name, sent, w.to.name, received)
			}
			t.Logf("in the flood %s sent %d BPDUs, %s received %d", w.from.name, sent, w.to.name, received)
			return nil
		})
	}
	l.keepsShape(was, "")
	elapsed := time.Since(begin).Seconds()
	f.stop()
	got := b.port("a").RX.Frames - before
	t.Logf("flood of %.0f frames/s, of which b took in %.0f frames/s", float64(f.sent.Load())/elapsed, float64(got)/elapsed)
	l.keepsShape(was, "")
	l.heals(l.now())
}

// Valid BPDUs without end, on a port that may not change the tree: the better
// root that they offer and the topology changes that they tell of are not taken,
// and most of them not even read.
func TestFloodOfBPDUsCostsItsPortOnly(t *testing.T) {
	inKernelModes(t, testFloodOfBPDUsCostsItsPortOnly)
}

func testFloodOfBPDUsCostsItsPortOnly(t *testing.T) {
	l := newTriangle(t)
	k, b := l.kvs("b"), l.bridge("b").host
	attacker := l.net.Host("attacker")
	l.net.Cable(b, "attacker", attacker, "eth0")
	k.do("port", "add", "netdev:attacker,bpdu-guard=off,root-guard=on,tcn-guard=on")
	var bpdus [][]byte
	for i := range 64 {
		id := rogue
		id.prio, id.addr[5] = uint16(i), byte(i)
		bpdus = append(bpdus, rstBPDU(rogueMAC, id, uint32(i), id, rstDesignated|byte(i)&(rstTopologyChange|rstProposal)))
	}
	was := l.shape("b attacker")
	before, cpu := k.treePort("attacker"), cpuOf(t, k)
	begin := time.Now()
	f := startFlood(t, attacker, "eth0", bpdus)
	netns.Await(t, startPatience, "BPDUs of the flood are refused", func() error {
		p := k.port("attacker")
		if p.Drops["bpdu-rate"] < 1000 || p.STP.State == "forwarding" {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
	// Data goes on between the others while it lasts, and the tree stands.
	for time.Since(begin) < 3*time.Second {
		l.heals(l.now())
		l.keepsShape(was, "b attacker")
	}
	f.stop()
	after, used := k.treePort("attacker"), cpuOf(t, k)-cpu
	elapsed := time.Since(begin) // last: nothing was counted later
	read := after.received() + after.Counters.RxDiscarded - before.received() - before.Counters.RxDiscarded
	t.Logf("flood of %.0f BPDUs/s, of which %.0f/s were read; the switch used %.2f of a core",
		float64(f.sent.Load())/elapsed.Seconds(), float64(read)/elapsed.Seconds(), used.Seconds()/elapsed.Seconds())
	if limit := bpdusRead * (int(elapsed.Seconds()) + 2); read > limit {
		t.Errorf("%d BPDUs were read in %v, want at most %d", read, elapsed, limit)
	}
	if sent := after.sent() - before.sent(); sent > 7*(int(elapsed.Seconds())+2) {
		t.Errorf("%d BPDUs were sent in answer in %v: more than the hold count", sent, elapsed)
	}
	// When it ceases the port comes back.
	netns.Await(t, treePatience, "the port forwards again", func() error {
		if p := k.treePort("attacker"); p.State != "forwarding" {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
	l.keepsShape(was, "b attacker")
	l.noStorm()
}

// bpdusRead is how many BPDUs of a port the switch reads in a second.
const bpdusRead = 100

func cpuOf(t *testing.T, k *kvs) time.Duration {
	t.Helper()
	d, err := k.proc.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
