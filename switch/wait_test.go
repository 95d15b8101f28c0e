package vswitch_test

import (
	"context"
	"errors"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// slowStart is a device that takes its time to start.
type slowStart struct {
	*mem.Port
	asked, goOn chan struct{}
}

func (p *slowStart) Start(notify func()) error {
	close(p.asked)
	<-p.goOn
	return p.Port.Start(notify)
}

// Nobody waits for a device that is asked to start: the switch answers, forwards
// and changes meanwhile, also in the very name.
func TestDeviceThatTakesItsTimeToStartHoldsNobodyUp(t *testing.T) {
	s, err := vswitch.New(vswitch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan error, 1)
	go func() { running <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-running; err != nil {
			t.Error(err)
		}
	}()
	slow := &slowStart{mem.NewPort(), make(chan struct{}), make(chan struct{})}
	added := make(chan error, 1)
	go func() {
		_, err := s.AddPort("slow", slow, vswitch.NewPortConfig("memory"))
		added <- err
	}()
	<-slow.asked
	s.Status() // all of these would wait for the lock
	s.Config()
	other := mem.NewPort()
	if n, err := s.AddPort("slow", other, vswitch.NewPortConfig("memory")); err != nil || n != 1 {
		t.Fatalf("number %d, %v", n, err)
	}
	close(slow.goOn)
	if err := <-added; !errors.Is(err, vswitch.ErrPortExists) {
		t.Errorf("the slower one of two of a name: %v, want ErrPortExists", err)
	}
	if slow.Closed() {
		t.Error("it is closed, and should be the caller's")
	}
	slow.Close()
	if err := s.RemovePort("slow"); err != nil {
		t.Fatal(err)
	}
}
