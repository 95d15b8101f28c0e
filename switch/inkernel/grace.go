package inkernel

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Commands of membarrier(2).
const (
	membarrierQuery  = 0
	membarrierGlobal = 1
)

// newGrace finds out how to wait until every program that runs now has ended:
// one grace period of the kernel's RCU, 8 to 20 ms.
//
// membarrier does just that, but not with nohz_full; storing into a map of maps
// does it by the way, as the kernel promises not to leave anybody with the old
// map.
func newGrace() (wait func() error, free func(), err error) {
	barrier := func() error {
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
			return fmt.Errorf("membarrier: %w", errno)
		}
		return nil
	}
	mask, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierQuery, 0, 0)
	if errno == 0 && mask&membarrierGlobal != 0 {
		return barrier, func() {}, nil
	}
	return graceByMap()
}

func graceByMap() (wait func() error, free func(), err error) {
	spec := &ebpf.MapSpec{Name: "kvswitch_grace", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, nil, err
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kvswitch_graces", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec})
	if err != nil {
		inner.Close()
		return nil, nil, err
	}
	return func() error { return outer.Put(uint32(0), inner) }, func() { outer.Close(); inner.Close() }, nil
}

// wait returns when every program that may have seen an older row has ended.
func (t *Tier) wait() {
	if err := t.grace(); err != nil {
		// Neither can fail for a reason that will pass. Nothing is forwarded
		// in the kernel any more; programs end within microseconds.
		t.broken = err
		t.Stop()
		time.Sleep(graceAnyway)
	}
}

// graceAnyway is far longer than any program runs.
const graceAnyway = 50 * time.Millisecond
