package vhostuser

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// vring is a ring as the messages configure it, and its requests.
type vring struct {
	size     int
	addr     vringAddr
	hasAddr  bool
	base     uint16 // of SET_VRING_BASE
	started  bool   // SET_VRING_KICK came
	enabled  bool
	kick     int // eventfds, -1: none
	call     int
	err      int
	inflight *virtq.Inflight
	last     *virtq.Device // stopped until there is memory for it, and resumed then
	reason   string        // why it does not run although it was started
}

var noVring = vring{kick: -1, call: -1, err: -1}

// logged refuses a dirty log that does not cover the used ring, if writes to it
// are to be logged at all.
func (v *vring) logged(log *virtq.Log) error {
	if v.addr.flags&vringFlagLog != 0 && !log.Covers(v.addr.log, uint64(virtq.UsedBytes(v.size))) {
		return fmt.Errorf("dirty log does not cover the used ring, at %#x there", v.addr.log)
	}
	return nil
}

// vring is the ring that a message is about.
func (d *device) vring(index uint32) (*vring, error) {
	if index >= uint32(len(d.rings)) {
		return nil, fmt.Errorf("ring %d: there are %d", index, len(d.rings))
	}
	return &d.rings[index], nil
}

// vringNum is the ring that NUM, BASE or ENABLE is about, and its number for it.
func (d *device) vringNum(m *message) (vringState, *vring, error) {
	s := m.vringState()
	v, err := d.vring(s.index)
	return s, v, err
}

func (d *device) setVringNum(m *message) (reply, error) {
	s, v, err := d.vringNum(m)
	if err != nil {
		return reply{}, err
	}
	if s.num == 0 || s.num > virtq.MaxSize || s.num&(s.num-1) != 0 {
		return reply{}, fmt.Errorf("ring %d: size %d: want a power of two up to %d", s.index, s.num, virtq.MaxSize)
	}
	if v.started && v.size != int(s.num) {
		return reply{}, fmt.Errorf("ring %d: size changes from %d to %d while it runs", s.index, v.size, s.num)
	}
	v.size = int(s.num)
	return reply{}, nil
}

func (d *device) setVringAddr(m *message) (reply, error) {
	a := m.vringAddr()
	v, err := d.vring(a.index)
	if err != nil {
		return reply{}, err
	}
	if a.desc%16 != 0 || a.avail%4 != 0 || a.used%4 != 0 {
		return reply{}, fmt.Errorf("ring %d: descriptor table %#x, available ring %#x, used ring %#x: want multiples of 16, 4 and 4",
			a.index, a.desc, a.avail, a.used)
	}
	before := *v
	v.addr, v.hasAddr = a, true
	if err := d.refresh(int(a.index)); err != nil {
		// What runs goes on where it was.
		v.addr, v.hasAddr = before.addr, before.hasAddr
		d.refresh(int(a.index))
		return reply{}, fmt.Errorf("ring %d: %w", a.index, err)
	}
	return reply{}, nil
}

func (d *device) setVringBase(m *message) (reply, error) {
	s, v, err := d.vringNum(m)
	if err != nil {
		return reply{}, err
	}
	if s.num > 1<<16-1 {
		return reply{}, fmt.Errorf("ring %d: base %d: want 16 bits", s.index, s.num)
	}
	if v.started {
		return reply{}, fmt.Errorf("ring %d: base changes while it runs", s.index)
	}
	v.base = uint16(s.num)
	return reply{}, nil
}

func (d *device) getVringBase(m *message) (reply, error) {
	s, v, err := d.vringNum(m)
	if err != nil {
		return reply{}, err
	}
	d.stop(int(s.index))
	return reply{payload: vringState{s.index, uint32(v.base)}.append(nil)}, nil
}

// stop stops ring i, if it runs, and notes how far it came. What it needs to
// start again comes anew, but front ends differ in whether that includes the
// call descriptor, so it stays.
func (d *device) stop(i int) {
	v, r := &d.rings[i], d.port.ring(i)
	r.exchange(nil, v)
	r.broken.Store(nil)
	if v.last != nil {
		v.base = v.last.Used()
		if v.inflight != nil {
			v.base = v.last.Next()
		}
	}
	v.last, v.started, v.reason = nil, false, ""
	d.port.setKick(i, -1)
	closeFD(&v.kick)
	d.port.setEgress()
}

// setVringKick starts the ring. The specification has the ring start with the
// first kick on the descriptor; but a driver that was told by an earlier back end
// not to kick (a restart of the switch, or a migration), or that made its buffers
// available before, never kicks. Front ends (QEMU, DPDK) rely on a start at once.
func (d *device) setVringKick(m *message) (reply, error) {
	v, i, fd, err := d.vringFD(m, "kick")
	if err != nil {
		return reply{}, err
	}
	if err := d.port.setKick(i, fd); err != nil { // it goes on, or rests, as before
		closeFD(&fd)
		return reply{}, fmt.Errorf("ring %d: %w", i, err)
	}
	closeFD(&v.kick)
	v.kick, v.started = fd, true
	if d.port.ring(i).broken.Swap(nil) != nil {
		v.last = nil // a new start, from where the used ring is
	}
	if err := d.refresh(i); err != nil {
		return reply{}, fmt.Errorf("ring %d: %w", i, err)
	}
	return reply{}, nil
}

func (d *device) setVringCall(m *message) (reply, error) {
	v, i, fd, err := d.vringFD(m, "call")
	if err != nil {
		return reply{}, err
	}
	old := v.call
	v.call = fd
	d.refresh(i) // afterwards no worker uses the old one any more
	closeFD(&old)
	return reply{}, nil
}

func (d *device) setVringErr(m *message) (reply, error) {
	v, _, fd, err := d.vringFD(m, "error")
	if err != nil {
		return reply{}, err
	}
	closeFD(&v.err)
	v.err = fd
	return reply{}, nil
}

func (d *device) setVringEnable(m *message) (reply, error) {
	s, v, err := d.vringNum(m)
	if err != nil {
		return reply{}, err
	}
	if s.num > 1 {
		return reply{}, fmt.Errorf("ring %d: enable %d: want 0 or 1", s.index, s.num)
	}
	v.enabled = s.num == 1
	d.refresh(int(s.index))
	return reply{}, nil
}

// vringFD is the ring that KICK, CALL or ERR is about, and the descriptor for it.
func (d *device) vringFD(m *message, kind string) (v *vring, i, fd int, err error) {
	i = int(m.u64() & vringIndexMask)
	if v, err = d.vring(uint32(i)); err != nil {
		return nil, i, -1, err
	}
	if fd, err = m.takeEventFD(); err != nil {
		return nil, i, -1, fmt.Errorf("ring %d: %s descriptor: %w", i, kind, err)
	}
	return v, i, fd, nil
}

// takeEventFD keeps the message's descriptor, if it came with one: -1 means
// none. It must be an eventfd: to signal, or to watch, anything else could block
// the switch. It is made non-blocking for where sysio.Signal has to write.
func (m *message) takeEventFD() (int, error) {
	if len(m.fds) == 0 {
		return -1, nil
	}
	fd := m.fds[0]
	kind, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return -1, err
	}
	if kind != "anon_inode:[eventfd]" {
		return -1, fmt.Errorf("%s is no eventfd", kind)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, fmt.Errorf("make eventfd non-blocking: %w", err)
	}
	m.fds[0] = -1
	return fd, nil
}

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}
