package netdev

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// openControl opens the socket for BPDUs. It also holds the device in promiscuous
// mode, for all sockets.
func (p *Port) openControl(l link.Link) (*control, error) {
	fd, err := openSocket(l.Index, true, bpduFilter())
	if err != nil {
		return nil, err
	}
	if err := quietOwn(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newControl(fd)
}

// openLanes gives each lane a socket that only sends.
func (p *Port) openLanes(index int) error {
	for _, l := range p.lanes {
		fd, err := openSocket(index, false, nothingFilter())
		if err != nil {
			return err
		}
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendRoom)
		l.mu.Lock()
		l.fd = fd
		l.mu.Unlock()
	}
	return nil
}

// fitRings gives the queues rings whose slots hold the device's frames, unless
// they have them, or intakes, which take any frame. What lies in the old ones is still forwarded.
func (p *Port) fitRings() error {
	a := p.at
	if len(a.intakes) > 0 || len(a.rings) > 0 && a.rings[0].size >= slotSize(p.link.MTU) {
		return nil
	}
	rings, err := p.openRings()
	if err != nil {
		return err
	}
	for _, r := range a.rings {
		_ = shut(r.fd) // or every frame would come twice
	}
	if err := p.startRings(rings); err != nil {
		for i, r := range rings {
			r.free()
			if i < len(a.rings) {
				_ = unshut(a.rings[i].fd)
			}
		}
		return err
	}
	for i, r := range rings {
		p.queues[1+i].replace(r)
	}
	a.rings = rings
	return nil
}

// openRings makes rings that receive nothing yet, and are shut.
func (p *Port) openRings() (rings []*ring, err error) {
	for range p.opt.Queues {
		var fd int
		if fd, err = openSocket(p.at.index, false, nothingFilter()); err != nil {
			break
		}
		if err = quietOwn(fd); err != nil {
			unix.Close(fd)
			break
		}
		var r *ring
		if r, err = newRing(fd, p.link.MTU, p.opt.RingBytes); err != nil {
			break
		}
		rings = append(rings, r)
	}
	if err != nil {
		for _, r := range rings {
			r.free()
		}
		return nil, err
	}
	return rings, nil
}

// startRings binds the rings, which are shut, joins them, and then opens them: so
// no frame comes to two of them.
func (p *Port) startRings(rings []*ring) error {
	group := 0
	for _, r := range rings {
		if err := start(r.fd, p.at.index, unix.ETH_P_ALL); err != nil {
			return err
		}
		if len(rings) > 1 {
			var err error
			if group, err = joinFanout(r.fd, group); err != nil {
				return err
			}
		}
	}
	for _, r := range rings {
		if err := unshut(r.fd); err != nil {
			return err
		}
	}
	return nil
}

// joinFanout joins the socket to a fanout group, 0 for a new one, and returns
// the group. Frames of one flow, in both directions, go to one member. Within a
// group the kernel heeds the group's setting on the host's own frames and not
// the socket's.
func joinFanout(fd, group int) (int, error) {
	mode := unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
	if group == 0 {
		mode |= unix.PACKET_FANOUT_FLAG_UNIQUEID
	}
	err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|mode<<16)
	if err != nil {
		return 0, fmt.Errorf("join rings (PACKET_FANOUT): %w", err)
	}
	v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return 0, fmt.Errorf("join rings (PACKET_FANOUT): %w", err)
	}
	return v & 0xffff, nil
}
