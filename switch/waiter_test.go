package vswitch_test

import (
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// eager is a port whose peer sends in the moment in which it may.
type eager struct {
	*mem.Port
	told chan frame.State
}

func (e eager) Acted(on frame.State) {
	if on.Up {
		e.Inject(mem.Ethernet(bcast, macB, "first"))
	}
	e.told <- on
}

// What a port lends from Acted on is forwarded, and Acted follows every
// notification: a port that came back while nobody looked waits for it, too.
func TestPortIsToldWhenItsStateIsInForce(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 1)
	e := eager{mem.NewPort(), make(chan frame.State, 4)}
	if _, err := l.AddPort("p2", e, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	l.ports = append(l.ports, e.Port)
	if on := <-e.told; !on.Up {
		t.Fatalf("told of %+v when the port was added", on)
	}
	for _, change := range []func(*frame.State){
		func(s *frame.State) { s.Up = false },
		func(s *frame.State) { s.Up = true },
		func(*frame.State) {},
	} {
		l.settle() // what it sent while it was up
		e.SetState(change)
		if on := <-e.told; on != e.State() {
			t.Fatalf("told of %+v, the state is %+v", on, e.State())
		}
	}
	l.settle()
	if got := len(l.ports[0].Sent()); got != 3 {
		t.Errorf("%d of 3 first frames were forwarded", got)
	}
	if n := l.drops(2, "port-state"); n != 0 {
		t.Errorf("%d frames came too early", n)
	}
}
