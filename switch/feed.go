package vswitch

import (
	"sync"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// feed hands events to whoever subscribed. Nobody who publishes ever waits: a
// subscriber that reads too slowly loses events and is told how many.
type feed struct {
	readers atomic.Int32 // so that workers can skip building events nobody reads
	clock   Clock
	mu      sync.Mutex
	subs    map[*subscriber]struct{}
}

type subscriber struct {
	events chan Event
	lost   int
}

// Subscribe starts a stream of events; buffer is how many may wait to be read
// (at least 1). When some were lost for want of room, the next event is
// EventEventsLost with their Count. cancel ends the stream and closes the
// channel; it may be called more than once.
func (s *Switch) Subscribe(buffer int) (events <-chan Event, cancel func()) {
	sub := &subscriber{events: make(chan Event, max(buffer, 1))}
	f := &s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = make(map[*subscriber]struct{})
	}
	f.subs[sub] = struct{}{}
	f.readers.Add(1)
	return sub.events, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.subs[sub]; ok {
			delete(f.subs, sub)
			f.readers.Add(-1)
			close(sub.events)
		}
	}
}

// Note puts an event of the caller's own into the feed: the attachment of a VM,
// for one. A zero Time is filled in.
func (s *Switch) Note(e Event) { s.feed.publish(e) }

func (f *feed) publish(e Event) {
	if f.readers.Load() == 0 {
		return
	}
	if e.Time.IsZero() {
		e.Time = f.clock.Now()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for sub := range f.subs {
		sub.offer(e)
	}
}

// offer gives the subscriber an event if there is room, news of losses first.
func (s *subscriber) offer(e Event) {
	if s.lost > 0 {
		select {
		case s.events <- Event{Time: e.Time, Event: EventEventsLost, Count: s.lost}:
			s.lost = 0
		default:
			s.lost++
			return
		}
	}
	select {
	case s.events <- e:
	default:
		s.lost++
	}
}

// fdb publishes what happened to one station.
func (f *feed) fdb(name string, key fdb.Key, port, from string) {
	if f.readers.Load() == 0 {
		return
	}
	mac := frame.MAC(key.MAC())
	f.publish(Event{Event: name, Port: port, From: from, MAC: &mac, VLAN: key.VID()})
}
