package vswitch

import (
	"fmt"
	"slices"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// A port goes by what its device is called today, which its owner may change; by
// the device's other names; and by the name that it was asked for under, as long
// as nobody else has that. A name never says which port it is for longer than a
// call holds the lock: number and *port do.

// find is the port that goes by name, or nil: what ports are called today counts
// more than what they were once.
func (s *Switch) find(name string) *port {
	if p := s.holder(name); p != nil {
		return p
	}
	return s.first(func(p *port) bool { return p.asked == name })
}

// holder is the port that has name now, as its own or as another name of its
// device, or nil.
func (s *Switch) holder(name string) *port {
	if p := s.first(func(p *port) bool { return p.name == name }); p != nil {
		return p
	}
	return s.first(func(p *port) bool { return slices.Contains(p.others, name) })
}

func (s *Switch) first(is func(*port) bool) *port {
	i := slices.IndexFunc(s.slots, func(p *port) bool { return p != nil && is(p) })
	if i < 0 {
		return nil
	}
	return s.slots[i]
}

// HasPort reports whether a port has that name now, so that no other can be added
// under it. A name that its device has lost to another does not count, although a
// verb still understands it while no other port has it.
func (s *Switch) HasPort(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holder(name) != nil
}

// deviceNames are what a port's device is called now, if it has names of its own.
func deviceNames(dev frame.Port) []string {
	if n, ok := dev.(frame.Namer); ok {
		return n.Names()
	}
	return nil
}

// christen gives a new port the name that its device has today, or, if another
// port has that, the one it was asked for under.
func (s *Switch) christen(p *port) {
	p.names = deviceNames(p.dev)
	p.name = p.asked
	if len(p.names) > 0 && s.holder(p.names[0]) == nil {
		p.name = p.names[0]
	}
	p.others = p.otherNames()
}

// otherNames are its device's names but for the one that the port is shown by.
func (p *port) otherNames() (list []string) {
	for _, n := range p.names {
		if n != p.name {
			list = append(list, n)
		}
	}
	return list
}

// rename gives every port its name of today after p's device has been renamed,
// has gone or has come. It reports whether that is news. Devices may have
// exchanged their names, of which one port hears before the other: names that are
// still taken are had when the other has heard, too. Called with s.mu held.
func (s *Switch) rename(p *port) bool {
	names := deviceNames(p.dev)
	if slices.Equal(names, p.names) {
		return false
	}
	p.names = names
	taken := map[string]*port{}
	claim := func(p *port, name string) bool {
		if q := taken[name]; q != nil {
			return q == p
		}
		taken[name] = p
		return true
	}
	var devices, waiting []*port
	for _, q := range s.slots {
		if q == nil {
			continue
		}
		if _, named := q.dev.(frame.Namer); !named {
			claim(q, q.asked)
		} else if len(q.names) > 0 {
			devices = append(devices, q)
		} else {
			waiting = append(waiting, q)
		}
	}
	for _, q := range devices {
		if !claim(q, q.names[0]) {
			waiting = append(waiting, q)
		} else {
			s.call(q, q.names[0])
		}
	}
	for _, q := range waiting {
		for _, name := range []string{q.asked, q.name, fmt.Sprintf("%s#%d", q.asked, q.id)} {
			if claim(q, name) {
				s.call(q, name)
				break
			}
		}
	}
	return true
}

// call makes name what the port is shown by.
func (s *Switch) call(p *port, name string) {
	if old := p.name; old != name {
		p.name = name
		s.log.Info("port is called otherwise now", "port", name, "was", old, "asked for", p.asked)
		s.feed.publish(Event{Event: EventPortRename, Port: name, From: old, To: name})
	}
	p.others = p.otherNames()
}
