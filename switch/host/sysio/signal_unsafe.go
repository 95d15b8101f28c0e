package sysio

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signal adds 1 to eventfds that belong to somebody else. write(2) does that,
// too, but its owner can make an eventfd a blocking one at any time, and fill it,
// and then the writer sleeps for as long as the owner likes; eventfds have no
// other write that can't. What never blocks is the kernel's own signal, which it
// sends for one of its asynchronous reads (io_submit(2), IOCB_FLAG_RESFD): so
// this reads nothing from /dev/null, which is done before io_submit returns, and
// has the kernel signal that.
//
// Where the kernel has no asynchronous I/O, or a sandbox forbids it, a Signal
// writes; so it needs descriptors that are non-blocking at least to begin with.
// A Signal is used by one goroutine at a time; it must be allocated once, not per
// call.
type Signal struct {
	cb   iocb
	list *iocb
}

// iocb is struct iocb of linux/aio_abi.h: 64 bytes, of which a read of nothing
// that signals a descriptor sets these.
type iocb struct {
	_            [16]byte // aio_data, aio_key, aio_rw_flags
	opcode       uint16
	_            int16 // aio_reqprio
	fd           uint32
	_            [32]byte // aio_buf, aio_nbytes, aio_offset, aio_reserved2
	flags, resFD uint32
}

var _ [64]byte = [unsafe.Sizeof(iocb{})]byte{}

// ioEvent is struct io_event.
type ioEvent struct{ data, obj, res, res2 uint64 }

const (
	iocbRead  = 0 // IOCB_CMD_PREAD
	iocbResFD = 1 // IOCB_FLAG_RESFD
)

// signals is the process's one context for all Signals. The kernel keeps a result
// of each read; nobody needs them, and they are removed when there are too many.
var signals struct {
	once    sync.Once
	err     error   // of once
	context uintptr // 0: there is none
	null    int
	mu      sync.Mutex
	events  [256]ioEvent
}

// PrepareSignals opens what Signals need, once for the life of the process, and
// reports why that failed. Until it is called, Signals write.
func PrepareSignals() error {
	s := &signals
	s.once.Do(func() {
		if s.null, s.err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); s.err != nil {
			s.err = fmt.Errorf("open /dev/null: %w", s.err)
			return
		}
		if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, uintptr(len(s.events)), uintptr(unsafe.Pointer(&s.context)), 0); e != 0 {
			s.context = 0
			unix.Close(s.null)
			s.err = fmt.Errorf("io_setup: %w", e)
		}
	})
	return s.err
}

// Send signals fd. If fd can't be signalled, its owner alone is affected.
func (s *Signal) Send(fd int) {
	if signals.context == 0 {
		Write(fd, one[:])
		return
	}
	s.cb = iocb{opcode: iocbRead, fd: uint32(signals.null), flags: iocbResFD, resFD: uint32(fd)}
	s.list = &s.cb
	if s.submit() == unix.EAGAIN {
		forget()
		s.submit()
	}
}

var one = [8]byte{1}

func (s *Signal) submit() unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_IO_SUBMIT, signals.context, 1, uintptr(unsafe.Pointer(&s.list)))
	return e
}

// forget removes results, as many as there are; it does not wait for any.
func forget() {
	s := &signals
	s.mu.Lock()
	defer s.mu.Unlock()
	unix.RawSyscall6(unix.SYS_IO_GETEVENTS, s.context, 0, uintptr(len(s.events)), uintptr(unsafe.Pointer(&s.events[0])), 0, 0)
}
