package vswitch

import (
	"context"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// control is the control side's goroutine: it hears BPDUs, follows ports, and
// keeps the time, until ctx ends. Calls from outside work beside it, under the
// same lock.
func (s *Switch) control(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.punts:
			s.hear(p)
		case <-s.poke:
			s.followAll()
		case <-second.C:
			if s.tick() {
				second.Reset(time.Second) // the next may be due already
			}
		}
	}
}

// maxCatchUp is the most seconds of spanning tree time replayed after a pause:
// longer than any of its timers.
const maxCatchUp = 60

// attend does what the control side would do now, for who has none.
func (s *Switch) attend() {
	for {
		select {
		case p := <-s.punts:
			s.hear(p)
		case <-s.poke:
			s.followAll()
		default:
			return
		}
	}
}

// Punt is relay.Control's: a frame for the control side.
func (s *Switch) Punt(p *relay.Punt) bool {
	select {
	case s.punts <- *p:
		return true
	default:
		return false
	}
}

// Learned is relay.Control's: it tells what learning a source changed. An event
// that nobody reads is only counted.
func (s *Switch) Learned(v *relay.View, key fdb.Key, in uint16, moved bool, from uint16) {
	if moved {
		s.feed.fdb(EventFDBMove, key, v.PortName(in), v.PortName(from))
	} else {
		s.feed.fdb(EventFDBLearn, key, v.PortName(in), "")
	}
}

// evicted is the table's: an entry gave way to a new one. The station is forgotten
// as if it had aged, and its port's share of the table is used up.
func (s *Switch) evicted(e fdb.Entry) {
	v := s.view.Load()
	s.feed.fdb(EventFDBAge, fdb.MakeKey(e.MAC, e.VID), v.PortName(e.Port), "")
	if int(e.Port) < len(v.Ports) && v.Ports[e.Port].Troubles != nil {
		v.Ports[e.Port].Troubles[relay.TableFull].Add(1)
		s.Troubled()
	}
}

// Troubled is relay.Control's.
func (s *Switch) Troubled() {
	if !s.trouble.Load() { // read by all, written once a second
		s.trouble.Store(true)
	}
}

// uptime is how long ago the switch was made, by its clock.
func (s *Switch) uptime() time.Duration { return s.cfg.Clock.Now().Sub(s.started) }

// now is the switch's coarse clock: whole seconds since it was made.
func (s *Switch) now() uint32 { return uint32(s.uptime() / time.Second) }

// hear gives a BPDU, and those that already wait behind it, to the tree.
func (s *Switch) hear(p relay.Punt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hearAll(p)
}

// hearAll is hear, called with s.mu held.
func (s *Switch) hearAll(p relay.Punt) {
	for n := 0; ; n++ {
		p.Owner.Heard(p.Kind)
		// Another port may have the number by now.
		if port := s.at(p.Port); s.tree != nil && port != nil && &port.punts == p.Owner {
			port.bpduFrom = p.Source()
			// What is wrong with a BPDU is counted by the tree, per port.
			_ = s.tree.Receive(p.Port, p.PDU())
			s.settleBPDU()
		}
		if n == puntQueue {
			return
		}
		select {
		case p = <-s.punts:
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

// tick is what is due once a second. A process that was stopped for a while
// catches up, so that timers keep their meaning; what is far too old is not
// replayed. It reports that the follower missed a beat: the next must be a whole
// second later.
func (s *Switch) tick() (late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	elapsed := min(now-s.ticked, maxCatchUp)
	s.ticked = now
	s.table.Advance(now, func(e fdb.Entry) {
		if p := s.at(e.Port); p != nil {
			s.feed.fdb(EventFDBAge, fdb.MakeKey(e.MAC, e.VID), p.name, "")
		}
	})
	for _, p := range s.slots {
		if p != nil {
			p.punts.Refill()
			s.announceRefusals(p)
		}
	}
	s.announceTroubles()
	for range elapsed {
		if s.tree != nil {
			s.tree.Tick()
			s.settleBPDU()
		}
	}
	s.beat()
	return s.late
}

// beat tells the follower how long it may go on without hearing of the switch.
// With a tree that is until the neighbours, which age out what a bridge said after
// three hello times, count this switch out and open ports instead: from then on
// whoever still forwards here would close a loop. Without one it is as long as
// stations are remembered.
//
// When a beat was missed, the control side first hears what waited for it: in the
// second until now the workers took it from the ports, and those that took it are
// waited for by publish.
func (s *Switch) beat() {
	f := s.cfg.Follower
	if f == nil {
		return
	}
	if s.late {
		s.publish()
		select {
		case p := <-s.punts:
			s.hearAll(p)
		default:
		}
	}
	d := max(s.cfg.Ageing, shortestTrust)
	if s.tree != nil {
		d = 3*s.cfg.STP.Hello - s.silence()
	}
	s.late = !f.Beat(d)
}

// shortestTrust lets a beat be late by more than it takes to the next.
const shortestTrust = 3 * time.Second

// silence is how long ago the last BPDU left by the port that has said nothing for
// longest, of those that have something to say. That is every hello time, or a
// second later where BPDUs are too many at once.
func (s *Switch) silence() (longest time.Duration) {
	now := s.uptime()
	for _, p := range s.slots {
		if p == nil {
			continue
		}
		if d := now - p.spoke; d <= s.cfg.STP.Hello+time.Second {
			longest = max(longest, d)
		}
	}
	return longest
}
