package vswitch

import (
	"context"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
)

// control is the control side's goroutine: it hears BPDUs, follows ports, and
// keeps the time, until ctx ends. Calls from outside work beside it, under the
// same lock.
func (s *Switch) control(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	last := s.now()
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-s.bpdus:
			s.hear(b)
		case <-s.poke:
			s.followAll()
		case <-second.C:
			// A process that was stopped for a while catches up, so that timers
			// keep their meaning; what is far too old is not replayed.
			now := s.now()
			s.tick(min(now-last, maxCatchUp))
			last = now
		}
	}
}

// maxCatchUp is the most seconds of spanning tree time replayed after a pause:
// longer than any of its timers.
const maxCatchUp = 60

// now is the switch's coarse clock: whole seconds since it was made.
func (s *Switch) now() uint32 { return uint32(time.Since(s.started) / time.Second) }

// hear gives a BPDU, and those that already wait behind it, to the tree.
func (s *Switch) hear(b bpdu) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := 0; ; n++ {
		b.port.bpdus.heard()
		if s.tree != nil && s.at(uint16(b.port.id)) == b.port {
			b.port.bpduFrom = b.from
			// What is wrong with a BPDU is counted by the tree, per port.
			_ = s.tree.Receive(uint16(b.port.id), b.pdu[:b.len])
			s.settleBPDU()
		}
		if n == bpduQueue {
			return
		}
		select {
		case b = <-s.bpdus:
		default:
			return
		}
	}
}

// followAll acts on every port whose device says that its state changed.
func (s *Switch) followAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.slots {
		if p != nil && p.changed.Swap(false) {
			s.follow(p)
		}
	}
}

// tick is what happens once a second; elapsed is how many passed.
func (s *Switch) tick(elapsed uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Advance(s.now(), func(e fdb.Entry) {
		if p := s.at(e.Port); p != nil {
			s.feed.fdb(EventFDBAge, fdb.MakeKey(e.MAC, e.VID), p.name, "")
		}
	})
	for _, p := range s.slots {
		if p != nil {
			p.bpdus.spent.Store(0)
			s.announceRefusals(p)
		}
	}
	if s.tree == nil {
		return
	}
	for range elapsed {
		s.tree.Tick()
		s.settleBPDU()
	}
}
