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

// Counter counts at some ports of a topology. One goroutine uses it at a time.
type Counter struct {
	ports     []int
	counts    *ebpf.Map
	latencies *ebpf.Map
	programs  []*ebpf.Program
	detach    []func() error
}

// NewCounter starts to count at the far ends of the given ports. gso says where
// the probes have their stamp. While it is attached nothing else on those
// devices receives anything but sockets that listen to them directly.
//
// It needs CAP_BPF and CAP_NET_ADMIN, and the kernel's sch_ingress and cls_bpf.
func NewCounter(t *topo.Topology, ports []int, gso bool) (*Counter, error) {
	c := &Counter{ports: ports}
	if err := c.attach(t, gso); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Counter) attach(t *topo.Topology, gso bool) (err error) {
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11 maps counted as locked memory
		return fmt.Errorf("raise locked memory limit: %w", err)
	}
	c.counts, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "kvs_counts", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: countSize,
		MaxEntries: uint32(len(t.Ports)),
	})
	if err != nil {
		return fmt.Errorf("make counter map: %w", err)
	}
	c.latencies, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "kvs_latencies", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8 * buckets, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("make latency map: %w", err)
	}
	for _, port := range c.ports {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name:         "kvs_count",
			Type:         ebpf.SchedCLS,
			Instructions: counting(c.counts, c.latencies, port, gso),
			License:      "MIT",
		})
		if err != nil {
			return fmt.Errorf("load counting program: %w", err)
		}
		c.programs = append(c.programs, prog)
		p := t.Ports[port]
		if err := hook(p.Host.Netlink(), p.Index, prog); err != nil {
			return fmt.Errorf("attach counter to %s: %w", p.End, err)
		}
		c.detach = append(c.detach, func() error {
			if err := unhook(p.Host.Netlink(), p.Index); err != nil {
				return fmt.Errorf("detach counter from %s: %w", p.End, err)
			}
			return nil
		})
	}
	return nil
}

func clsact(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}

// hook runs prog on every frame that the device receives. clsact, unlike the
// newer tcx, is there on every kernel since 4.5.
func hook(nl *netlink.Handle, index int, prog *ebpf.Program) error {
	if err := nl.QdiscAdd(clsact(index)); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	return nl.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "kvs_count", DirectAction: true,
	})
}

func unhook(nl *netlink.Handle, index int) error { return nl.QdiscDel(clsact(index)) }

// Read is the sum over the ports since the last Reset.
func (c *Counter) Read() (Counts, error) {
	var sum Counts
	for _, p := range c.ports {
		n, err := c.ReadPort(p)
		if err != nil {
			return sum, err
		}
		sum.Frames += n.Frames
		sum.Bytes += n.Bytes
		sum.Segments += n.Segments
		sum.Foreign += n.Foreign
		sum.Astray += n.Astray
		sum.Late += n.Late
	}
	return sum, nil
}

// ReadPort is the count of one port since the last Reset.
func (c *Counter) ReadPort(port int) (Counts, error) {
	var perCPU [][countSize / 8]uint64
	if err := c.counts.Lookup(uint32(port), &perCPU); err != nil {
		return Counts{}, fmt.Errorf("read counter: %w", err)
	}
	var sum Counts
	for _, v := range perCPU {
		sum.Frames += v[countFrames/8]
		sum.Bytes += v[countBytes/8]
		sum.Segments += v[countSegments/8]
		sum.Foreign += v[countForeign/8]
		sum.Astray += v[countAstray/8]
		sum.Late += v[countLate/8]
	}
	return sum, nil
}

// Latencies are those of all ports since the last Reset, in nanoseconds from
// the stamp to the counter.
func (c *Counter) Latencies() (*hdrhistogram.Histogram, error) {
	var perCPU [][buckets]uint64
	if err := c.latencies.Lookup(uint32(0), &perCPU); err != nil {
		return nil, fmt.Errorf("read latencies: %w", err)
	}
	h := NewHistogram()
	for _, counts := range perCPU {
		if err := fill(h, counts[:]); err != nil {
			return nil, fmt.Errorf("fill histogram: %w", err)
		}
	}
	return h, nil
}

// Reset sets every count to zero. Frames in flight are the caller's to wait for.
func (c *Counter) Reset() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	for _, p := range c.ports {
		if err := c.counts.Put(uint32(p), make([][countSize / 8]uint64, cpus)); err != nil {
			return fmt.Errorf("reset counter: %w", err)
		}
	}
	if err := c.latencies.Put(uint32(0), make([][buckets]uint64, cpus)); err != nil {
		return fmt.Errorf("reset latencies: %w", err)
	}
	return nil
}

// Close detaches the programs and frees the maps.
func (c *Counter) Close() error {
	var errs []error
	for _, d := range c.detach {
		errs = append(errs, d())
	}
	for _, p := range c.programs {
		errs = append(errs, p.Close())
	}
	if c.counts != nil {
		errs = append(errs, c.counts.Close())
	}
	if c.latencies != nil {
		errs = append(errs, c.latencies.Close())
	}
	return errors.Join(errs...)
}
