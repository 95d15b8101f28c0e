package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// pause stops the switch as a debugger would, and returns when it stands still.
func (k *kvs) pause() {
	k.t.Helper()
	k.proc.Signal(unix.SIGSTOP)
	netns.Await(k.t, startPatience, "kvswitch stands still", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.proc.Pid()))
		if err == nil && !bytes.Contains(stat, []byte(") T ")) {
			err = fmt.Errorf("it is %s", stat)
		}
		return err
	})
}

func (k *kvs) resume() { k.proc.Signal(unix.SIGCONT) }

// listener is what a station notes of what it hears.
type listener struct {
	*ear
	spoke  atomic.Int64 // when the last BPDU came, by the wall clock
	latest atomic.Int64 // when the latest of the numbered frames heard was sent
	answer atomic.Int64 // ARP replies
}

func (l *listener) hear(f []byte) {
	switch {
	case isBPDU(f):
		l.spoke.Store(time.Now().UnixNano())
	case binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_ARP && f[21] == 2:
		l.answer.Add(1)
	}
	if _, at, ok := numberOf(f); ok {
		l.latest.Store(max(l.latest.Load(), at))
	}
	l.ear.hear(f)
}

// arpRequest is from a station that wants to know who has an address.
func arpRequest(src frame.MAC, from, who string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, src[:]...), netip.MustParseAddr(from).AsSlice()...)
	b = append(append(b, make([]byte, 6)...), netip.MustParseAddr(who).AsSlice()...)
	f := append(append(append([]byte{}, frame.Broadcast[:]...), src[:]...), unix.ETH_P_ARP>>8, unix.ETH_P_ARP&0xff)
	return append(append(f, b...), make([]byte, 18)...)
}

// newHeartbeat is two ports between which a station at p0 sends numbered frames to
// one at p1, the short way. The host has an address of p0's own, which the switch
// must keep it from answering for.
func newHeartbeat(t *testing.T, args ...string) (*wires, [2]*listener, *stream) {
	t.Helper()
	w := newWires(t, 2, args...)
	w.host.Addr("p0", "192.0.2.77/24")
	var ears [2]*listener
	for i := range ears {
		ears[i] = &listener{ear: newEar()}
		w.listen(i, ears[i].hear)
	}
	there, back := orderFlows(1)
	startStream(t, w.into(1), 20*time.Millisecond, back...) // or it would be forgotten
	s := startStream(t, w.into(0), time.Millisecond, there...)
	w.awaitShort(0, func() {})
	return w, ears, s
}

// awaitSilence waits until p1 hears nothing of what is sent to it.
func awaitSilence(t *testing.T, s *stream, e *listener) {
	t.Helper()
	const enough = 500
	sent, heard := s.sent.Load(), e.all()
	netns.Await(t, 2*startPatience, "nothing is forwarded", func() error {
		if now := e.all(); now != heard {
			sent, heard = s.sent.Load(), now
		}
		if n := s.sent.Load() - sent; n < enough {
			return fmt.Errorf("%d frames sent since one was heard", n)
		}
		return nil
	})
}

// TestAStoppedSwitchForwardsAsLongAsItIsBelieved stops the process. What it said
// in BPDUs is believed for three hello times, and no longer may it forward; with no
// spanning tree as long as stations are remembered. Then frames go to it, not to
// the host. When it goes on they are forwarded again.
func TestAStoppedSwitchForwardsAsLongAsItIsBelieved(t *testing.T) {
	inKernelOnly(t)
	const hello, ageing = 2 * time.Second, 4 * time.Second
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"stp rstp", []string{"--stp", "rstp"}},
		{"stp off", []string{"--stp", "off", "--ageing", ageing.String()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, ears, s := newHeartbeat(t, tc.args...)
			w.kvs.pause()
			stopped := time.Now().UnixNano()
			awaitSilence(t, s, ears[1])
			// Read late, a BPDU seems younger; sent early, a frame seems older. So
			// whoever is late here sees less than there was. The kernel's coarse
			// clock ticks a hundred times a second, or more.
			since, trust := stopped, ageing
			if tc.name == "stp rstp" {
				since, trust = min(ears[0].spoke.Load(), ears[1].spoke.Load()), 3*hello
			}
			if d := time.Duration(ears[1].latest.Load() - since); d > trust+50*time.Millisecond {
				t.Errorf("frames were forwarded %v after that was last justified, want no more than %v", d, trust)
			} else {
				t.Logf("the last frame was forwarded %v after that was last justified", d)
			}
			w.says(0, arpRequest(mac(0), "192.0.2.1", "192.0.2.77"))
			heard := ears[1].all()
			if n := ears[0].answer.Load(); n != 0 {
				t.Error("the host's stack has answered in the switch's absence")
			}
			w.kvs.resume()
			netns.Await(t, startPatience, "frames are forwarded again", func() error {
				if ears[1].all() == heard {
					return errors.New("none is")
				}
				return nil
			})
			w.awaitShort(0, func() {})
			if n := ears[0].answer.Load(); n != 0 {
				t.Error("the host's stack has answered")
			}
			ears[1].inOrder(t, "p1")
		})
	}
}

