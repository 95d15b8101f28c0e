package vhostuser

import (
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// Detail is what a port has to show beside its State. It encodes to JSON.
type Detail struct {
	Socket      string   `json:"socket"`
	Mode        string   `json:"mode"` // server or client
	Peer        *Peer    `json:"peer,omitempty"`
	Connections uint64   `json:"connections"` // since the port was opened
	Features    []string `json:"features"`    // of virtio, negotiated, by name in lower case
	Protocol    []string `json:"protocol_features"`
	Status      uint64   `json:"device_status"` // as virtio 1.2, 2.1 has it; 0 if the front end never said
	MTU         int      `json:"mtu"`           // set by the front end; 0: none
	Logging     bool     `json:"logging"`       // the dirty log of a migration is kept
	Memory      []Region `json:"memory"`
	Rings       []Ring   `json:"rings"`
	Refusals    uint64   `json:"refusals"`               // messages, connections and rings refused
	LastRefusal string   `json:"last_refusal,omitempty"` // and why, for the last of them
}

// Peer is the process at the other end of the socket.
type Peer struct {
	PID int32  `json:"pid"`
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Region is a region of guest memory.
type Region struct {
	Guest uint64 `json:"guest_address"`
	User  uint64 `json:"user_address"`
	Bytes uint64 `json:"bytes"`
}

// Ring is one virtqueue.
type Ring struct {
	Index     int    `json:"index"`
	Kind      string `json:"kind"` // rx or tx, as the guest sees it
	Size      int    `json:"size"`
	Started   bool   `json:"started"`
	Enabled   bool   `json:"enabled"`
	Reason    string `json:"reason,omitempty"` // why it does not run although it was started
	Avail     uint16 `json:"avail_idx"`
	Used      uint16 `json:"used_idx"`
	Kicks     uint64 `json:"kicks"` // batches that the guest had to notify of
	Calls     uint64 `json:"calls"` // notifications of the guest
	Polls     uint64 `json:"polls"` // batches found by looking
	Frames    uint64 `json:"frames"`
	Errors    uint64 `json:"errors"` // chains and frames refused
	LastError string `json:"last_error,omitempty"`
}

// Detail implements frame.Detailer: it returns a Detail. It waits for the message
// that is being handled, and reads guest memory.
func (p *Port) Detail() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := Detail{
		Socket: p.opts.Path, Mode: p.opts.Mode.String(), Connections: p.sessions,
		Features: []string{}, Protocol: []string{}, Memory: []Region{}, Rings: []Ring{},
	}
	t.Refusals, t.LastRefusal = p.Refusals()
	if p.peer != nil {
		t.Peer = &Peer{p.peer.Pid, p.peer.Uid, p.peer.Gid}
	}
	if d := p.dev; d != nil {
		t.Features, t.Protocol = names(featureNames, d.acked), names(protocolNames, d.protocol)
		t.Status, t.MTU = d.status, d.mtu
		t.Logging = d.log != nil && d.acked&featLogAll != 0
		if d.memory != nil {
			for _, r := range d.memory.regions {
				t.Memory = append(t.Memory, Region{r.guest, r.user, r.size})
			}
		}
	}
	for i := range 2 * p.opts.QueuePairs {
		t.Rings = append(t.Rings, p.ringDetail(i))
	}
	return t
}

// Warnings implements frame.Warner.
func (p *Port) Warnings() []string {
	if err := sysio.PrepareSignals(); err != nil {
		return []string{"the kernel has no asynchronous I/O for the switch (" + err.Error() + "): a front end can hold up a worker"}
	}
	return nil
}

// RingCounters implements frame.Ringer.
func (p *Port) RingCounters() []frame.RingCounters {
	list := make([]frame.RingCounters, 2*p.opts.QueuePairs)
	for i := range list {
		list[i] = p.ring(i).counters()
	}
	return list
}

func (r *ring) counters() frame.RingCounters {
	return frame.RingCounters{
		Ring: r.index, Frames: r.frames.Load(), Kicks: r.kicks.Load(),
		Calls: r.calls.Load(), Polls: r.polls.Load(), Errors: r.errors.Load(),
	}
}

// ringDetail reads one ring. The caller holds p.mu, so its memory stays mapped.
func (p *Port) ringDetail(i int) (t Ring) {
	r := p.ring(i)
	c := r.counters()
	t = Ring{
		Index: i, Kind: [2]string{"rx", "tx"}[i%2],
		Kicks: c.Kicks, Calls: c.Calls, Polls: c.Polls, Frames: c.Frames, Errors: c.Errors,
	}
	if f := r.fault.Load(); f != 0 {
		t.LastError = virtq.Fault(f).Error()
	}
	if p.dev == nil {
		return t
	}
	v := &p.dev.rings[i]
	t.Size, t.Started, t.Enabled, t.Reason = v.size, v.started, v.enabled, v.reason
	if err := guarded(func() {
		if l := r.live.Load(); l != nil {
			t.Avail, t.Used = l.AvailIndex(), l.UsedIndex()
		}
	}); err != nil {
		t.Reason = err.Error()
	}
	return t
}
