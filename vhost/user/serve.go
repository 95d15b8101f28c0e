package vhostuser

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// The control side: connections, one at a time, and the messages on them.

// accept serves one front end after the other. Further ones that connect in the
// meantime are turned away; at once, unless the one before has hung up.
func (p *Port) accept() {
	for {
		conn, err := p.listen.AcceptUnix()
		if err != nil {
			if p.pause(p.opts.Reconnect) { // out of descriptors, perhaps
				continue
			}
			return
		}
		p.awaitEnd()
		if !p.begin(conn) {
			conn.Close()
			continue
		}
		p.running.Go(func() { p.serve(conn) })
	}
}

// connect looks for a front end until Close, and again when it is gone.
func (p *Port) connect() {
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.opts.Path, Net: "unix"})
		if err == nil && p.begin(conn) {
			p.serve(conn)
		} else if err == nil {
			conn.Close() // closed meanwhile
		} else {
			p.mu.Lock()
			p.ended = err
			p.mu.Unlock()
			p.update()
		}
		if !p.pause(p.opts.Reconnect) {
			return
		}
	}
}

// pause waits for d. It reports false if the port was closed meanwhile.
func (p *Port) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.done:
		return false
	}
}

// endPatience is how long a front end waits for the end of the one before.
const endPatience = time.Second

// awaitEnd waits for the end of a connection whose front end has hung up: a QEMU
// that is started in the moment after another one died is no second one.
func (p *Port) awaitEnd() {
	p.mu.Lock()
	conn, gone := p.conn, p.gone
	p.mu.Unlock()
	if conn == nil || !hungUp(conn) {
		return
	}
	t := time.NewTimer(endPatience)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	case <-p.done:
	}
}

var errBusy = errors.New("a second front end connected and was turned away")

// begin makes conn the port's connection, unless it has one.
func (p *Port) begin(conn *net.UnixConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.conn != nil {
		p.refuse(errBusy)
		return false
	}
	p.conn, p.peer, p.ended = conn, peerOf(conn), nil
	p.dev, p.gone = newDevice(p), make(chan struct{})
	p.sessions++
	return true
}

// serve answers a front end's messages until one ends the connection.
func (p *Port) serve(conn *net.UnixConn) {
	p.update()
	var err error
	for r := newReader(conn, p.done); err == nil; {
		var m *message
		if m, err = r.next(); err == nil {
			err = p.handle(conn, m)
		} else if errors.Is(err, errProtocol) {
			p.mu.Lock()
			p.refuse(err)
			p.mu.Unlock()
		}
	}
	conn.Close()
	p.mu.Lock()
	d := p.dev
	d.stopAll()
	p.conn, p.peer, p.dev = nil, nil, nil
	if p.ended == nil { // else the port itself ended it
		p.ended = err
	}
	close(p.gone)
	p.mu.Unlock()
	p.update()
	d.free()
}

// handle does what a message asks for and replies. An error ends the connection.
func (p *Port) handle(conn *net.UnixConn, m *message) error {
	p.mu.Lock()
	p.settling.Store(true) // it may start rings; update knows
	rep, err := p.dev.do(m)
	if err != nil {
		p.refuse(err)
	}
	acks := p.dev.protocol&protoReplyAck != 0 && m.flags&flagNeedReply != 0
	p.mu.Unlock()
	discard(m.fds, p.done)
	// The state is out before the front end knows that it got what it asked for.
	p.update()
	switch {
	case errors.Is(err, errProtocol):
		return err
	case err != nil && !acks:
		return err // there is no other way to tell it
	case err != nil:
		rep = replyU64(1)
	case acks && rep.payload == nil:
		rep = replyU64(0)
	}
	return rep.send(conn, m.request)
}

// do finds and runs the handler of a message.
func (d *device) do(m *message) (rep reply, err error) {
	r, err := m.find(d.protocol)
	if err != nil {
		return reply{}, err
	}
	if rep, err = r.handle(d, m); err != nil {
		return reply{}, fmt.Errorf("%s: %w", r.name, err)
	}
	return rep, nil
}

// stopAll stops the rings.
func (d *device) stopAll() {
	for i := range d.rings {
		d.stop(i)
	}
}

