package vswitch

import (
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Explanation is what would happen to a frame, and why.
type Explanation struct {
	In      string
	VLAN    uint16
	Verdict relay.Verdict
	Out     []string // ports it would leave by; never nil
	Reason  relay.Reason
	Steps   []relay.Step
}

// Explain says what the switch would do at this moment with a frame that came in
// by port in. It is the code that forwards, which then learns, counts and sends
// nothing.
func (s *Switch) Explain(in string, f frame.Frame) (Explanation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(in)
	if p == nil {
		return Explanation{}, s.noPort(in)
	}
	if len(f.Data) > frame.MaxLen {
		return Explanation{}, fmt.Errorf("explain a frame of %d bytes: a frame has at most %d", len(f.Data), frame.MaxLen)
	}
	v := s.view.Load()
	r := relay.New(0, s.table, s)
	r.Adopt(v)
	x := r.Explain(uint16(p.id), f)
	e := Explanation{In: in, VLAN: x.VLAN, Verdict: x.Verdict, Out: []string{}, Reason: x.Reason, Steps: x.Steps}
	for _, n := range x.Out {
		e.Out = append(e.Out, v.PortName(n))
	}
	return e, nil
}
