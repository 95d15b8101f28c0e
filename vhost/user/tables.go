package vhostuser

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// The requests that share memory: the guest's, the dirty log, and the note of
// what is in flight. Each maps the new memory, moves the rings over to it one by
// one, and unmaps the old, which no worker uses any more by then.

func (d *device) setMemTable(m *message) (reply, error) {
	regions, err := m.memTable()
	if err != nil {
		return reply{}, fmt.Errorf("%w: SET_MEM_TABLE: %w", errProtocol, err)
	}
	next, err := mapMemory(regions, m.fds)
	if err != nil {
		return reply{}, err // the old table stays
	}
	if err := d.covered(d.log, next); err != nil {
		unmapAll(next.maps)
		return reply{}, err
	}
	old := d.memory
	d.memory, d.repeats = next, nil
	d.refreshAll() // a ring outside the table rests until another table comes
	if old != nil {
		unmapAll(old.maps)
	}
	return reply{}, nil
}

func (d *device) addMemReg(m *message) (reply, error) {
	have := d.memory
	if have == nil {
		have = new(memory)
	}
	r := parseRegion(m.payload[8:])
	if slices.Contains(have.regions, r) {
		d.repeated(r, 1)
		return reply{}, nil
	}
	if len(have.regions) >= maxMemSlots {
		return reply{}, fmt.Errorf("add memory region: all %d slots are taken", maxMemSlots)
	}
	next, err := have.with(r, m.fds[0])
	if err != nil {
		return reply{}, err
	}
	if err := d.covered(d.log, next); err != nil {
		next.maps[len(next.maps)-1].unmap()
		return reply{}, err
	}
	d.memory = next
	d.refreshAll()
	return reply{}, nil
}

// repeated counts how often a region was added that was there. QEMU before 8.0
// adds, and later removes, every region once for each queue pair; the region
// lives until the last of them lets it go.
func (d *device) repeated(r memRegion, n int) {
	if d.repeats == nil {
		d.repeats = make(map[memRegion]int)
	}
	d.repeats[r.key()] += n
}

func (d *device) remMemReg(m *message) (reply, error) {
	if d.memory == nil {
		return reply{}, errNoMemory
	}
	r := parseRegion(m.payload[8:])
	if slices.ContainsFunc(d.memory.regions, r.same) && d.repeats[r.key()] > 0 {
		d.repeated(r, -1)
		return reply{}, nil
	}
	next, gone, err := d.memory.without(r)
	if err != nil {
		return reply{}, err
	}
	d.memory = next
	d.refreshAll()
	gone.unmap()
	return reply{}, nil
}

// setLogBase takes the dirty log. A reply is due in any case; with REPLY_ACK it
// is the acknowledgement, else it is empty.
func (d *device) setLogBase(m *message) (reply, error) {
	size, offset := m.u64(), binary.LittleEndian.Uint64(m.payload[8:])
	if size > maxLogBytes {
		return reply{}, fmt.Errorf("dirty log of %#x bytes: at most %#x", size, uint64(maxLogBytes))
	}
	mp, err := mapFile(m.fds[0], offset, size)
	if err != nil {
		return reply{}, fmt.Errorf("map dirty log: %w", err)
	}
	log, err := virtq.NewLog(mp.mem)
	if err == nil {
		err = d.covered(log, d.memory)
	}
	for i := range d.rings {
		if v := &d.rings[i]; err == nil && d.acked&featLogAll != 0 && v.started {
			err = v.logged(log)
		}
	}
	if err != nil {
		mp.unmap()
		return reply{}, err // the old log stays
	}
	old := d.logMap
	d.log, d.logMap = log, mp
	d.refreshAll()
	old.unmap()
	return reply{always: true}, nil
}

// dropLog lets go of the dirty log, which no ring uses any more.
func (d *device) dropLog() {
	d.logMap.unmap()
	d.log, d.logMap = nil, mapping{}
}

// covered refuses a dirty log that has no room for a guest's whole memory: a
// write that can't be logged is a page lost in migration.
func (d *device) covered(log *virtq.Log, m *memory) error {
	if log == nil || m == nil {
		return nil
	}
	for _, r := range m.regions {
		if !log.Covers(r.guest, r.size) {
			return fmt.Errorf("dirty log does not cover the memory region at guest address %#x", r.guest)
		}
	}
	return nil
}

func (d *device) setLogFD(m *message) (reply, error) {
	fd, err := m.takeEventFD()
	if err != nil {
		return reply{}, fmt.Errorf("log descriptor: %w", err)
	}
	old := d.logFD
	d.logFD = fd
	d.refreshAll()
	closeFD(&old)
	return reply{}, nil
}

// getInflightFD makes a buffer for the note of what is in flight. It is not
// used before the front end gives it back.
func (d *device) getInflightFD(m *message) (reply, error) {
	a := m.inflightArea()
	if err := d.checkInflight(a); err != nil {
		return reply{}, err
	}
	a.size, a.offset = inflightSize(a), 0
	fd, err := unix.MemfdCreate("kvswitch-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return reply{}, fmt.Errorf("create memfd: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(a.size)); err != nil {
		unix.Close(fd)
		return reply{}, fmt.Errorf("size memfd: %w", err)
	}
	unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return reply{payload: a.append(nil), fd: fd, withFD: true}, nil
}

func (d *device) setInflightFD(m *message) (reply, error) {
	a := m.inflightArea()
	if err := d.checkInflight(a); err != nil {
		return reply{}, err
	}
	if a.size < inflightSize(a) {
		return reply{}, fmt.Errorf("inflight buffer of %d bytes: want %d for %d rings of %d", a.size, inflightSize(a), a.queues, a.queueSize)
	}
	if d.running() {
		return reply{}, fmt.Errorf("inflight buffer changes while rings run")
	}
	if a.size > maxInflightBytes {
		return reply{}, fmt.Errorf("inflight buffer of %#x bytes: at most %#x", a.size, maxInflightBytes)
	}
	mp, err := mapFile(m.fds[0], a.offset, a.size)
	if err != nil {
		return reply{}, fmt.Errorf("map inflight buffer: %w", err)
	}
	d.inflight.unmap() // no ring runs
	d.inflight = mp
	stride := virtq.InflightBytes(int(a.queueSize))
	for i := range d.rings {
		d.rings[i].inflight = nil
		if i < int(a.queues) {
			d.rings[i].inflight = virtq.NewInflight(mp.mem[i*stride:][:stride:stride])
		}
	}
	return reply{}, nil
}

func (d *device) checkInflight(a inflightArea) error {
	n := int(a.queueSize)
	if n == 0 || n > virtq.MaxSize || n&(n-1) != 0 || a.queues == 0 || int(a.queues) > len(d.rings) {
		return fmt.Errorf("inflight buffer for %d rings of %d: there are %d rings of at most %d", a.queues, n, len(d.rings), virtq.MaxSize)
	}
	return nil
}

func inflightSize(a inflightArea) uint64 {
	return uint64(a.queues) * uint64(virtq.InflightBytes(int(a.queueSize)))
}
