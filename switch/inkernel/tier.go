// Package inkernel is the short way: frames between known stations at netdev
// ports never leave the kernel. It holds the memory that the ports' BPF programs
// read (package netdev loads them): the filtering database, the ports as the view
// has them, VLANs, counters, and the time until which all of that counts.
//
// The programs decide a subset of what package relay decides, by the same rules
// and the same table, and leave all else to the relays. A Tier follows the
// switch's views: what it forbids is in force in every program when Follow
// returns. And it forwards only as long as the switch says that it is alive
// (Beat): a process that is stopped or stuck can't hear BPDUs, and must not keep a
// loop closed.
//
// It loads no program, opens no port and knows nothing of the switch. The switch
// calls Follow and Beat one at a time; Port, Memory and Maps may be called from any
// goroutine, Close once, when no port that has the maps is open any more.
package inkernel

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Options of a tier.
type Options struct {
	MaxEntries int  // of the table, as for fdb.New
	Filtering  bool // VLANs are kept apart
}

// Tier is the memory that programs and switch share. Make one with New.
type Tier struct {
	sizes  Sizes
	maps   map[string]*ebpf.Map
	mapped [][]byte
	head   *head
	table  fdb.Memory
	rows   []row
	vlans  []vlans
	counts [][]count // by processor, then by port

	mu    sync.Mutex // guards ports and used
	ports [relay.MaxPorts]port
	used  int // ports that the last view had room for

	grace     func() error
	freeGrace func()
	broken    error         // grace failed: nothing is forwarded any more
	offset    time.Duration // how long the host had been suspended when Beat last looked
}

// Sizes are constants of every program, struct tier_sizes in forward.h.
type Sizes struct {
	Buckets   uint32 // of the table, without overflow buckets
	Filtering uint32 // 1: VLANs are kept apart
}

// Names of the maps, as the programs have them.
const (
	MapTier   = "kvswitch_tier"
	MapRows   = "kvswitch_rows"
	MapVLANs  = "kvswitch_vlans"
	MapCounts = "kvswitch_counts"
)

// ErrArch says why there is no tier on this processor.
var ErrArch = errors.New("needs loads in order, which BPF programs have on amd64 only")

// New makes the memory. It fails where the kernel or the process's rights don't
// allow that; nothing is left then.
func New(o Options) (_ *Tier, err error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("forward in the kernel: %w", ErrArch)
	}
	_ = rlimit.RemoveMemlock()
	t := &Tier{maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			t.Close()
			err = fmt.Errorf("make memory to forward by in the kernel: %w", err)
		}
	}()
	if t.grace, t.freeGrace, err = newGrace(); err != nil {
		return nil, err
	}
	buckets := fdb.NumBuckets(o.MaxEntries)
	regular := 1 << (bits.Len(uint(buckets)) - 1)
	t.sizes = Sizes{Buckets: uint32(regular)}
	processors := processors()
	mem, err := t.make(MapTier, headSize+fdb.MemorySize(o.MaxEntries), 1)
	if err != nil {
		return nil, err
	}
	t.head, t.table = headAt(mem, buckets)
	if mem, err = t.make(MapRows, rowSize, relay.MaxPorts); err != nil {
		return nil, err
	}
	t.rows = rowsAt(mem)
	n := 1
	if o.Filtering {
		t.sizes.Filtering, n = 1, relay.MaxPorts
	}
	if mem, err = t.make(MapVLANs, vlansSize, n); err != nil {
		return nil, err
	}
	t.vlans = vlansAt(mem, n)
	if mem, err = t.make(MapCounts, countSize, processors*relay.MaxPorts); err != nil {
		return nil, err
	}
	t.counts = countsAt(mem, processors)
	t.offset = suspended()
	return t, nil
}

// Available reports why this process can't have a tier, or nil.
func Available() error {
	t, err := New(Options{MaxEntries: 1})
	if err != nil {
		return err
	}
	t.Close()
	return nil
}

// processors is how many numbers of processors there may be.
func processors() int {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		n = runtime.NumCPU()
	}
	return n
}

// make makes a map of n values and maps its memory.
func (t *Tier) make(name string, size, n int) ([]byte, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: uint32(n), Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		return nil, err
	}
	t.maps[name] = m
	page := os.Getpagesize()
	mem, err := sysio.Map(m.FD(), 0, (size*n+page-1)/page*page)
	if err != nil {
		return nil, err
	}
	t.mapped = append(t.mapped, mem)
	return mem, nil
}

// Close gives the memory back. Nobody may use the table any more.
func (t *Tier) Close() {
	for _, m := range t.mapped {
		_ = sysio.Unmap(m)
	}
	for _, m := range t.maps {
		m.Close()
	}
	t.mapped, t.maps = nil, nil
	if t.freeGrace != nil {
		t.freeGrace()
	}
}

// Memory is where the filtering database lies.
func (t *Tier) Memory() fdb.Memory { return t.table }

// Maps are the maps that programs are loaded with, by name.
func (t *Tier) Maps() map[string]*ebpf.Map { return t.maps }

// Sizes are the constants that programs are loaded with.
func (t *Tier) Sizes() Sizes { return t.sizes }

// Carried implements relay.Follower.
func (t *Tier) Carried(n int) (c relay.Carried) {
	t.mu.Lock()
	p := &t.ports[n]
	c.Active, c.Why = p.state&(mayReceive|maySend) != 0, p.why
	t.mu.Unlock()
	for _, by := range t.counts {
		c.RxFrames += atomic.LoadUint64(&by[n].rxFrames)
		c.RxBytes += atomic.LoadUint64(&by[n].rxBytes)
		c.TxFrames += atomic.LoadUint64(&by[n].txFrames)
		c.TxBytes += atomic.LoadUint64(&by[n].txBytes)
	}
	return c
}

var _ relay.Follower = (*Tier)(nil)

// Beat says that the switch is alive and its spanning tree served, and that this
// may be counted on for d. Without another one in time programs stop forwarding.
// It reports false when it comes too late, or after the host was suspended: then
// nothing is forwarded until the next call, before which the switch must have
// heard all that waited for it and published a view.
func (t *Tier) Beat(d time.Duration) bool {
	now, offset := coarse(), suspended()
	if t.broken != nil {
		return true // it won't get better by waiting
	}
	until := t.head.until.Load()
	if until != 0 && now >= until || offset-t.offset > time.Second {
		t.offset = offset
		t.head.until.Store(0)
		return false
	}
	t.offset = offset
	t.head.until.Store(now + uint64(max(d, 0)))
	return true
}

// Stop ends all forwarding in the kernel until the next Beat.
func (t *Tier) Stop() { t.head.until.Store(0) }