// free gives back all that the connection brought, after stopAll. Nobody should
// have to wait for it: with the last mapping of a guest's memory goes the memory,
// page by page.
func (d *device) free() {
	for i := range d.rings {
		closeFD(&d.rings[i].call)
		closeFD(&d.rings[i].err)
	}
	if d.memory != nil {
		unmapAll(d.memory.maps)
	}
	d.logMap.unmap()
	d.inflight.unmap()
	closeFD(&d.logFD)
}

// refusals counts what front ends were refused since the port was opened.
type refusals struct {
	n    uint64
	last string
}

// refuse notes what a front end was refused. The caller holds p.mu.
func (p *Port) refuse(err error) {
	p.refused.Store(&refusals{p.refused.Load().n + 1, err.Error()})
}

// Refusals implements frame.Refuser.
func (p *Port) Refusals() (n uint64, last string) {
	r := p.refused.Load()
	return r.n, r.last
}

// attend asks the control side to look for rings that broke. It never blocks.
func (p *Port) attend() {
	select {
	case p.attention <- struct{}{}:
	default: // it is about to look
	}
}

// attendBroken reports rings that workers found broken: to the front end by its
// error descriptor, to the switch by State. Without its memory a front end has
// nothing left to go on with, so that ends the connection.
func (p *Port) attendBroken() {
	for {
		select {
		case <-p.attention:
		case <-p.done:
			return
		}
		p.mu.Lock()
		for i := 0; p.dev != nil && i < len(p.dev.rings); i++ {
			b, v := p.ring(i).broken.Load(), &p.dev.rings[i]
			if b == nil || b.told {
				continue
			}
			b.told = true
			v.reason = b.reason.Error()
			p.refuse(fmt.Errorf("ring %d: %w", i, b.reason))
			if v.err >= 0 {
				p.alarm.Send(v.err)
			}
			if b.memory {
				p.ended = fmt.Errorf("ring %d: %w", i, b.reason)
				p.conn.Close()
			}
		}
		p.setEgress()
		p.mu.Unlock()
		p.update()
	}
}

// setEgress tells Tx which rings there are to choose from. The caller holds p.mu.
func (p *Port) setEgress() {
	var rings []*ring
	for i := range p.sinks {
		if l := p.sinks[i].live.Load(); l != nil && l.enabled {
			rings = append(rings, p.sinks[i])
		}
	}
	if len(rings) == 0 {
		p.egress.Store(nil)
		return
	}
	p.egress.Store(&rings)
}

// update publishes the state and, if it changed, says so.
func (p *Port) update() {
	p.mu.Lock()
	s := p.look()
	old := p.state.Swap(&s)
	if s.Up && !old.Up {
		p.taken.Store(false) // until the switch has acted on this
	}
	p.settling.Store(s.Up)
	notify := p.notify
	p.mu.Unlock()
	if *old != s {
		notify()
	}
}

// look makes the state. The caller holds p.mu.
func (p *Port) look() frame.State {
	s := frame.State{MTU: p.opts.MTU}
	d := p.dev
	switch {
	case d == nil && p.ended != nil:
		s.Reason = "peer gone: " + p.ended.Error()
		return s
	case d == nil && p.opts.Mode == Server:
		s.Reason = "no peer has connected to " + p.opts.Path
		return s
	case d == nil:
		s.Reason = "not yet connected to " + p.opts.Path
		return s
	}
	if d.mtu > 0 {
		s.MTU = d.mtu
	}
	s.Offloads = guestTakes(d.acked)
	s.Reason = "the guest has not started its rings"
	for i := range d.rings {
		if r := d.rings[i].reason; r != "" {
			s.Reason = fmt.Sprintf("ring %d: %s", i, r)
			return s
		}
	}
	for i := range p.queues {
		rx, tx := p.queues[i].live.Load(), p.sinks[i].live.Load()
		if rx != nil && tx != nil {
			s.Reason = "the guest has not enabled its rings"
			if rx.enabled && tx.enabled {
				s.Up, s.Reason = true, ""
				break
			}
		}
	}
	return s
}
