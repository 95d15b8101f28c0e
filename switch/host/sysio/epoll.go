package sysio

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Epoll is an epoll(7) set of level-triggered descriptors, each carrying a
// 64-bit value of the caller's choice. Any goroutine may add and delete while
// another waits.
type Epoll struct{ fd int }

// NewEpoll makes an empty set.
func NewEpoll() (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	return &Epoll{fd}, nil
}

// FD is the set's own descriptor, which is readable when one of its members is:
// epoll sets may be put into epoll sets.
func (e *Epoll) FD() int { return e.fd }

// Add watches fd for reading. Events for it carry value. Errors and hang-ups
// are always reported, too.
func (e *Epoll) Add(fd int, value uint64) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	putValue(&ev, value)
	if err := unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("add descriptor %d to epoll set: %w", fd, err)
	}
	return nil
}

// Mod gives fd another value.
func (e *Epoll) Mod(fd int, value uint64) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	putValue(&ev, value)
	if err := unix.EpollCtl(e.fd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("modify descriptor %d in epoll set: %w", fd, err)
	}
	return nil
}

// Del stops watching fd. It must be called before fd is closed if anything else
// (a mapping, a duplicate) keeps the open file alive.
func (e *Epoll) Del(fd int) error {
	if err := unix.EpollCtl(e.fd, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return fmt.Errorf("delete descriptor %d from epoll set: %w", fd, err)
	}
	return nil
}

// Wait fills events with what is ready and says how many. timeoutMs is in
// milliseconds: 0 only looks and never sleeps, -1 waits without limit. A signal
// ends the wait early with 0 and no error, as a timeout does.
func (e *Epoll) Wait(timeoutMs int, events []Event) (int, error) {
	return waited(epollWait(e.fd, events, timeoutMs))
}

// WaitFor is Wait with a limit that is no whole number of milliseconds, and more
// than 0. Before Linux 5.11 it is rounded down to one.
func (e *Epoll) WaitFor(limit time.Duration, events []Event) (int, error) {
	n, errno := epollWaitFor(e.fd, events, limit)
	if errno == unix.ENOSYS {
		return e.Wait(int(limit.Milliseconds()), events)
	}
	return waited(n, errno)
}

func waited(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return n, nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("wait on epoll set: %w", errno)
}

// Close closes the set, not its members.
func (e *Epoll) Close() error { return unix.Close(e.fd) }

// Event is one ready descriptor, laid out as the kernel's struct epoll_event.
type Event unix.EpollEvent

// Value is the value that the descriptor was added with.
func (e *Event) Value() uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// putValue spreads value over the two fields that x/sys makes of epoll_data.
func putValue(ev *unix.EpollEvent, value uint64) {
	ev.Fd, ev.Pad = int32(uint32(value)), int32(uint32(value>>32))
}

// EventFD is an eventfd(2): a counter that makes a descriptor readable. It wakes
// a worker that sleeps in Epoll.Wait.
type EventFD struct{ fd int }

// NewEventFD makes one that is not signalled.
func NewEventFD() (*EventFD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &EventFD{fd}, nil
}

// FD is the descriptor to add to an Epoll.
func (e *EventFD) FD() int { return e.fd }

// Signal makes FD readable. It neither blocks nor fails: a counter that is full
// is readable already.
func (e *EventFD) Signal() {
	one := [8]byte{1}
	Write(e.fd, one[:])
}

// Drain makes FD unreadable until the next Signal and reports whether it had
// been signalled.
func (e *EventFD) Drain() bool {
	var b [8]byte
	n, errno := Read(e.fd, b[:])
	return errno == 0 && n == len(b)
}

// Close closes the descriptor. Signal must not be called any more.
func (e *EventFD) Close() error { return unix.Close(e.fd) }
