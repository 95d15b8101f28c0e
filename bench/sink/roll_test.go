package sink

import (
	"testing"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/switch/frame"
)

func TestRollHearsStationsOfItsPort(t *testing.T) {
	r := NewRoll(1, 5)
	enter := func(dst, src frame.MAC) {
		tmpl := probe.Build(make([]byte, 60), false, 0)
		tmpl.Stamp(dst, src, 0, 0)
		r.Enter(tmpl.Bytes())
	}
	enter(probe.Station(1, 3), probe.Station(0, 0))
	enter(probe.Station(2, 1), probe.Station(0, 0)) // another port's
	enter(probe.Station(1, 9), probe.Station(0, 0)) // not called
	enter(probe.Station(1, 2), frame.MAC{0x52, 0x54, 0, 0, 0, 1})
	enter(frame.Broadcast, probe.Station(0, 0))
	r.Enter(nil)
	for s := range 5 {
		if r.Heard(s) != (s == 3) {
			t.Errorf("station %d: heard %v", s, r.Heard(s))
		}
	}
}
