package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/inkernel"
)

// attachment is all that ties the port to one device, as long as that lives.
type attachment struct {
	index     int
	mark      *mark
	shield    shield
	uplink    *ebpf.Map // what tells the shield that it is one; nil without BPF
	before    string    // IPv6 setting to put back
	upped     bool      // it was down, and is to be again
	keep      keeping
	above     map[int]link.Link // what stands on the device, by index
	programs  []string          // warnings of others' tcx programs
	filters   []string          // and of their filters and chains
	control   *control          // the queues own the receivers
	intakes   []*intake
	noIntake  error   // why there are none
	noTier    error   // why their program doesn't forward
	rings     []*ring // the newest, if there are no intakes
	ringErr   error   // why there are none, or none that fit
	warnings  []string
	addresses []string // that the host had there, and has lost the use of
}

// begin attaches to the device and follows it from then on.
func (p *Port) begin() error {
	l, err := p.watcher.ByName(p.name)
	if err != nil {
		return err
	}
	if err := p.attach(l); err != nil {
		return err
	}
	p.publish()
	unfollow, stop := p.watcher.Follow(p.follow), p.watcher.Every(p.look)
	p.unfollow = func() { unfollow(); stop() }
	return nil
}

// look sees, now and then, what the kernel tells nobody of.
func (p *Port) look() {
	if p.at != nil && p.checkOthers(false) {
		p.publish()
	}
}

// follow hears of every change of every device.
func (p *Port) follow(l link.Link, gone bool) {
	switch {
	case p.at != nil && l.Index != p.at.index:
		if !p.at.cutOff(l, gone) {
			return
		}
	case p.at == nil && gone:
		if l.Index == p.wanted {
			p.wanted = 0
		}
		return
	case p.at == nil && l.Index != p.wanted && (p.wanted != 0 || !l.Called(p.name)):
		return
	case p.at == nil:
		p.retake(l)
	case gone:
		p.detach()
		p.reason = "interface is gone"
		if l, err := p.watcher.ByName(p.name); err == nil {
			p.retake(l) // another one has the name already
		}
	default:
		p.link = l
		if len(p.at.addresses) > 0 {
			p.at.addresses = addresses(p.watcher.Handle(), l.Index)
		}
		p.at.clearErrors()
		p.checkOthers(true)
		p.at.ringErr = p.fitRings()
	}
	p.publish()
}

// clearErrors takes from the sockets the error that a device leaves there when
// it goes down. epoll would report it without end. It is done whenever there is
// news of the device, for going down and coming up may be one piece of news.
func (a *attachment) clearErrors() {
	for _, fd := range a.sockets() {
		_ = sysio.SocketError(fd)
	}
}

// sockets are those that receive.
func (a *attachment) sockets() (fds []int) {
	for _, r := range a.rings {
		fds = append(fds, r.fd)
	}
	if a.control != nil {
		fds = append(fds, a.control.fd)
	}
	return fds
}

// retake attaches to the device that goes by the port's name now. If it can't be
// had, the next change of the device is another try, whatever it is called then.
func (p *Port) retake(l link.Link) {
	p.wanted = 0
	if err := p.attach(l); err != nil {
		p.reason, p.wanted = err.Error(), l.Index
	}
}

// attach makes l the port's device, or leaves everything as it was.
func (p *Port) attach(l link.Link) error {
	if err := p.check(l); err != nil {
		return err
	}
	if err := p.checkAbove(l); err != nil {
		return err
	}
	m, unsure, err := claim(l.Index, p.unmarked)
	if err != nil {
		return err
	}
	a := &attachment{index: l.Index, mark: m}
	a.keep = p.keeping(a, l)
	for _, u := range p.watcher.Above(l.Index) {
		a.cutOff(u, false)
	}
	if unsure != nil {
		a.warnings = append(a.warnings, fmt.Sprintf("%s: %v: nothing keeps another switch off the interface now", l.Name, unsure))
	}
	p.at, p.link, p.reason = a, l, ""
	if err := p.equip(a, l); err != nil {
		p.detach()
		return err
	}
	return nil
}

