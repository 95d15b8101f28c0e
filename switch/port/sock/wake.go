package sock

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// wake is the descriptor that a queue shows to epoll for all its life: an epoll
// set of its own, in which connections come and go (sets nest, epoll(7)), and
// an eventfd for frames that lie in our buffer already.
type wake struct {
	set    *sysio.Epoll
	event  *sysio.EventFD
	raised bool // event is signalled; guarded by the queue's lock
}

func newWake() (*wake, error) {
	set, err := sysio.NewEpoll()
	if err != nil {
		return nil, err
	}
	event, err := sysio.NewEventFD()
	if err != nil {
		set.Close()
		return nil, err
	}
	w := &wake{set: set, event: event}
	if err := w.add(event.FD()); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// add watches fd for input.
func (w *wake) add(fd int) error { return w.set.Add(fd, 0) }

// remove stops watching fd, which may have been removed before.
func (w *wake) remove(fd int) { w.set.Del(fd) }

// wantWrite also watches fd for room to write, or no longer does.
func (w *wake) wantWrite(fd int, on bool) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(w.set.FD(), unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor %d for room: %w", fd, err)
	}
	return nil
}

// raise makes the descriptor readable, or no longer so, on account of frames
// that were read before. It costs a system call only when that changes.
func (w *wake) raise(on bool) {
	if on == w.raised {
		return
	}
	w.raised = on
	if on {
		w.event.Signal()
	} else {
		w.event.Drain()
	}
}

func (w *wake) close() {
	w.event.Close()
	w.set.Close()
}
