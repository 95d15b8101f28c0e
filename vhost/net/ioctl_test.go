package vhostnet

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"

	"golang.org/x/sys/unix"
)

// address is where b begins. reflect lets b escape to the heap, where nothing
// moves.
func address(b []byte) uint64 { return uint64(reflect.ValueOf(b).Pointer()) }

// Ioctls of linux/vhost.h beside vhostGetFeatures.
const (
	vhostSetFeatures  = 0x4008af00 // u64
	vhostSetOwner     = 0x0000af01 // none
	vhostSetMemTable  = 0x4008af03 // struct vhost_memory
	vhostSetVringNum  = 0x4008af10 // struct vhost_vring_state
	vhostSetVringAddr = 0x4028af11 // struct vhost_vring_addr
	vhostSetVringBase = 0x4008af12 // struct vhost_vring_state
	vhostSetVringKick = 0x4008af20 // struct vhost_vring_file
	vhostSetVringCall = 0x4008af21 // struct vhost_vring_file
	vhostSetBackend   = 0x4008af30 // struct vhost_vring_file
)

// device is an open /dev/vhost-net.
type device int

func (d device) call(what string, request uint, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d), uintptr(request), uintptr(address(arg)))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return fmt.Errorf("vhost: %s: %w", what, errno)
	}
	return nil
}

func (d device) setOwner() error { return d.call("set owner", vhostSetOwner, nil) }

func (d device) setFeatures(bits uint64) error {
	return d.call("set features", vhostSetFeatures, binary.NativeEndian.AppendUint64(nil, bits))
}

// setMemory makes mem the whole of the guest's memory, at its own address.
func (d device) setMemory(mem []byte) error {
	at := address(mem)
	b := words32(1, 0)                    // one region
	b = words64(b, at, uint64(len(mem)))  // guest_phys_addr, memory_size
	b = words64(b, at /* userspace */, 0) // userspace_addr, flags
	return d.call("set memory table", vhostSetMemTable, b)
}

// setRing describes a ring: its size, its three areas, index 0, and the
// eventfds by which each side wakes the other.
func (d device) setRing(index uint32, size int, desc, avail, used []byte, kick, call int) error {
	if err := d.call("set ring size", vhostSetVringNum, words32(index, uint32(size))); err != nil {
		return err
	}
	if err := d.call("set ring base", vhostSetVringBase, words32(index, 0)); err != nil {
		return err
	}
	addr := words64(words32(index, 0), address(desc), address(used), address(avail), 0)
	if err := d.call("set ring addresses", vhostSetVringAddr, addr); err != nil {
		return err
	}
	if err := d.call("set kick", vhostSetVringKick, words32(index, uint32(kick))); err != nil {
		return err
	}
	return d.call("set call", vhostSetVringCall, words32(index, uint32(call)))
}

// setBackend joins a ring to a tap, or with -1 stops it: when that returns the
// kernel touches the ring no more.
func (d device) setBackend(index uint32, tap int) error {
	return d.call("set backend", vhostSetBackend, words32(index, uint32(int32(tap))))
}

func words32(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func words64(b []byte, v ...uint64) []byte {
	for _, w := range v {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}
