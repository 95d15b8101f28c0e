// Package sink is the receiving end of the bench.
//
// A Counter counts in the kernel: one small program on the receiving device's
// clsact hook, before any socket or protocol, that counts probes, notices those
// out of order or meant for someone else, and sorts their latencies. It costs
// the same for every contender and at every rate and never runs out of buffer,
// so what it counts is what arrived. It looks at the first 60 bytes only.
//
// An Auditor receives whole frames through a socket and checks every byte, every
// sequence number and every copy. It is too slow for full rate and says when it
// missed frames itself.
package sink

import (
	"errors"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/topo"
)

// The program is C. What the compiler makes of it is committed; make generate
// makes it anew.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel count bpf/count.bpf.c -- -Wall -Werror -I../../switch/port/netdev/bpf

// Counts is what the program counts at one port.
type Counts struct {
	Frames   uint64 // probes that belong here, or to a group
	Bytes    uint64 // of those, without frame check sequence
	Segments uint64 // of those, as they would be on a wire
	Foreign  uint64 // anything that no Station sent
	Astray   uint64 // probes to a station of another port: flooded, or misdelivered
	Late     uint64 // probes with a lower sequence number than one before them
}

// add adds what another port, or processor, counted.
func (c *Counts) add(n Counts) {
	c.Frames += n.Frames
	c.Bytes += n.Bytes
	c.Segments += n.Segments
	c.Foreign += n.Foreign
	c.Astray += n.Astray
	c.Late += n.Late
}

// Counter counts at some ports of a topology. One goroutine uses it at a time.
type Counter struct {
	ports  []*counted
	delays *ebpf.Map // of all ports
}

// counted is a port with its own program and counts.
type counted struct {
	topo.Port
	number  int
	program *ebpf.Program
	counts  *ebpf.Map
	hooked  bool
}

// NewCounter starts to count at the far ends of the given ports. gso says where
// the probes have their stamp. While it is attached nothing else on those
// devices receives anything but sockets that listen to them directly.
//
// It needs CAP_BPF and CAP_NET_ADMIN, and the kernel's sch_ingress and cls_bpf.
func NewCounter(t *topo.Topology, ports []int, gso bool) (*Counter, error) {
	c := &Counter{}
	if err := c.attach(t, ports, gso); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Counter) attach(t *topo.Topology, ports []int, gso bool) error {
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11 maps counted as locked memory
		return fmt.Errorf("raise locked memory limit: %w", err)
	}
	spec, err := loadCount()
	if err != nil {
		return err
	}
	if c.delays, err = ebpf.NewMap(spec.Maps[countMapKvswitchDelays]); err != nil {
		return fmt.Errorf("make latency map: %w", err)
	}
	for _, number := range ports {
		p := &counted{Port: t.Ports[number], number: number}
		c.ports = append(c.ports, p)
		if err := p.load(spec, c.delays, gso); err != nil {
			return fmt.Errorf("load counting program: %w", err)
		}
		if err := p.hook(); err != nil {
			return fmt.Errorf("attach counter to %s: %w", p.End, err)
		}
	}
	return nil
}

// load makes the port's counts, and its program, which adds to delays.
func (p *counted) load(spec *ebpf.CollectionSpec, delays *ebpf.Map, gso bool) error {
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{countMapKvswitchDelays: delays},
	})
	if err != nil {
		return err
	}
	defer all.Close()
	name := countProgKvswitchCount
	if gso {
		name = countProgKvswitchSupers
	}
	p.program, p.counts = all.DetachProgram(name), all.DetachMap(countMapKvswitchCounts)
	return p.reset()
}

func clsact(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}

// hook runs the program on every frame that the device receives. clsact, unlike
// the newer tcx, is there on every kernel since 4.5.
func (p *counted) hook() error {
	nl := p.Host.Netlink()
	if err := nl.QdiscAdd(clsact(p.Index)); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	p.hooked = true
	return nl.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: p.Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: p.program.FD(), Name: countProgKvswitchCount, DirectAction: true,
	})
}

// close detaches the program and frees it.
func (p *counted) close() error {
	var errs []error
	if p.hooked {
		if err := p.Host.Netlink().QdiscDel(clsact(p.Index)); err != nil {
			errs = append(errs, fmt.Errorf("detach counter from %s: %w", p.End, err))
		}
	}
	return errors.Join(append(errs, p.program.Close(), p.counts.Close())...)
}

// Read is the sum over the ports since the last Reset.
func (c *Counter) Read() (Counts, error) {
	var sum Counts
	for _, p := range c.ports {
		n, err := p.read()
		if err != nil {
			return sum, err
		}
		sum.add(n)
	}
	return sum, nil
}

// ReadPort is the count of one port since the last Reset.
func (c *Counter) ReadPort(port int) (Counts, error) {
	for _, p := range c.ports {
		if p.number == port {
			return p.read()
		}
	}
	return Counts{}, fmt.Errorf("read counter: port %d has none", port)
}

func (p *counted) read() (sum Counts, err error) {
	var perCPU []countCounts
	if err := p.counts.Lookup(uint32(0), &perCPU); err != nil {
		return Counts{}, fmt.Errorf("read counter: %w", err)
	}
	for _, v := range perCPU {
		sum.add(Counts{v.Frames, v.Bytes, v.Segments, v.Foreign, v.Astray, v.Late})
	}
	return sum, nil
}

// Latencies are those of all ports since the last Reset, in nanoseconds from
// the stamp to the counter.
func (c *Counter) Latencies() (*hdrhistogram.Histogram, error) {
	var perCPU []countLatencies
	if err := c.delays.Lookup(uint32(0), &perCPU); err != nil {
		return nil, fmt.Errorf("read latencies: %w", err)
	}
	h := NewHistogram()
	for _, l := range perCPU {
		if err := fill(h, l.Buckets[:]); err != nil {
			return nil, fmt.Errorf("fill histogram: %w", err)
		}
	}
	return h, nil
}

// Reset sets every count to zero. Frames in flight are the caller's to wait for.
func (c *Counter) Reset() error {
	for _, p := range c.ports {
		if err := p.reset(); err != nil {
			return err
		}
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	if err := c.delays.Put(uint32(0), make([]countLatencies, cpus)); err != nil {
		return fmt.Errorf("reset latencies: %w", err)
	}
	return nil
}

func (p *counted) reset() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	zero := make([]countCounts, cpus)
	for i := range zero {
		zero[i].Port = uint64(p.number)
	}
	if err := p.counts.Put(uint32(0), zero); err != nil {
		return fmt.Errorf("reset counter: %w", err)
	}
	return nil
}

// Close detaches the programs and frees the maps.
func (c *Counter) Close() error {
	errs := []error{c.delays.Close()}
	for _, p := range c.ports {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
