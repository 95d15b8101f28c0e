package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// movers are what is known of the stations of a test of moves, each of which
// moves once.
type movers struct {
	mu    sync.Mutex
	at    map[frame.MAC]int64 // when the latest frame was sent of those that came to the old place
	fresh int                 // frames that came to the new place
}

func (m *movers) old(f []byte) {
	if _, at, ok := numberOf(f); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		to := talkOf(f).dst
		m.at[to] = max(m.at[to], at)
	}
}

func (m *movers) new(f []byte) {
	if _, _, ok := numberOf(f); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.fresh++
	}
}

// TestAMovedStationIsNeverServedWhereItWas moves 20,000 stations from one port to
// another, 10,000 a second if the machine can, while frames are sent to those that
// move about now. What is sent after the event of a station's move never comes out
// of its old port.
func TestAMovedStationIsNeverServedWhereItWas(t *testing.T) {
	inKernelModes(t, testAMovedStationIsNeverServedWhereItWas)
}

func testAMovedStationIsNeverServedWhereItWas(t *testing.T) {
	const (
		stations = 20000
		batch    = 10 // each millisecond
		around   = 16 // how far from the one that moves the sender looks
		first    = 1000
	)
	w := newWires(t, 3, "--stp", "off")
	sender := mac(1)
	station := func(i int) frame.MAC { return mac(first + i) }
	m := &movers{at: map[frame.MAC]int64{}}
	w.listen(0, func([]byte) {})
	w.listen(1, m.old)
	w.listen(2, m.new)
	events, log := w.kvs.monitor()
	awaitMonitor(t, w.kvs, events)
	w.says(0, ether(frame.Broadcast, sender, "here I am"))
	for i := range stations {
		w.says(1, ether(sender, station(i), "here I am"))
		if i%1000 == 999 { // no more than an intake holds
			netns.Await(t, startPatience, "stations are learned", func() error {
				if n := w.kvs.learned(); n < i {
					return fmt.Errorf("%d of %d", n, i)
				}
				return nil
			})
		}
	}

	var moving atomic.Int64
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			i := int(moving.Load()) + n%(2*around) - around
			if i < 0 || i >= stations {
				continue
			}
			if err := w.send(0, numbered(station(i), sender, uint64(n))); err != nil {
				done <- err
				return
			}
		}
	}()
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range stations {
		moving.Store(int64(i))
		w.says(2, ether(sender, station(i), "I have moved"))
		if i%batch == batch-1 {
			<-tick.C
		}
	}
	rate := stations / time.Since(began).Seconds()
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	netns.Await(t, startPatience, "the monitor has told of the last move", func() error {
		if where := w.kvs.where(station(stations - 1)); where != "p2" {
			return fmt.Errorf("the last station is on %q", where)
		}
		return nil
	})

	moved := 0
	m.mu.Lock()
	defer m.mu.Unlock()
	for line := range strings.Lines(log()) {
		var e struct {
			Event, MAC, Port, From string
			Time                   time.Time
		}
		if !strings.HasSuffix(line, "\n") {
			break // half written
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("monitor: %v in %q", err, line)
		}
		if e.Event != "fdb.move" {
			continue
		}
		moved++
		var to frame.MAC
		if err := to.UnmarshalText([]byte(e.MAC)); err != nil || e.From != "p1" || e.Port != "p2" {
			t.Fatalf("a move that there was not: %s", line)
		}
		if late := time.Duration(m.at[to] - e.Time.UnixNano()); late > 0 {
			t.Errorf("%s: a frame that was sent %v after the event of its move came to the old port", e.MAC, late)
		}
	}
	t.Logf("%.0f moves a second; %d of them told of; %d stations had frames at the old place, %d frames came to the new; %d frames went the short way",
		rate, moved, len(m.at), m.fresh, w.short(0))
	if moved < stations/2 || len(m.at) == 0 || m.fresh == 0 || inKernelMode(t) == inKernelAuto && w.short(0) == 0 {
		t.Error("too little to tell")
	}
}
