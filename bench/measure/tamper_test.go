package measure

import (
	"errors"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// forwarder is a contender of two ports that hands every frame from one to the
// other, the way its tamper function sees fit.
type forwarder struct {
	// tamper gets the n-th frame and returns what is to be sent in its place.
	tamper func(n int, frame []byte) [][]byte
	fds    [2]int
	stop   atomic.Bool
	done   sync.WaitGroup
}

func (f *forwarder) Name() string     { return "forwarder" }
func (f *forwarder) Processes() []int { return nil }

func (f *forwarder) Attach(t *topo.Topology) error {
	for i := range f.fds {
		err := t.Switch.Do(func() (err error) {
			f.fds[i], err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			index := 0
			if err := t.Do(func() { index = t.Switch.Index(t.Ports[i].Name) }); err != nil {
				return err
			}
			const all = unix.ETH_P_ALL << 8 // in network byte order
			return errors.Join(
				unix.SetsockoptInt(f.fds[i], unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
				unix.SetsockoptInt(f.fds[i], unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
				unix.SetsockoptInt(f.fds[i], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20),
				unix.Bind(f.fds[i], &unix.SockaddrLinklayer{Ifindex: index, Protocol: all}),
			)
		})
		if err != nil {
			return err
		}
	}
	for i := range f.fds {
		f.done.Go(func() { f.forward(f.fds[i], f.fds[1-i]) })
	}
	return nil
}

func (f *forwarder) forward(in, out int) {
	b := make([]byte, 2048)
	for n := 0; !f.stop.Load(); {
		k, err := unix.Read(in, b)
		if err != nil {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}}, 20); err != nil && err != unix.EINTR {
				return
			}
			continue
		}
		for _, frame := range f.tamper(n, b[:k]) {
			for {
				if _, err := unix.Write(out, frame); err != unix.EAGAIN && err != unix.ENOBUFS {
					break
				}
			}
		}
		n++
	}
}

func (f *forwarder) Detach() error {
	f.stop.Store(true)
	f.done.Wait()
	return errors.Join(unix.Close(f.fds[0]), unix.Close(f.fds[1]))
}

// faultsOf runs the checks of the throughput test on a forwarder and returns its
// faults.
func faultsOf(t *testing.T, tamper func(n int, frame []byte) [][]byte) []string {
	t.Helper()
	netns.RequirePrivilege(t)
	s := session(50*time.Millisecond, 2, kind("forwarder", &forwarder{tamper: tamper}))
	g, err := s.Assemble(t.Context(), s.Entrants, topo.Spec{Ports: 2})
	if err != nil || len(g) != 1 {
		t.Fatalf("%d rigs, error %v, notes %v", len(g), err, s.Results.Notes)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := new(audit).Measure(t.Context(), s, g); err != nil {
		t.Fatal(err)
	}
	return s.Results.Contender("forwarder").Faults
}

// kind is a contender made for a test.
func kind(name string, s subject.Subject) subject.Kind {
	return subject.Kind{
		Name: name, Family: "test", About: "made for this test",
		Absent: func() error { return nil }, Version: func() string { return "1" },
		New: func() subject.Subject { return s },
	}
}

func once(frame []byte) [][]byte { return [][]byte{frame} }

func TestHonestForwarderHasNoFault(t *testing.T) {
	if f := faultsOf(t, func(_ int, frame []byte) [][]byte { return once(frame) }); len(f) != 0 {
		t.Errorf("faults %q of a forwarder that has none", f)
	}
}

func TestTamperingIsCaughtAndNamed(t *testing.T) {
	for what, tamper := range map[string]func(n int, frame []byte) [][]byte{
		"dropped": func(n int, frame []byte) [][]byte {
			if n%100 == 99 {
				return nil
			}
			return once(frame)
		},
		"duplicated": func(n int, frame []byte) [][]byte {
			if n%100 == 99 {
				return [][]byte{frame, frame}
			}
			return once(frame)
		},
		"corrupted": func(n int, frame []byte) [][]byte {
			if n%100 == 99 {
				frame[len(frame)-1] ^= 0x80
			}
			return once(frame)
		},
		"reordered": func() func(int, []byte) [][]byte {
			var held []byte
			return func(n int, frame []byte) [][]byte { // ten stations take turns
				switch n % 100 {
				case 50:
					held = append([]byte(nil), frame...)
					return nil
				case 60:
					return [][]byte{frame, held}
				}
				return once(frame)
			}
		}(),
	} {
		t.Run(what, func(t *testing.T) {
			faults := faultsOf(t, tamper)
			if len(faults) == 0 || !strings.Contains(faults[0], what) {
				t.Errorf("faults %q, want one that says %q", faults, what)
			}
			for _, f := range faults {
				if !strings.Contains(f, "(1 %)") && !strings.Contains(f, "(0.9") && !strings.Contains(f, "(1.") {
					t.Errorf("fault %q, want about 1 %%", f)
				}
			}
		})
	}
}

func TestFaultyContenderGetsNoRatio(t *testing.T) {
	r := &report.Report{Refer: "a", Contenders: []report.Contender{{Name: "a"}, {Name: "b", Faults: []string{"dropped"}}}}
	for round := range 5 {
		r.Add(metricReceived, report.Case{}, "a", round, 100)
		r.Add(metricReceived, report.Case{}, "b", round, 140)
	}
	r.Summarise()
	for _, s := range r.Series {
		if got := s.Ratio.String(); s.Contender == "b" && got != "faulty" {
			t.Errorf("ratio of a faulty contender is given as %q", got)
		}
	}
}

// quitter is a contender whose process ends by itself after a while.
type quitter struct {
	forwarder
	proc *netns.Proc
}

func (q *quitter) Name() string     { return "quitter" }
func (q *quitter) Processes() []int { return []int{q.proc.Pid()} }

func (q *quitter) Attach(t *topo.Topology) error {
	var end sync.Once
	q.tamper = func(n int, frame []byte) [][]byte {
		if n > 1000 { // far more than it takes to attach it
			end.Do(q.proc.Kill)
		}
		return once(frame)
	}
	if err := t.Do(func() { q.proc = t.Switch.Start(exec.Command("sleep", "3600")) }); err != nil {
		return err
	}
	return q.forwarder.Attach(t)
}

func TestContenderThatEndsIsFaultyAndTheOthersGoOn(t *testing.T) {
	netns.RequirePrivilege(t)
	s := session(10*time.Millisecond, 3, kind("quitter", &quitter{}), subject.Kinds("veth")[1])
	g, err := s.Assemble(t.Context(), s.Entrants, topo.Spec{Ports: 2})
	if err != nil || len(g) != 2 {
		t.Fatalf("%d rigs, error %v", len(g), err)
	}
	// It ends in the middle of the first case, and is not there in the second.
	for _, size := range []string{"64", "1518"} {
		full := fullLoad{{Size: size, Flows: 1, Source: "af_packet", Load: "full"}}
		if err := full.Measure(t.Context(), s, g); err != nil {
			t.Fatalf("%s bytes: %v", size, err)
		}
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	values := map[string]int{}
	for _, series := range s.Results.Series {
		if series.Metric == metricReceived {
			values[series.Contender] += len(series.Values)
		}
	}
	if values["quitter"] != 0 || values["kernel"] != 6 {
		t.Errorf("values %v, want 3 in each case of the kernel's bridge only", values)
	}
	if f := s.Results.Contender("quitter").Faults; len(f) != 1 {
		t.Errorf("faults %q, want one", f)
	}
}
