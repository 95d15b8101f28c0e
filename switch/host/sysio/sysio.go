// Package sysio is the switch's system calls: epoll, eventfd, batched socket
// I/O, memory mapping and CPU affinity, in the few forms that ports and workers
// use and golang.org/x/sys does not have without allocating.
//
// It makes no decision, keeps no state beside the descriptors it is asked to
// open and what Signal needs, and starts no goroutine. Calls that can't block go
// around the Go scheduler (RawSyscall): they must be short, because the garbage
// collector waits for them. Calls that may sleep tell the scheduler.
//
// Every function may be called from any goroutine; what the kernel says about
// sharing a descriptor holds.
package sysio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Map maps length bytes of fd from offset, shared, for reading and writing.
// length must be more than 0. The memory is outside Go's heap: it does not move
// and the garbage collector does not look at it. Give it back with Unmap.
func Map(fd int, offset int64, length int) ([]byte, error) {
	b, err := unix.Mmap(fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", length, err)
	}
	return b, nil
}

// MapReadOnly is Map for reading alone.
func MapReadOnly(fd int, offset int64, length int) ([]byte, error) {
	b, err := unix.Mmap(fd, offset, length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", length, err)
	}
	return b, nil
}

// MapAnonymous maps length bytes of zeroed private memory outside Go's heap.
// Pages cost nothing before they are touched.
func MapAnonymous(length int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", length, err)
	}
	return b, nil
}

// Unmap gives back what Map, MapReadOnly or MapAnonymous returned; b must be that
// very slice. Nothing may look at the memory any more. With a nil b it does nothing.
func Unmap(b []byte) error {
	if b == nil {
		return nil
	}
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("unmap %d bytes: %w", len(b), err)
	}
	return nil
}
