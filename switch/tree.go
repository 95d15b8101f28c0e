package vswitch

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// startTree makes the bridge that cfg.STP asks for and gives it the ports. With
// mode off there is none, and every port forwards. Called with s.mu held.
func (s *Switch) startTree() error {
	cfg, err := s.cfg.STP.bridge(s.cfg.MAC)
	if err != nil {
		return err
	}
	s.tree = nil
	if s.cfg.STP.Mode != ModeOff {
		if s.tree, err = stp.New(cfg); err != nil {
			return err
		}
	}
	s.root = cfg.ID
	s.shortAgeing = 0
	s.applyAgeing()
	for _, p := range s.slots {
		if p != nil {
			p.role, p.shown = stp.RoleDisabled, stp.StateDisabled
			s.treePort(p)
		}
	}
	return nil
}

// SetSTP replaces the bridge's parameters; zeros are the defaults, so change a
// copy of what STP returns. A change takes effect at once, as 17.13 says. What is
// to be said against times that are taken is in the log and among Warnings.
func (s *Switch) SetSTP(c STPConfig) error {
	c.fill()
	s.mu.Lock()
	defer s.mu.Unlock()
	if least := time.Duration(leastDelay(int(c.MaxAge/time.Second))) * time.Second; c.Mode != ModeOff && s.tree == nil &&
		c.ForwardDelay == s.cfg.STP.ForwardDelay && c.ForwardDelay < least {
		s.log.Info("forward delay raised: it was set while there was no tree", "from", c.ForwardDelay, "to", least)
		c.ForwardDelay = least
	}
	cfg, err := c.bridge(s.cfg.MAC)
	if err != nil {
		return fmt.Errorf("set stp: %w", err)
	}
	on, was := c.Mode != ModeOff, s.tree != nil
	warned := s.warnTimes()
	defer s.noteSwitch(s.cfg)
	s.cfg.STP = c
	if on && was {
		if err := s.tree.SetConfig(cfg); err != nil {
			return fmt.Errorf("set stp: %w", err)
		}
	} else if on != was {
		if err := s.startTree(); err != nil {
			return fmt.Errorf("set stp: %w", err)
		}
	}
	s.settle()
	if text := s.warnTimes(); text != "" && text != warned {
		s.log.Warn(text)
	}
	return nil
}

// treePort tells the tree of a port's state and configuration, or opens it when
// there is no tree. Called with s.mu held; settle makes it so.
func (s *Switch) treePort(p *port) {
	if p.id == hostPort {
		return
	}
	if s.tree == nil {
		p.learning, p.forwarding, p.guard = true, true, ""
		return
	}
	if err := s.tree.SetPort(uint16(p.id), s.stpPort(p, p.cfg)); err != nil {
		// The words were checked when they were set; a device can't say more
		// than link, speed and duplex.
		s.log.Error("tell the spanning tree of a port", "port", p.name, "err", err)
	}
}

func (s *Switch) treeRemove(p *port) {
	if s.tree != nil && p.id != hostPort {
		s.tree.RemovePort(uint16(p.id))
	}
}

// settle puts in force what the calls before it brought about. Called with s.mu
// held, after anything that the workers must know of has changed.
func (s *Switch) settle() {
	outputs := s.drainTree()
	s.applyTree(outputs)
	s.publish()
	s.announceTree(outputs)
}

// settleBPDU is settle for when nothing but the tree was touched: most BPDUs
// and ticks change nothing, and cost the workers nothing.
func (s *Switch) settleBPDU() {
	outputs := s.drainTree()
	if s.applyTree(outputs) {
		s.publish()
	}
	s.announceTree(outputs)
}

func (s *Switch) drainTree() []stp.Output {
	if s.tree == nil {
		return nil
	}
	return s.tree.Outputs()
}

// applyTree takes over states and flushes; it reports whether there were any.
// They are in force once they are published, all at once.
func (s *Switch) applyTree(outputs []stp.Output) (changed bool) {
	for _, o := range outputs {
		switch o := o.(type) {
		case stp.SetState:
			if p := s.at(o.Port); p != nil {
				p.learning, p.forwarding = o.Learning, o.Forwarding
				p.guard = guardName(o.Guard)
				changed = true
			}
		case stp.Flush:
			if p := s.at(o.Port); p != nil {
				n := s.table.PortLen(o.Port)
				s.table.Flush(o.Port)
				s.feed.publish(Event{Event: EventFDBFlush, Port: p.name, Count: n, Reason: "topology change"})
				changed = true
			}
		case stp.SetAgeing:
			s.shortAgeing = o.Seconds
			s.applyAgeing()
		}
	}
	return changed
}

