package ctl_test

import (
	"context"
	"strings"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestEventsArriveInOrder(t *testing.T) {
	h := newHost(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}}, "netdev:a", "netdev:b")
	c := ctl.NewClient(h.dir, "kvs0")
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan vswitch.Event, 100)
	done := make(chan error)
	go func() {
		done <- c.Events(ctx, func(e vswitch.Event) error { events <- e; return nil })
	}()
	// The stream begins some time after the request: a mark says that it has.
	mark := time.NewTicker(5 * time.Millisecond)
	defer mark.Stop()
	for began := false; !began; {
		select {
		case <-mark.C:
			h.sw.Note(vswitch.Event{Event: "mark"})
		case <-events:
			began = true
		}
	}
	h.ports["a"].Inject(mem.Ethernet(frame.Broadcast, mem.MAC(1), "hello"))
	next := func() vswitch.Event {
		for {
			select {
			case e := <-events:
				if e.Event != "mark" {
					return e
				}
			case <-time.After(10 * time.Second):
				t.Fatal("no event")
			}
		}
	}
	if e := next(); e.Event != vswitch.EventFDBLearn || e.Port != "a" || e.MAC == nil || *e.MAC != mem.MAC(1) || e.Time.IsZero() {
		t.Errorf("got %+v, want a learned station", e)
	}
	if err := h.sw.RemovePort("b"); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Event != vswitch.EventPortDel || e.Port != "b" {
		t.Errorf("got %+v, want port.del", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a reader that stops by itself: %v", err)
	}
}

func TestEventsEndWithTheSwitch(t *testing.T) {
	h := newHost(t, vswitch.Config{})
	c := ctl.NewClient(h.dir, "kvs0")
	done := make(chan error)
	began := make(chan struct{}, 1)
	go func() {
		done <- c.Events(t.Context(), func(vswitch.Event) error {
			select {
			case began <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	for waiting := true; waiting; {
		h.sw.Note(vswitch.Event{Event: "mark"})
		select {
		case <-began:
			waiting = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	h.stop()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "has stopped") {
		t.Errorf("got %v, want that the switch has stopped", err)
	}
}