// check reports why l can't be a port.
func (p *Port) check(l link.Link) error {
	switch {
	case l.Loopback:
		return errors.New("the loopback interface can't be a port")
	case !l.Ethernet:
		return fmt.Errorf("not an Ethernet interface (%s)", l.Kind)
	case l.Kind == "bridge":
		return errors.New("it is a kernel bridge; give its ports to the switch instead")
	case l.Master != 0:
		return fmt.Errorf("it belongs to %s; take it out first: ip link set %s nomaster", p.master(l), l.Name)
	}
	return nil
}

// master names what l is part of: "kernel bridge br0".
func (p *Port) master(l link.Link) string {
	m, err := p.watcher.ByIndex(l.Master)
	switch {
	case err != nil:
		return fmt.Sprintf("interface %d", l.Master)
	case m.Kind == "bridge":
		return "kernel bridge " + m.Name
	}
	return m.Kind + " " + m.Name
}

// equip makes sockets, shield and settings. The host is kept quiet before the
// device can come up, and shut out before frames are taken from it.
func (p *Port) equip(a *attachment, l link.Link) (err error) {
	control, err := p.openControl(l)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			control.free()
		}
	}()
	if err := p.openLanes(l.Index); err != nil {
		return err
	}
	if a.before, err = silence(p.watcher.Handle(), a.keep, l); err != nil {
		a.warnings = append(a.warnings, fmt.Sprintf("%s: %v: the host may announce an IPv6 address of its own there", l.Name, err))
	}
	if err = p.shield(a, l.Index); err != nil {
		a.warnings = append(a.warnings, fmt.Sprintf("%s: can't shield the host's stack (%v): it sees every frame, too, and may answer ARP and forward by itself; give the interface no address, or %s", l.Name, err, shieldAdvice))
	} else {
		a.addresses = addresses(p.watcher.Handle(), l.Index)
	}
	protocol := uint16(unix.ETH_P_802_2)
	if a.shield.kind == shieldNone {
		protocol = unix.ETH_P_ALL
	}
	if err := start(control.fd, l.Index, protocol); err != nil {
		return err
	}
	a.ringErr = p.fitRings()
	if a.ringErr != nil && (l.Up || p.opt.Queues == 1) {
		return a.ringErr // else: before Linux 6.13 rings can't join while the device is down
	}
	if p.opt.Up && !p.opt.LeaveUp {
		a.upped = a.keep(settingUp, upText(l.Up), upText(true)) != ""
	}
	if p.opt.Up && !l.Up {
		device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
		if err := p.watcher.Handle().LinkSetUp(device); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	p.checkOthers(true)
	p.queues[0].replace(control)
	a.control = control
	return nil
}

// shield keeps the host off the device: by intakes, which are to be the queues'
// receivers, or where the kernel can't do that by the plain program.
func (p *Port) shield(a *attachment, index int) (err error) {
	if a.uplink, err = newUplinkWord(p.uplink.Load()); err != nil {
		a.shield, a.noIntake, a.noTier = shield{kind: shieldNone}, err, err
		return err
	}
	a.noTier = errTierOff
	if p.opt.Tier != nil {
		a.intakes, a.shield, a.noIntake = p.takeIn(a, index, p.opt.Tier)
		a.noTier = a.noIntake
	}
	if a.noTier != nil {
		a.intakes, a.shield, a.noIntake = p.takeIn(a, index, nil)
	}
	if a.noIntake == nil {
		p.bindIntakes(a)
		for i, r := range a.intakes {
			p.queues[1+i].replace(r)
		}
		return nil
	}
	a.shield, err = newShield(p.watcher.Handle(), a.keep, index, func() (*ebpf.Program, error) { return shieldProgram(a.uplink) })
	return err
}

// takeIn makes an intake for each queue, and the program that fills them.
func (p *Port) takeIn(a *attachment, index int, tier *inkernel.Tier) ([]*intake, shield, error) {
	if p.opt.noIntake {
		return nil, shield{kind: shieldNone}, errors.New("turned off")
	}
	set, err := newIntakeSet(p.opt.Queues, sizeOfIntake(p.opt.RingBytes), tier)
	set.uplink = a.uplink
	s := shield{kind: shieldNone}
	if err == nil {
		s, err = newShield(p.watcher.Handle(), a.keep, index, set.program)
	}
	if hangErr := set.close(); err == nil && hangErr != nil {
		s.remove()
		err = hangErr
	}
	if err != nil {
		set.free()
		return nil, shield{kind: shieldNone}, err
	}
	return set.intakes, s, nil
}