// TestAPauseShorterThanItIsBelievedForChangesNothing stops the process for less
// than that, again and again: every frame goes the short way.
func TestAPauseShorterThanItIsBelievedForChangesNothing(t *testing.T) {
	inKernelOnly(t)
	file := netns.Dir(t) + "/kvswitch.yaml"
	if err := os.WriteFile(file, []byte("hello: 10s\nmax-age: 40s\nforward-delay: 30s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, ears, s := newHeartbeat(t, "--config", file)
	relayed := func() uint64 {
		p := w.kvs.port("p0")
		return p.RX.Frames - p.InKernel.RxFrames
	}
	before := relayed() // until the switch's first second was over
	for range 3 {
		w.kvs.pause()
		at := s.sent.Load()
		netns.Await(t, 2*startPatience, "a second's frames are sent", func() error {
			if n := s.sent.Load() - at; n < 700 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		w.kvs.resume()
		w.kvs.status()
	}
	sent := s.stop(t)
	if now := relayed(); now != before {
		t.Errorf("of %d frames %d went by the relay, of which %d before the first pause", sent, now, before)
	}
	there, _ := orderFlows(1)
	netns.Await(t, startPatience, "every frame is heard", func() error {
		if n := ears[1].of(there[0]); uint64(n) != sent {
			return fmt.Errorf("%d of %d", n, sent)
		}
		return nil
	})
	ears[1].inOrder(t, "p1")
}

// kernelObjects are programs and maps of BPF.
type kernelObjects struct {
	programs map[ebpf.ProgramID]string
	maps     map[ebpf.MapID]string
}

// objects are the programs at the ports' ingress, by name, and the maps they use.
func (w *wires) objects() kernelObjects {
	w.t.Helper()
	o := kernelObjects{map[ebpf.ProgramID]string{}, map[ebpf.MapID]string{}}
	if err := w.host.Do(func() error {
		for _, name := range w.names {
			r, err := link.QueryPrograms(link.QueryOptions{Target: w.host.Index(name), Attach: ebpf.AttachTCXIngress})
			if err != nil {
				return err
			}
			for _, p := range r.Programs {
				if err := o.add(p.ID); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		w.t.Fatalf("look for programs: %v", err)
	}
	return o
}

func (o *kernelObjects) add(id ebpf.ProgramID) error {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return err
	}
	o.programs[id] = info.Name
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return err
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			return err
		}
		o.maps[id] = info.Name
	}
	return nil
}

// left says which of them the kernel still has.
func (o *kernelObjects) left() error {
	var left []string
	for id, name := range o.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			p.Close()
			left = append(left, name)
		}
	}
	for id, name := range o.maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			m.Close()
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("there are still %s", strings.Join(left, ", "))
	}
	return nil
}

// TestNothingOfASwitchIsLeftInTheKernel ends the switch, in peace and not: all that
// it loaded is gone then, and the devices are the host's again.
func TestNothingOfASwitchIsLeftInTheKernel(t *testing.T) {
	inKernelOnly(t)
	for _, tc := range []struct {
		name string
		end  func(k *kvs)
	}{
		{"stopped", (*kvs).stop},
		{"killed", func(k *kvs) { k.proc.Kill() }},
		{"killed while it stood still", func(k *kvs) { k.pause(); k.proc.Kill() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, ears, s := newHeartbeat(t, "--stp", "off")
			objects := w.objects()
			if len(objects.programs) != 2 || len(objects.maps) < 5 {
				t.Fatalf("a switch with two ports has %+v", objects)
			}
			for _, name := range objects.programs {
				if !strings.HasPrefix(name, "kvswitch_") {
					t.Errorf("a program is called %q", name)
				}
			}
			for _, name := range objects.maps {
				if !strings.HasPrefix(name, "kvswitch_") {
					t.Errorf("a map is called %q", name)
				}
			}
			tc.end(w.kvs)
			netns.Await(t, startPatience, "all is gone", objects.left)
			heard, sent := ears[1].all(), s.sent.Load()
			netns.Await(t, startPatience, "the host answers on its own device", func() error {
				w.says(0, arpRequest(mac(0), "192.0.2.1", "192.0.2.77"))
				if ears[0].answer.Load() == 0 {
					return errors.New("no reply")
				}
				return nil
			})
			netns.Await(t, startPatience, "more frames are sent", func() error {
				if n := s.sent.Load() - sent; n < 100 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			if n := ears[1].all(); n != heard {
				t.Errorf("%d frames were forwarded without a switch", n-heard)
			}
		})
	}
}
