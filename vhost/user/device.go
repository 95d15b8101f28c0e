package vhostuser

import (
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// device is what one connection's front end has made of the port so far: the
// back end's side of the protocol, a method for each request. Port.mu guards it.
type device struct {
	port *Port

	acked    uint64 // features of SET_FEATURES
	ackedSet bool
	refused  bool // the last SET_FEATURES was
	protocol uint64
	status   uint64
	mtu      int // of NET_SET_MTU, or 0

	memory   *memory           // nil: none yet
	repeats  map[memRegion]int // see repeated
	log      *virtq.Log
	logMap   mapping
	logFD    int // eventfd to signal when the log changed, or -1
	inflight mapping

	rings []vring
}

func newDevice(p *Port) *device {
	d := &device{port: p, logFD: -1, rings: make([]vring, 2*p.opts.QueuePairs)}
	for i := range d.rings {
		d.rings[i] = noVring
	}
	return d
}

// offered is what this port offers.
func (d *device) offered() uint64 {
	if d.port.opts.QueuePairs > 1 {
		return offeredFeatures | featMQ
	}
	return offeredFeatures
}

func (d *device) nothing(*message) (reply, error) { return reply{}, nil }

func (d *device) getFeatures(*message) (reply, error) { return replyU64(d.offered()), nil }

func (d *device) setFeatures(m *message) (reply, error) {
	v := m.u64()
	d.refused = true
	if extra := v &^ d.offered(); extra != 0 {
		return reply{}, fmt.Errorf("feature bits %#x were not offered", extra)
	}
	if changed := (v ^ d.acked) &^ featLogAll; d.ackedSet && changed != 0 && d.running() {
		return reply{}, fmt.Errorf("features %v change while rings run", names(featureNames, changed))
	}
	d.refused = false
	stopped := d.acked&^v&featLogAll != 0
	d.acked, d.ackedSet = v, true
	if v&featProtocol == 0 { // "Ring states": then rings start enabled
		for i := range d.rings {
			d.rings[i].enabled = true
		}
	}
	err := d.refreshAll()
	if stopped { // there is no message for it, and the log may not cover memory that is added later
		d.dropLog()
	}
	return reply{}, err
}

func (d *device) getProtocolFeatures(*message) (reply, error) { return replyU64(offeredProtocol), nil }

func (d *device) setProtocolFeatures(m *message) (reply, error) {
	v := m.u64()
	// "it has no other way of signalling this error, the back-end should close
	// the connection" ("In-band notifications").
	if v&protoInBand != 0 && v&(protoBackReq|protoReplyAck) != protoBackReq|protoReplyAck {
		return reply{}, fmt.Errorf("%w: in-band notifications without BACKEND_REQ and REPLY_ACK", errProtocol)
	}
	if extra := v &^ offeredProtocol; extra != 0 {
		return reply{}, fmt.Errorf("protocol feature bits %#x were not offered", extra)
	}
	d.protocol = v
	return reply{}, nil
}

func (d *device) getQueueNum(*message) (reply, error) {
	return replyU64(uint64(d.port.opts.QueuePairs)), nil // for a network device: pairs
}

func (d *device) getMaxMemSlots(*message) (reply, error) { return replyU64(maxMemSlots), nil }

func (d *device) setStatus(m *message) (reply, error) {
	d.status = m.u64() & 0xff
	if d.status == 0 { // the driver reset the device (virtio 1.2, 2.1.2)
		for i := range d.rings {
			d.stop(i)
		}
	}
	return reply{}, nil
}

// FEATURES_OK of the device status (virtio 1.2, 2.1).
const statusFeaturesOK = 8

func (d *device) getStatus(*message) (reply, error) {
	if d.refused {
		return replyU64(d.status &^ statusFeaturesOK), nil
	}
	return replyU64(d.status), nil
}

// resetDevice: "disable all rings and reset all internal device state to the
// initial state". Memory, which is no device's state, stays.
func (d *device) resetDevice(*message) (reply, error) {
	for i := range d.rings {
		d.stop(i)
		closeFD(&d.rings[i].call)
		closeFD(&d.rings[i].err)
		d.rings[i] = noVring
	}
	d.acked, d.ackedSet, d.refused, d.status, d.mtu = 0, false, false, 0, 0
	d.dropLog()
	closeFD(&d.logFD)
	d.inflight.unmap()
	return reply{}, nil
}

// leastMTU is what IPv4 needs, and the least that virtio 1.2, 5.1.4.1 allows.
const leastMTU = 68

func (d *device) netSetMTU(m *message) (reply, error) {
	limit := d.port.opts.MTU
	if limit == 0 {
		limit = frame.MaxMTU
	}
	v := m.u64()
	if v < leastMTU || v > uint64(limit) {
		return reply{}, fmt.Errorf("MTU %d: want %d to %d", v, leastMTU, limit)
	}
	d.mtu = int(v)
	return reply{}, nil
}

func (d *device) sendRARP(m *message) (reply, error) {
	mac := frame.MAC(m.payload[:6])
	if !mac.IsUnicast() {
		return reply{}, fmt.Errorf("announce %s: not a station's address", mac)
	}
	d.port.queues[0].announceRARP(mac)
	return reply{}, nil
}

// running reports whether a ring was started.
func (d *device) running() bool {
	for i := range d.rings {
		if d.rings[i].started {
			return true
		}
	}
	return false
}

var (
	errNoMemory = errors.New("no memory table")
	errNoLog    = errors.New("writes are to be logged, and there is no dirty log yet")
)

// refresh brings ring i to where the messages so far want it: running or not, in
// which memory, with which features. Workers use the ring all the while. An
// error says why it can't run; it is also kept as the ring's reason. That the dirty
// log, which may come last of all, has still to come is no error.
func (d *device) refresh(i int) error {
	var next *live
	var err error
	if fault := guarded(func() { next, err = d.build(i) }); fault != nil {
		next, err = nil, fault
		d.port.ring(i).broken.Store(&brokenRing{reason: fault, memory: true})
		d.port.attend()
	}
	v := &d.rings[i]
	if failed := d.port.ring(i).exchange(next, v); err == nil {
		err = failed
	}
	v.reason = ""
	if err != nil {
		v.reason = err.Error()
	}
	d.port.setEgress()
	if errors.Is(err, errNoLog) {
		return nil
	}
	return err
}

// refreshAll refreshes every ring. The error is that of the first ring that could
// run before and now can't: a ring that its driver had broken before says nothing
// about the request.
func (d *device) refreshAll() error {
	var first error
	for i := range d.rings {
		broken := d.rings[i].reason != "" || d.port.ring(i).broken.Load() != nil
		if err := d.refresh(i); err != nil && first == nil && !broken {
			first = fmt.Errorf("ring %d: %w", i, err)
		}
	}
	return first
}

// build makes the ring that refresh starts: nil if it is not to run.
func (d *device) build(i int) (*live, error) {
	v := &d.rings[i]
	if !v.started || !d.ackedSet || v.size == 0 || !v.hasAddr {
		return nil, nil
	}
	if b := d.port.ring(i).broken.Load(); b != nil {
		return nil, b.reason
	}
	if d.memory == nil {
		return nil, errNoMemory
	}
	c := virtq.Config{
		Size:     v.size,
		Rings:    virtq.Rings{Desc: v.addr.desc, Avail: v.addr.avail, Used: v.addr.used},
		Write:    i%2 == 0,
		Indirect: d.acked&featIndirect != 0,
		Base:     v.base,
		Inflight: v.inflight,
	}
	if d.acked&featLogAll != 0 {
		if d.log == nil {
			return nil, errNoLog
		}
		if err := v.logged(d.log); err != nil {
			return nil, err
		}
		c.Log, c.LogUsed, c.UsedAddr = d.log, v.addr.flags&vringFlagLog != 0, v.addr.log
	}
	q, err := virtq.NewDevice(d.memory.Memory, c)
	if err != nil {
		return nil, err
	}
	l := &live{
		Device:    q,
		enabled:   v.enabled,
		mergeable: d.acked&featMrgRxbuf != 0,
		hdrLen:    headerLen(d.acked),
		kick:      v.kick >= 0,
		call:      v.call,
		logFD:     -1,
	}
	if c.Log != nil {
		l.logFD = d.logFD
	}
	if i%2 == 0 {
		l.offloads, l.ecn = guestTakes(d.acked), d.acked&featGuestECN != 0
	} else {
		l.offloads, l.ecn = guestSends(d.acked), d.acked&featHostECN != 0
	}
	return l, nil
}
