package vswitch

import (
	"sync"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/pump"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Hand drives a switch by hand, in place of Run: no goroutine, no thread, no
// descriptor, and time stands still unless Config.Clock says otherwise. For labs,
// tests, and whoever wants to see what happens when. Its methods are one
// goroutine's at a time; the switch's own calls work beside them.
type Hand struct {
	sw    *Switch
	mu    sync.Mutex // nothing is forwarded by an older view once take has returned
	relay *relay.Relay
	pump  *pump.Hand
	load  []*pump.Load
}

// Hand takes the switch in hand. It counts as running it: a switch runs once.
// Close it when done.
func (s *Switch) Hand() (*Hand, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayRun(); err != nil {
		return nil, err
	}
	h := &Hand{sw: s, relay: relay.New(0, s.table, s)}
	h.pump = pump.NewHand(h.relay)
	h.take(s.loads(s.view.Load()))
	s.hand = h
	return h, nil
}

// take makes loads what is forwarded by and served.
func (h *Hand) take(loads []*pump.Load) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.load = loads
	h.relay.Adopt(loads[0].View)
}

// Turn takes one batch of every queue through the switch, hears the BPDUs that
// were among them, and follows ports whose state changed. It returns how many
// frames it was, counting those cut from others.
func (h *Hand) Turn() (frames int) {
	h.mu.Lock()
	for _, l := range h.load {
		frames += h.pump.Turn(l.Queues)
	}
	frames += h.relay.Segments()
	h.mu.Unlock()
	h.sw.attend()
	return frames
}

// Forward takes frames through the switch as if they had come in by port number
// in. They are borrowed until it returns.
func (h *Hand) Forward(in int, frames []frame.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.relay.Forward(uint16(in), frames)
}

// Tick does what is due once a second, for as many seconds as have passed by
// Config.Clock since it was last done.
func (h *Hand) Tick() { h.sw.tick() }
