package vswitch

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// torusLab is side times side switches, each with one station and cables to four
// neighbours, driven by hand on a clock that the test moves.
type torusLab struct {
	t        *testing.T
	now      time.Time
	switches []*Switch
	hands    []*Hand
	stations []*mem.Port
	cables   []*mem.Port // one end of each
}

func newTorusLab(t *testing.T, side int) *torusLab {
	n := side * side
	l := &torusLab{t: t, now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	for i := range n {
		s, err := New(Config{Name: fmt.Sprintf("sw%d", i), MAC: mem.MAC(1000 + i), Logger: quiet, Clock: l})
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Hand()
		if err != nil {
			t.Fatal(err)
		}
		l.switches, l.hands = append(l.switches, s), append(l.hands, h)
		l.stations = append(l.stations, mem.NewPort())
		l.add(i, "station", l.stations[i], false)
	}
	for i := range n {
		row, col := i/side, i%side
		for _, far := range []int{row*side + (col+1)%side, (row+1)%side*side + col} {
			a, b := mem.NewCable()
			l.add(i, fmt.Sprintf("to%d", far), a, true)
			l.add(far, fmt.Sprintf("from%d", i), b, true)
			l.cables = append(l.cables, a)
		}
	}
	return l
}

// Now is the clock's.
func (l *torusLab) Now() time.Time { return l.now }

func (l *torusLab) add(i int, name string, p *mem.Port, uplink bool) {
	cfg := NewPortConfig("memory")
	cfg.Uplink = uplink
	if _, err := l.switches[i].AddPort(name, p, cfg); err != nil {
		l.t.Fatal(err)
	}
}

// pass moves the clock by d, a second at a time, and lets all frames come to rest
// after each.
func (l *torusLab) pass(d time.Duration) {
	for range d / time.Second {
		l.now = l.now.Add(time.Second)
		for _, h := range l.hands {
			h.Tick()
		}
		l.rest()
	}
}

func (l *torusLab) rest() {
	for turns := 0; ; turns++ {
		frames := 0
		for _, h := range l.hands {
			frames += h.Turn()
		}
		if frames == 0 {
			return
		}
		if turns == 10000 {
			l.t.Fatal("frames never come to rest: there is a loop")
		}
	}
}

// broadcast sends one from station i and checks that every other gets it once.
func (l *torusLab) broadcast(when string, i int) {
	l.t.Helper()
	for _, p := range l.stations {
		p.Sent()
	}
	l.stations[i].Inject(mem.Ethernet(frame.Broadcast, mem.MAC(i), "hello"))
	l.rest()
	for j, p := range l.stations {
		hellos := 0
		for _, r := range p.Sent() {
			if frame.MAC(r.Wire[:6]) == frame.Broadcast {
				hellos++
			}
		}
		want := 1
		if i == j {
			want = 0
		}
		if hellos != want {
			l.t.Fatalf("%s: station %d got the broadcast of %d %d times, want %d", when, j, i, hellos, want)
		}
	}
}

// A hundred switches with their spanning tree run in one goroutine, on a clock
// that is moved by hand, and cost neither goroutine nor descriptor.
func TestAHundredSwitchesOnAClockMovedByHand(t *testing.T) {
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	l := newTorusLab(t, 10)
	l.pass(60 * time.Second)
	if n := descriptors(); n > fds {
		t.Errorf("%d descriptors are open, %d were before", n, fds)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines run, %d did before", n, goroutines)
	}
	root := l.switches[0].Status().BridgeID
	for _, s := range l.switches {
		if st := s.Status(); st.STP.RootID != root || st.UptimeS != 60 {
			t.Fatalf("%s: root %s after %v s, want %s", st.Name, st.STP.RootID, st.UptimeS, root)
		}
	}
	l.broadcast("at first", 17)
	for i := range 10 {
		l.cables[i*7].Cut(true)
		l.pass(3 * time.Second)
		l.broadcast(fmt.Sprintf("cable %d cut", i*7), 3*i)
		l.cables[i*7].Cut(false)
		l.pass(3 * time.Second)
	}
	l.broadcast("all mended", 99)
}
