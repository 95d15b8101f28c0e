package vswitch

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// What an idle switch does in a minute is send its hellos: no new view, nothing
// for the workers, no event.
func TestAnIdleSwitchOnlySaysHello(t *testing.T) {
	clock := &handClock{now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	s, err := New(Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Hand()
	if err != nil {
		t.Fatal(err)
	}
	var ports []*mem.Port
	for i := range 64 {
		p := mem.NewPort()
		if _, err := s.AddPort(fmt.Sprint("p", i), p, NewPortConfig("memory")); err != nil {
			t.Fatal(err)
		}
		ports = append(ports, p)
	}
	pass := func(seconds int) {
		for range seconds {
			clock.now = clock.now.Add(time.Second)
			h.Tick()
			h.Turn()
		}
	}
	pass(40)
	for _, p := range ports {
		p.Sent()
	}
	seq := s.view.Load().Seq
	events, cancel := s.Subscribe(8)
	pass(60)
	cancel()
	for e := range events {
		t.Errorf("an event: %+v", e)
	}
	if now := s.view.Load().Seq; now != seq {
		t.Errorf("%d new views", now-seq)
	}
	for i, p := range ports {
		if n := len(p.Sent()); n != 30 {
			t.Errorf("p%d sent %d frames in a minute, want 30 hellos", i, n)
		}
	}
}

// handClock is a clock that a test moves.
type handClock struct{ now time.Time }

func (c *handClock) Now() time.Time { return c.now }
