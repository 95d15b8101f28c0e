package vswitch

import (
	"math"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/pump"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// publish makes the present state the one that is forwarded by, and returns
// when nobody uses an older one any more. Called with s.mu held.
func (s *Switch) publish() {
	v := s.buildView()
	s.view.Store(v)
	loads := s.loads(v)
	for i, w := range s.workers {
		w.Give(loads[i])
	}
	if s.hand != nil {
		s.hand.take(loads)
	}
	if f := s.cfg.Follower; f != nil {
		f.Follow(v)
	}
	for _, w := range s.workers {
		w.Await(v.Seq)
	}
}

// buildView makes the snapshot that the switch's present state asks for.
// Called with s.mu held.
func (s *Switch) buildView() *relay.View {
	s.seq++
	v := &relay.View{
		Seq:       s.seq,
		Filtering: s.cfg.VLANFiltering,
		Spanning:  s.tree != nil,
		Own:       relay.Word(s.cfg.MAC),
		Ports:     make([]relay.Port, len(s.slots)),
	}
	for n, p := range s.slots {
		if p != nil {
			c := &p.cfg
			v.SetPort(uint16(n), s.viewPort(p), [relay.NumClasses]bool{
				relay.Unknown: c.NoFlood, relay.Multicast: c.NoMulticastFlood, relay.Broadcast: c.NoBroadcastFlood})
		}
	}
	return v
}

// viewPort is p as the datapath shall see it.
func (s *Switch) viewPort(p *port) relay.Port {
	up := p.state.Up
	rp := relay.Port{
		Name:         p.name,
		Tx:           p.dev,
		Counters:     p.counters,
		Gen:          s.table.Gen(uint16(p.id)),
		PVID:         p.cfg.VLAN.PVID,
		MaxLen:       math.MaxUint32,
		Offloads:     p.state.Offloads,
		Learn:        up && p.learning && !p.cfg.NoLearning,
		Learning:     up && p.learning,
		Forward:      up && p.forwarding,
		Deaf:         p.guard == stp.GuardBPDU.String(),
		NoBPDU:       p.cfg.bpduGuard() || p.cfg.STP.BPDUFilter,
		Isolated:     p.cfg.Isolated,
		Hairpin:      p.cfg.Hairpin,
		UntaggedOnly: p.cfg.VLAN.UntaggedOnly,
		Tunnel:       p.cfg.VLAN.Tunnel,
		Member:       &p.vlan.Member,
		Untagged:     &p.vlan.Untagged,
	}
	if p.id != relay.HostPort {
		rp.Punts = &p.punts
	}
	rp.Troubles = &p.troubles
	for i := range p.queues {
		rp.Shared = rp.Shared || p.queues[i].Shared()
	}
	if p.cfg.Locked {
		rp.Extra |= relay.ExtraLocked
	}
	if p.state.MTU > 0 {
		rp.MaxLen = uint32(p.state.MTU + frame.HeaderLen)
	}
	return rp
}

// loads shares the queues of all ports out among the workers.
func (s *Switch) loads(v *relay.View) []*pump.Load {
	loads := make([]*pump.Load, s.cfg.Workers)
	for i := range loads {
		loads[i] = &pump.Load{View: v}
	}
	for n, p := range s.slots {
		if p == nil {
			continue
		}
		for i, q := range p.queues {
			l := loads[(n+i)%len(loads)]
			l.Queues = append(l.Queues, q)
		}
	}
	return loads
}
