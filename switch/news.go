package vswitch

import (
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// newsEvery is how many seconds pass between two reports of one thing at one
// port: a peer can bring about what is reported a hundred thousand times a second.
const newsEvery = 10

// reported is what was told of something that is counted.
type reported struct {
	count uint64 // what the count was
	at    uint32 // when, by the coarse clock
}

// news is how much n is more than what was told, if it is time to tell again.
func (r *reported) news(n uint64, now uint32) (more int, due bool) {
	if n == r.count || r.count > 0 && now-r.at < newsEvery {
		return 0, false
	}
	more = int(n - r.count)
	r.count, r.at = n, now
	return more, true
}

// announceRefusals tells of what a port refused its peer since it last did.
// Called with s.mu held, every second.
func (s *Switch) announceRefusals(p *port) {
	r, ok := p.dev.(frame.Refuser)
	if !ok {
		return
	}
	n, why := r.Refusals()
	times, due := p.refused.news(n, s.now())
	if !due {
		return
	}
	s.log.Warn("port refused its peer", "port", p.name, "times", times, "last", why)
	s.feed.publish(Event{Event: EventPortRefuse, Port: p.name, Count: times, Reason: why})
}

// announceTroubles tells of what frames brought that an operator ought to know.
// Called with s.mu held, every second.
func (s *Switch) announceTroubles() {
	if !s.trouble.Swap(false) {
		return
	}
	for _, p := range s.slots {
		if p == nil {
			continue
		}
		for i := range p.troubles {
			n := p.troubles[i].Load()
			times, due := p.told[i].news(n, s.now())
			if due {
				s.announceTrouble(p, relay.Trouble(i), times)
			} else if n != p.told[i].count {
				s.trouble.Store(true) // told when it is time
			}
		}
	}
}

func (s *Switch) announceTrouble(p *port, what relay.Trouble, times int) {
	e := Event{Event: EventFDBFull, Port: p.name, Count: times}
	text := "stations are not learned, what is for them is flooded"
	switch what {
	case relay.TableFull:
		text = "stations give way to others, or are not learned; what is for them is flooded"
		e.Reason = fmt.Sprintf("the table has its %d stations", s.cfg.MaxEntries)
	case relay.PortFull:
		e.Reason = fmt.Sprintf("the port has its %d stations", p.cfg.maxLearned())
	case relay.OwnAddress:
		text = "frames from the switch's own address came in"
		e.Event, e.Reason = EventPortOwn, "a loop, or another station with the switch's address"
		if s.tree == nil {
			e.Reason += "; the spanning tree, which ends loops, is off"
		}
	}
	s.log.Warn(text, "port", p.name, "times", times, "reason", e.Reason)
	s.feed.publish(e)
}
