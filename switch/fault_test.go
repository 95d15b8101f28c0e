package vswitch_test

import (
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// vanishing is a port whose frames lie in a file that its peer cut short.
type vanishing struct {
	*mem.Port
	faults atomic.Int32
}

func (v *vanishing) Queues() []frame.Queue {
	return []frame.Queue{&vanishingQueue{v.Port.Queues()[0], v}}
}

type vanishingQueue struct {
	frame.Queue
	port *vanishing
}

func (q *vanishingQueue) Fault(err error) {
	q.port.faults.Add(1)
	q.port.SetState(func(s *frame.State) { s.Up, s.Reason = false, err.Error() })
}

func TestPeerThatTakesItsMemoryAwayCostsItsPortOnly(t *testing.T) {
	fd, err := unix.MemfdCreate("guest", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "guest")
	defer file.Close()
	if err := file.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)

	l := newLab(t, vswitch.Config{}, 2)
	guest := &vanishing{Port: mem.NewPort()}
	if _, err := l.AddPort("guest", guest, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	good := mem.Ethernet(bcast, macA, "good")
	copy(memory[4096:], good)
	if err := file.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	guest.Inject(good, memory[4096:4096+60], good)
	eventually(t, "the guest's port goes down", func() bool {
		st, _ := l.PortStatus("guest")
		return guest.faults.Load() == 1 && st.Link == "down"
	})
	l.send(1, good)
	l.expect("the others forward", map[int][][]byte{2: one(good)})
}
