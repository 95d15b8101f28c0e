package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// bell is the descriptor that a worker sleeps on for one queue, the same for the
// queue's lifetime while the guest's kick descriptors come and go: an epoll set
// of the kick descriptor and an eventfd of our own.
//
// Both are watched edge-triggered, so that taking note of a ring is an
// epoll_wait(2) that can't block. Reading the guest's eventfd could, because the
// guest may make it a blocking one at any time.
type bell struct {
	set  int
	wake int
	kick int // a member of set, or -1
}

func newBell() (b bell, err error) {
	b = bell{set: -1, wake: -1, kick: -1}
	if b.set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return b, fmt.Errorf("create epoll set: %w", err)
	}
	if b.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(b.set)
		return b, fmt.Errorf("create eventfd: %w", err)
	}
	if err := b.watch(b.wake); err != nil {
		b.close()
		return b, err
	}
	return b, nil
}

func (b *bell) watch(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(b.set, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	return nil
}

// setKick makes fd, or nothing if it is -1, the guest's kick descriptor. The one
// before is not watched any more and is the caller's to close. On an error it
// stays.
func (b *bell) setKick(fd int) error {
	if fd >= 0 {
		if err := b.watch(fd); err != nil {
			return err
		}
	}
	if b.kick >= 0 {
		unix.EpollCtl(b.set, unix.EPOLL_CTL_DEL, b.kick, nil)
	}
	b.kick = fd
	return nil
}

var one = [8]byte{1}

// ring makes the descriptor readable.
func (b *bell) ring() { unix.Write(b.wake, one[:]) }

// hush makes the descriptor unreadable until it rings again.
func (b *bell) hush(events []unix.EpollEvent) { unix.EpollWait(b.set, events, 0) }

func (b *bell) close() {
	unix.Close(b.wake)
	unix.Close(b.set)
}
