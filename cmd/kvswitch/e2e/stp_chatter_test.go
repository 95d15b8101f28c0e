package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// chatter is stations that broadcast all the time, in numbered rounds, so that
// it is known of every round who heard whom, and how often. The time that
// counts is when a frame was sent: whoever reads them may read late.
type chatter struct {
	stations []*netns.Station

	mu   sync.Mutex
	sent []time.Time // by round
	err  error       // that ended it

	// Of the test's goroutine: copies[to][from][round] is how often a station
	// heard a broadcast.
	copies [][][]uint8
	heard  int
}

// chatterMark begins the body of a chatter's frames.
const chatterMark = "chatter:"

// startChatter lets stations talk until the test ends. The pause from one round
// to the next is the precision of times that are measured with it.
func startChatter(t *testing.T, stations []*netns.Station, pause time.Duration) *chatter {
	c := &chatter{stations: stations, copies: make([][][]uint8, len(stations))}
	for to := range c.copies {
		c.copies[to] = make([][]uint8, len(stations))
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				c.say()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		if c.err != nil {
			t.Errorf("send chatter: %v", c.err)
		}
	})
	return c
}

// say broadcasts once from every station.
func (c *chatter) say() {
	c.mu.Lock()
	defer c.mu.Unlock()
	round := len(c.sent)
	c.sent = append(c.sent, time.Now())
	for from, s := range c.stations {
		body := binary.BigEndian.AppendUint32(append([]byte(chatterMark), byte(from)), uint32(round))
		err := s.TrySend(ether(frame.Broadcast, mac(from), string(body)))
		if err != nil && !errors.Is(err, unix.ENOBUFS) && c.err == nil { // ENOBUFS is a frame that veth lost
			c.err = err
		}
	}
}

// rounds is how many rounds there were: the number of the next one.
func (c *chatter) rounds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent)
}

// listen takes in what the stations have heard.
func (c *chatter) listen() {
	for to, s := range c.stations {
		for {
			f, ok := s.Recv(0)
			if !ok {
				break
			}
			c.count(to, f)
		}
	}
}

func (c *chatter) count(to int, f []byte) {
	const head = frame.HeaderLen + len(chatterMark)
	if len(f) < head+5 || string(f[frame.HeaderLen:head]) != chatterMark || int(f[head]) >= len(c.stations) {
		return // BPDUs, and what a test sends besides
	}
	from, round := f[head], int(binary.BigEndian.Uint32(f[head+1:]))
	n := &c.copies[to][from]
	if round >= len(*n) {
		*n = append(*n, make([]uint8, round+1-len(*n))...)
	}
	(*n)[round] = min((*n)[round]+1, 255)
	c.heard++
}

// healed says how long after m the last pair of stations heard each other for
// the first time, or which pair has not yet; stations in silent do not count.
func (c *chatter) healed(m moment, silent []int) (took time.Duration, err error) {
	c.listen()
	c.mu.Lock()
	defer c.mu.Unlock()
	for to := range c.stations {
		for from := range c.stations {
			if to == from || slices.Contains(silent, to) || slices.Contains(silent, from) {
				continue
			}
			n := c.copies[to][from]
			first := slices.IndexFunc(n[min(m.round, len(n)):], func(n uint8) bool { return n > 0 })
			if first < 0 {
				return 0, fmt.Errorf("station %d does not hear station %d", to, from)
			}
			took = max(took, c.sent[m.round+first].Sub(m.at))
		}
	}
	return took, nil
}

// totals are how many broadcasts there were, how often they were heard, how
// many were heard more than once by some station, and how often the worst was.
func (c *chatter) totals() (sent, heard, twice, most int) {
	c.listen()
	sent = c.rounds() * len(c.stations)
	for _, from := range c.copies {
		for _, rounds := range from {
			for _, n := range rounds {
				most = max(most, int(n))
				if n > 1 {
					twice++
				}
			}
		}
	}
	return sent, c.heard, twice, most
}
