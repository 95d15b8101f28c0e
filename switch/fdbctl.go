package vswitch

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// SetAgeing sets how long a station is remembered after its last frame: whole
// seconds, 1s to 1000000s (802.1Q table 8-6), or AgeingOff.
func (s *Switch) SetAgeing(d time.Duration) error {
	if err := checkAgeing(d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.noteSwitch(s.cfg)
	s.cfg.Ageing = d
	s.applyAgeing()
	return nil
}

// applyAgeing puts the ageing time in force: the configured one, or the short
// one while mode STP's topology change lasts.
func (s *Switch) applyAgeing() {
	d := s.cfg.ageing()
	if s.shortAgeing > 0 {
		d = min(d, s.shortAgeing)
	}
	s.table.SetAgeing(d)
}

// FDB lists the stations known, by address and VLAN; those of one port or one
// VLAN if portName is not "" or vlan not 0.
func (s *Switch) FDB(portName string, vlan uint16) ([]FDBEntry, error) {
	list := []FDBEntry{}
	err := s.EachFDB(portName, vlan, func(e FDBEntry) error {
		list = append(list, e)
		return nil
	})
	return list, err
}

// fdbPage is how many stations EachFDB takes out of the table at once: all of a
// table of the default size, for a megabyte and a half.
const fdbPage = 1 << 16

// EachFDB calls each with what FDB lists, one after the other, and ends with the
// first error of it. Nothing waits while it does, and it holds no more than 1.5 MB
// (3 MB while it walks), however large the table is and however slow each: what
// changes meanwhile is shown as before or as after.
func (s *Switch) EachFDB(portName string, vlan uint16, each func(FDBEntry) error) error {
	return s.eachFDB(portName, vlan, fdbPage, each)
}

func (s *Switch) eachFDB(portName string, vlan uint16, page int, each func(FDBEntry) error) error {
	var after *fdb.Entry
	for {
		// Walking and sorting millions of entries takes seconds, in which the tree
		// must go on: only the ports are looked at under the lock, before and after.
		before, _, only, err := s.attached(portName)
		if err != nil {
			return err
		}
		entries := s.table.Page(after, page, func(e *fdb.Entry) bool {
			return (only == nil || int(e.Port) == only.id) && (vlan == 0 || e.VID == vlan)
		})
		now, names, _, _ := s.attached("")
		for _, e := range entries {
			if int(e.Port) >= min(len(before), len(now)) {
				continue
			}
			p := before[e.Port]
			if p == nil || p != now[e.Port] {
				continue
			}
			if err := each(FDBEntry{MAC: e.MAC, VLAN: e.VID, Port: names[e.Port], Type: e.Kind.String(), AgeS: float64(e.Age)}); err != nil {
				return err
			}
		}
		if len(entries) < page {
			return nil
		}
		after = &entries[len(entries)-1]
	}
}

// attached are the ports and what they are called, by number, and the one called
// name if it is not "".
func (s *Switch) attached(name string) (all []*port, names []string, named *port, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "" {
		if named = s.find(name); named == nil {
			return nil, nil, nil, s.noPort(name)
		}
	}
	names = make([]string, len(s.slots))
	for i, p := range s.slots {
		if p != nil {
			names[i] = p.name
		}
	}
	return slices.Clone(s.slots), names, named, nil
}

// at is the port with number n, or nil.
func (s *Switch) at(n uint16) *port {
	if int(n) >= len(s.slots) {
		return nil
	}
	return s.slots[n]
}

// AddFDB puts a station on a port: static stays there until DelFDB; otherwise
// it ages and moves as if learned. vlan 0 is the port's PVID, or the one VLAN
// of a switch that doesn't filter. The error is a NotMemberError if the port is
// not in that VLAN.
func (s *Switch) AddFDB(mac frame.MAC, vlan uint16, port string, static bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(port)
	if p == nil {
		return s.noPort(port)
	}
	if !mac.IsUnicast() {
		return fmt.Errorf("add %v: it is no station's address", mac)
	}
	if mac == s.cfg.MAC {
		return fmt.Errorf("add %v: it is the switch's own address", mac)
	}
	if vlan == 0 {
		vlan = DefaultVID
		if s.cfg.VLANFiltering {
			if vlan = p.cfg.VLAN.PVID; vlan == 0 {
				return fmt.Errorf("add %v: port %s has no PVID; name the VLAN", mac, port)
			}
		}
	}
	if err := s.checkVLAN(vlan); err != nil {
		return fmt.Errorf("add %v: %w", mac, err)
	}
	if s.cfg.VLANFiltering && !p.cfg.VLAN.Member.Has(vlan) {
		return fmt.Errorf("add %v: %w", mac, &NotMemberError{port, vlan})
	}
	key := fdb.MakeKey(mac, vlan)
	if static {
		if err := s.table.Set(key, uint16(p.id), fdb.Static); err != nil {
			return fmt.Errorf("add %v: %w", mac, err)
		}
		return nil
	}
	switch r, _ := s.table.Learn(key, fdb.Dest{Port: uint16(p.id), Gen: s.table.Gen(uint16(p.id))}); r {
	case fdb.Known, fdb.Added, fdb.Moved:
		return nil
	case fdb.Fixed:
		return fmt.Errorf("add %v: a static entry says otherwise; delete it first", mac)
	default:
		return fmt.Errorf("add %v: not learned: table limit reached (%v)", mac, r)
	}
}

// checkVLAN refuses a VLAN that this switch can't have entries in.
func (s *Switch) checkVLAN(vlan uint16) error {
	if vlan < MinVID || vlan > MaxVID {
		return fmt.Errorf("VLAN %d is not from %d to %d", vlan, MinVID, MaxVID)
	}
	if !s.cfg.VLANFiltering && vlan != DefaultVID {
		return fmt.Errorf("VLAN %d: the switch does not filter VLANs, all frames are in VLAN %d", vlan, DefaultVID)
	}
	return nil
}

// DelFDB forgets a station; vlan 0 is DefaultVID. The error is a NoEntryError
// if it is not known.
func (s *Switch) DelFDB(mac frame.MAC, vlan uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mac == s.cfg.MAC {
		return fmt.Errorf("delete %v: it is the switch's own address", mac)
	}
	assumed := false
	if vlan == 0 {
		vlan, assumed = DefaultVID, s.cfg.VLANFiltering // AddFDB without a VLAN takes the port's, so it may well be another
	}
	if _, ok := s.table.Delete(fdb.MakeKey(mac, vlan)); !ok {
		return fmt.Errorf("delete %v: %w", mac, &NoEntryError{vlan, assumed})
	}
	return nil
}

// FlushFDB forgets what was learned: everything, or one port's or VLAN's if
// port is not "" or vlan not 0. It returns how many entries went. Static
// entries stay.
func (s *Switch) FlushFDB(port string, vlan uint16) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, v := -1, -1
	if port != "" {
		p := s.find(port)
		if p == nil {
			return 0, s.noPort(port)
		}
		n = p.id
	}
	if vlan != 0 {
		v = int(vlan)
	}
	count := s.table.FlushMatch(n, v)
	s.feed.publish(Event{Event: EventFDBFlush, Port: port, VLAN: vlan, Count: count})
	return count, nil
}