// announceTree sends the BPDUs, which may leave only when the states that they
// announce are in force, and tells people.
func (s *Switch) announceTree(outputs []stp.Output) {
	for _, o := range outputs {
		switch o := o.(type) {
		case stp.SendBPDU:
			if p := s.at(o.Port); p != nil {
				p.spoke = s.uptime() // before whoever hears it counts
				s.sendBPDU(p, o.PDU)
			}
		case stp.Event:
			s.treeEvent(o)
		}
	}
}

func guardName(g stp.Guard) string {
	if g == stp.NoGuard {
		return ""
	}
	return g.String()
}

// BPDUs on the wire: 802.3 with an LLC header (802.1D-2004 9.2.1, 7.12).
const (
	bpduHeaderLen = frame.HeaderLen + 3
	bpduFrameLen  = 60
	maxPDU        = 64 // the tree sends none longer than 36 octets
)

// sendBPDU sends pdu from p to the bridge group address. A port that can't take
// it now loses it, as a wire would.
func (s *Switch) sendBPDU(p *port, pdu []byte) {
	var buf [bpduFrameLen + maxPDU]byte
	copy(buf[:6], []byte{0x01, 0x80, 0xc2, 0, 0, 0})
	src := p.state.MAC
	if !src.IsUnicast() {
		src = s.cfg.MAC
	}
	copy(buf[6:12], src[:])
	binary.BigEndian.PutUint16(buf[12:14], uint16(3+len(pdu)))
	copy(buf[14:17], []byte{0x42, 0x42, 0x03})
	n := bpduHeaderLen + copy(buf[bpduHeaderLen:], pdu)
	f := frame.Frame{Data: buf[:max(n, bpduFrameLen)]}
	p.dev.Tx(0, []frame.Out{{Frame: &f}})
}

// mend is what to do about a port that a guard holds, "" if none does.
func (s *Switch) mend(port string, g stp.Guard) string {
	if g == stp.NoGuard {
		return ""
	}
	return s.cfg.Words.Mend(port, g.String())
}

// told is the port that the tree has news of, nil if there is none.
func (s *Switch) told(n uint16) *port {
	if n == hostPort {
		return nil
	}
	if p := s.leaving; p != nil && p.id == int(n) {
		return p
	}
	return s.at(n)
}

// treeEvent tells people what the tree did.
func (s *Switch) treeEvent(e stp.Event) {
	p := s.told(e.Port)
	out := Event{Reason: e.Reason}
	if p != nil {
		out.Port = p.name
	}
	switch e.Kind {
	case stp.RoleChanged:
		out.Event, out.To = EventSTPRole, e.Role.String()
		if p != nil {
			out.From, p.role = p.role.String(), e.Role
		}
	case stp.StateChanged:
		out.Event, out.To = EventSTPState, e.State.String()
		if p != nil {
			out.From, p.shown = p.shown.String(), e.State
		}
	case stp.RootChanged:
		out.Event, out.From, out.To = EventSTPRoot, s.root.String(), e.Root.String()
		s.root = e.Root
		s.log.Info("spanning tree root", "root", out.To, "root_port", out.Port)
	case stp.TopologyChanged:
		from := e.Bridge
		if from == (stp.BridgeID{}) {
			from = s.bridgeID() // nobody told of it: it was seen here
		}
		out.Event, out.From = EventSTPChange, from.String()
	case stp.GuardTripped:
		out.Event, out.To, out.Mend = EventGuardTrip, e.Guard.String(), s.mend(out.Port, e.Guard)
		if e.Bridge != (stp.BridgeID{}) {
			out.From = e.Bridge.String()
		}
		if p != nil {
			from := p.bpduFrom
			out.MAC = &from
		}
		s.log.Warn("guard holds port", "port", out.Port, "guard", out.To, "mac", out.MAC, "bridge", out.From, "reason", e.Reason, "mend", out.Mend)
	case stp.GuardCleared:
		out.Event, out.Reason = EventGuardClear, e.Guard.String()
		s.log.Info("guard lets go of port", "port", out.Port, "guard", e.Guard.String())
	case stp.VersionChanged, stp.EdgeChanged:
		return // seen in stp show
	}
	s.feed.publish(out)
}

// bridgeID is the switch's own identifier.
func (s *Switch) bridgeID() stp.BridgeID {
	return stp.BridgeID{Priority: s.cfg.STP.Priority, Addr: s.cfg.MAC}
}
