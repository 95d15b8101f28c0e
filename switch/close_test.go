package vswitch_test

import (
	"context"
	"errors"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestSwitchThatNeverRanIsClosed(t *testing.T) {
	s, err := vswitch.New(vswitch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	host, p := mem.NewPort(), mem.NewPort()
	if err := s.SetHost("host", host); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddPort("p", p, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if !host.Closed() || !p.Closed() {
		t.Errorf("closed: host %v, port %v", host.Closed(), p.Closed())
	}
	if _, err := s.AddPort("q", mem.NewPort(), vswitch.NewPortConfig("memory")); !errors.Is(err, vswitch.ErrClosed) {
		t.Errorf("a port for a closed switch: %v, want ErrClosed", err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, vswitch.ErrRan) {
		t.Errorf("a closed switch runs: %v, want ErrRan", err)
	}
}

func TestRunningSwitchIsNotClosed(t *testing.T) {
	s, err := vswitch.New(vswitch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := mem.NewPort()
	if _, err := s.AddPort("p", p, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	// A port that is told of frames has a worker: the switch runs.
	p.Inject(mem.Tagged(bcast, macA, 1, 0, "x"))
	eventually(t, "the switch runs", p.Idle)
	if err := s.Close(); err == nil || p.Closed() {
		t.Errorf("close of a running switch: %v, port closed: %v", err, p.Closed())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil || !p.Closed() {
		t.Errorf("close of one that has ended: %v, port closed: %v", err, p.Closed())
	}
}
