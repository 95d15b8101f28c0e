package mem

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func readable(t *testing.T, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// pass takes what q has and sends it by p, as a switch driven by hand does.
func pass(q frame.Queue, p frame.Port) (n int) {
	var b [frame.BatchSize]frame.Frame
	for {
		k := q.Rx(b[:])
		if k == 0 {
			return n
		}
		out := make([]frame.Out, k)
		for i := range out {
			out[i].Frame = &b[i]
		}
		n += p.Tx(0, out)
		q.Release()
	}
}

var hello = Ethernet(MAC(1), MAC(2), "hello")

func TestPortsByHandHaveNoDescriptor(t *testing.T) {
	before := openFDs(t)
	for range 1000 {
		in, out := NewPort(), NewPort()
		near, far := NewCable()
		for _, p := range []*Port{in, out, near, far} {
			if err := p.Start(func() {}); err != nil {
				t.Fatal(err)
			}
		}
		in.Inject(hello, hello)
		pass(in.Queues()[0], near)
		if n := pass(far.Queues()[0], out); n != 2 || len(out.Sent()) != 2 {
			t.Fatalf("%d frames went through", n)
		}
		in.Close()
		e := NewEndless([]frame.Frame{{Data: hello}})
		e.Lend(3)
		if n := pass(e, out); n != 3 {
			t.Fatalf("%d frames lent", n)
		}
	}
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors are open, %d before", n, before)
	}
}

func TestDescriptorIsReadableWhileFramesWait(t *testing.T) {
	before := openFDs(t)
	near, far := NewCable()
	asked := NewAskedPort()
	for name, tc := range map[string]struct {
		p      frame.Port
		arrive func()
	}{
		"port":  {asked, func() { asked.Inject(hello) }},
		"cable": {near, func() { far.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: hello}}}) }},
	} {
		t.Run(name, func(t *testing.T) {
			q, sink := tc.p.Queues()[0], NewPort()
			tc.arrive() // before there is a descriptor
			fd := q.FD()
			if !readable(t, fd) || !q.Arm() {
				t.Error("a worker would sleep though a frame waits")
			}
			for range 2 {
				if pass(q, sink) != 1 || q.Arm() || readable(t, fd) {
					t.Error("a worker would not sleep though nothing waits")
				}
				tc.arrive()
				if !readable(t, fd) || q.FD() != fd {
					t.Error("a frame does not wake the worker")
				}
			}
			if err := tc.p.Close(); err != nil {
				t.Error(err)
			}
			// Whoever gets the number next is left alone.
			other, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(other)
			tc.arrive()
			if q.FD() != -1 || readable(t, other) {
				t.Error("the closed port has a descriptor")
			}
		})
	}
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors are open, %d before", n, before)
	}
}

func TestEndlessWakesAfterLend(t *testing.T) {
	e := NewEndless([]frame.Frame{{Data: hello}})
	defer e.Close()
	if readable(t, e.FD()) || e.Arm() {
		t.Error("it has frames to lend")
	}
	if e.Lend(1); !readable(t, e.FD()) || !e.Arm() {
		t.Error("it has none")
	}
}

func TestPortGoesDownForWantOfADescriptor(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	p := NewPort()
	told := 0
	if err := p.Start(func() { told++ }); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	fd := p.Queues()[0].FD()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if s := p.State(); fd != -1 || s.Up || s.Reason == "" || told != 1 {
		t.Errorf("descriptor %d, state %+v, told %d times", fd, s, told)
	}
}

func TestCableCarriesWhatIsSentWhileTheLinkIsUp(t *testing.T) {
	near, far := NewCable()
	tagged := frame.Out{Frame: &frame.Frame{Data: hello}, EgressTag: frame.MakeTag(frame.EtherTypeVLAN, 0, 7)}
	send := func(p *Port, n int) {
		t.Helper()
		for range n {
			if k := p.Tx(0, []frame.Out{tagged}); k != 1 {
				t.Fatalf("Tx = %d", k)
			}
		}
	}
	var b [1]frame.Frame
	for _, p := range []*Port{near, far} {
		send(p, 1)
		q := p.far.Queues()[0]
		if n := q.Rx(b[:]); n != 1 || !bytes.Equal(b[0].Data, tagged.AppendWire(nil)) {
			t.Fatalf("Rx = %d: % x", n, b[0].Data)
		}
		q.Release()
	}
	near.Cut(true)
	if s := far.State(); s.Up || s.Reason != "no carrier" {
		t.Errorf("the far end: %+v", s)
	}
	near.Cut(false)
	send(near, cableRoom+3)
	if c := far.Counters(); c.RxDropped != 3 {
		t.Errorf("%d frames lost, 3 have no room", c.RxDropped)
	}
	sink := NewPort()
	if n := pass(far.Queues()[0], sink); n != cableRoom {
		t.Errorf("%d frames arrived, want %d", n, cableRoom)
	}
}

func TestRoomIsWhatThePortTakes(t *testing.T) {
	p := NewPort()
	p.SetRoom(2)
	out := make([]frame.Out, 3)
	for i := range out {
		out[i].Frame = &frame.Frame{Data: hello}
	}
	if n := p.Tx(0, out); n != 2 || p.Tx(0, out) != 0 || len(p.Wait(2)) != 2 {
		t.Errorf("Tx = %d with room for 2", n)
	}
	if p.Cut(true); p.State().Up {
		t.Error("up without a cable")
	}
}
