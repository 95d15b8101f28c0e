package vhostuser

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What a front end shares with the switch lies in the switch's own address space,
// and there must be enough left of that for others: for the other ports, and for
// Go's heap, which ends the process when it can't grow. Files are sparse, so a
// front end has terabytes to share for nothing.
const (
	// maxPortBytes is the most guest memory of one port: above any guest known
	// to have a vhost-user network card.
	maxPortBytes = 2 << 40
	// maxLogBytes is a dirty log's bits for all that 52 address bits reach.
	maxLogBytes = 1 << (52 - 12 - 3)
	// maxInflightBytes is more than the rings of any port need.
	maxInflightBytes = 1 << 30
	// maxSharedBytes is the most of all ports together: half the address space
	// that Linux gives a process on a machine with 47 bits.
	maxSharedBytes = 64 << 40
)

// shared counts what is mapped of front ends' files in this process.
var shared struct{ bytes, maps atomic.Int64 }

// maxSharedMaps is the most mappings of all ports together: half of what the
// kernel lets a process have.
var maxSharedMaps = sync.OnceValue(func() int64 {
	n := int64(65530) // the kernel's default
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			n = v
		}
	}
	return n / 2
})

// share takes room for a mapping of n bytes, which unshare gives back.
func share(n int) error {
	bytes, maps := shared.bytes.Add(int64(n)), shared.maps.Add(1)
	switch {
	case bytes > maxSharedBytes:
		unshare(n)
		return fmt.Errorf("%#x bytes more than the %d TiB that all ports may have mapped", bytes-maxSharedBytes, maxSharedBytes>>40)
	case maps > maxSharedMaps():
		unshare(n)
		return fmt.Errorf("all ports together have the %d memory regions mapped that they may have (half of vm.max_map_count)", maxSharedMaps())
	}
	return nil
}

func unshare(n int) {
	shared.bytes.Add(int64(-n))
	shared.maps.Add(-1)
}

// inMemory reports whether a descriptor is a file in memory, on tmpfs or
// hugetlbfs, as memfds are: nobody can keep others waiting for its pages. The
// server of a FUSE file, for one, can put to sleep whoever reads the file, touches
// a mapping of it, or merely asks for its size. So this asks what the kernel knows
// without the file system's help: only files of those two have seals.
func inMemory(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil
}

// nameOf is what to call a descriptor in an error.
func nameOf(fd int) string {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "descriptor"
	}
	return name
}

// discard closes descriptors that nobody took; -1 is one that somebody did. close(2)
// asks a file's server, too, and waits for the answer; so what is not known to be
// harmless is closed by a goroutine of its own, which is waited for until done at
// the longest.
func discard(fds []int, done <-chan struct{}) {
	var strange []int
	for _, fd := range fds {
		if fd >= 0 && !inMemory(fd) {
			strange = append(strange, fd)
			continue
		}
		closeFD(&fd)
	}
	if strange == nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, fd := range strange {
			unix.Close(fd)
		}
	}()
	select {
	case <-closed:
	case <-done:
	}
}