const shieldAdvice = "use a kernel with BPF (CONFIG_NET_XGRESS or CONFIG_NET_CLS_BPF) and run with CAP_BPF and CAP_NET_ADMIN"

// detach lets go of the device and puts back what was changed about it.
func (p *Port) detach() {
	a := p.at
	if a == nil {
		return
	}
	p.release()
	if a.shield.kind == shieldClsact {
		a.shield.remove()
	}
	p.putBack(a)
}

// release closes what detach must close, which needs no Watcher. The queues keep
// their receivers, which will lend no more frames once they are empty, until they
// are given others. Closing a packet socket or a tcx link waits for a grace
// period of the whole kernel, some 15 ms each, so that is left to goroutines that
// Close waits for.
func (p *Port) release() {
	a := p.at
	if a == nil {
		return
	}
	p.at = nil
	for _, l := range p.lanes {
		l.mu.Lock()
		if fd := l.fd; fd >= 0 {
			p.freeing.Go(func() { unix.Close(fd) })
		}
		l.fd = -1
		l.mu.Unlock()
	}
	for _, fd := range a.sockets() {
		_ = shut(fd)
		_ = sysio.SocketError(fd)
	}
	if a.shield.kind == shieldTCX {
		p.freeing.Go(a.shield.remove)
	}
	if a.uplink != nil {
		a.uplink.Close() // the program has its own hold on it
	}
	p.unmarked = a.mark.inode
	p.freeing.Go(func() { unix.Close(a.mark.fd) })
}

// publish makes State, Detail and Warnings say what is so now.
func (p *Port) publish() {
	l := p.link
	s := frame.State{MAC: l.MAC, MTU: l.MTU, Offloads: offloads}
	if p.at != nil {
		s.Device = p.at.index
	}
	v := &view{detail: Detail{Interface: l.Name, Index: l.Index, Kind: l.Kind, Shield: shieldNone}}
	switch a := p.at; {
	case a == nil:
		s.Reason = p.reason
	case len(a.intakes) == 0 && len(a.rings) == 0:
		s.Reason = a.ringErr.Error()
	case l.Master != 0:
		s.Reason = "belongs to " + p.master(l)
	case !l.Up:
		s.Reason = "interface is set down"
	case !l.Running:
		s.Reason = "no carrier"
	default:
		s.Up = true
		s.Speed, s.HalfDup, _ = sysio.LinkSpeed(l.Name)
	}
	if a := p.at; a != nil {
		v.names = append([]string{l.Name}, l.AltNames...)
		v.detail.Shield = a.shield.kind
		switch {
		case len(a.intakes) > 0:
			v.detail.Receive, v.detail.Rings, v.detail.Slots = receiveIntake, len(a.intakes), len(a.intakes[0].entries)
		case len(a.rings) > 0:
			v.detail.Receive, v.detail.Rings = receiveRing, len(a.rings)
			v.detail.NotBPF, _, _ = strings.Cut(a.noIntake.Error(), "\n") // the verifier says more
			v.detail.Slots, v.detail.SlotBytes = len(a.rings[0].slots), a.rings[0].size
		}
		v.warnings = slices.Concat(a.warnings, p.deaf(a), p.othersWarnings(a))
		if len(a.addresses) > 0 {
			v.warnings = append(v.warnings, fmt.Sprintf("%s: the host can't be reached at %s any more, as the interface belongs to the switch now; move its addresses and routes to the switch's host interface", l.Name, enumerate(a.addresses)))
		}
		if a.ringErr != nil && len(a.rings) > 0 {
			v.warnings = append(slices.Clone(v.warnings), fmt.Sprintf("%s: %v: frames longer than %d bytes take a slower way", l.Name, a.ringErr, v.detail.SlotBytes-slotOverhead))
		}
	}
	renamed := !slices.Equal(p.view.Swap(v).names, v.names)
	p.target.Store(p.findTarget())
	if old := p.state.Swap(&s); (*old != s || renamed) && p.notify != nil {
		p.notify()
	}
}
