package vswitch_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// slowToTell is a port that takes its time to say how it is.
type slowToTell struct {
	*mem.Port
	asked, answer chan struct{}
}

func (s *slowToTell) Detail() any {
	s.asked <- struct{}{}
	<-s.answer
	return "told"
}

// Whoever asks a port for its details waits for it; nobody else does.
func TestAskingAPortHoldsNobodyElseUp(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 1)
	slow := &slowToTell{mem.NewPort(), make(chan struct{}), make(chan struct{})}
	if _, err := l.AddPort("slow", slow, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	shown := make(chan vswitch.PortStatus, 2)
	go func() {
		st, _ := l.PortStatus("slow")
		shown <- st
	}()
	go func() { shown <- l.Status().Ports[1] }()
	<-slow.asked
	<-slow.asked
	others := make(chan error)
	go func() {
		_, err := l.PortStatus("p1")
		if err == nil {
			_, err = l.AddPort("p2", mem.NewPort(), vswitch.NewPortConfig("memory"))
		}
		if err == nil {
			err = l.RemovePort("slow")
		}
		others <- err
	}()
	select {
	case err := <-others:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("all wait for one port")
	}
	close(slow.answer)
	for range 2 {
		if st := <-shown; st.Name != "slow" || st.Detail != "told" {
			t.Errorf("shown as %+v", st)
		}
	}
}

// refusing is a port whose peer asks for too much.
type refusing struct {
	*mem.Port
	mu sync.Mutex
	n  uint64
}

func (r *refusing) refuse(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += n
}

func (r *refusing) Refusals() (uint64, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n, "too much"
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(word string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), word)
}

// What a peer was refused reaches the log and the feed, but not once for every
// message of a hostile one.
func TestRefusalsAreReportedNowAndThen(t *testing.T) {
	var log lines
	s, err := vswitch.New(vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	p := &refusing{Port: mem.NewPort()}
	if _, err := s.AddPort("vm", p, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	events, stop := s.Subscribe(1000)
	defer stop()
	p.refuse(300)
	select {
	case e := <-events:
		if e.Event != vswitch.EventPortRefuse || e.Port != "vm" || e.Count != 300 || e.Reason != "too much" {
			t.Errorf("event %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	for range 25 {
		p.refuse(1000)
		time.Sleep(100 * time.Millisecond)
	}
	if n := len(events); n != 0 {
		t.Errorf("%d more events in two seconds", n)
	}
	if n := log.count("too much"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}
