package mem

import (
	"sync"

	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// bell is a queue's descriptor, which a worker sleeps on. It is made when it is
// asked for the first time: a port that is driven by hand has none. The zero value
// is ready.
type bell struct {
	mu     sync.Mutex
	event  *sysio.EventFD // nil: nobody asked, or closed
	closed bool
}

// fd makes the descriptor, if there is none, and returns it. On an error it is -1,
// which no epoll takes.
func (b *bell) fd() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.event == nil && !b.closed {
		var err error
		if b.event, err = sysio.NewEventFD(); err != nil {
			return -1, err
		}
	}
	if b.event == nil {
		return -1, nil
	}
	return b.event.FD(), nil
}

// ring makes the descriptor readable, hush no longer so.
func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.event != nil {
		b.event.Signal()
	}
}

func (b *bell) hush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.event != nil {
		b.event.Drain()
	}
}

func (b *bell) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	event := b.event
	b.event, b.closed = nil, true
	if event == nil {
		return nil
	}
	return event.Close()
}
