package vswitch_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// lab is a running switch with ports in memory, named p1, p2, …
type lab struct {
	*vswitch.Switch
	t     testing.TB
	ports []*mem.Port
}

// newLab runs a switch with n ports configured by words such as "vlan=10".
func newLab(t testing.TB, cfg vswitch.Config, n int, words ...[]vswitch.KeyValue) *lab {
	t.Helper()
	if cfg.STP.Mode == "" {
		cfg.STP.Mode = "off"
	}
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := vswitch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Switch: s, t: t}
	for i := range n {
		p := mem.NewPort()
		pc := vswitch.NewPortConfig("memory")
		if i < len(words) {
			if err := pc.Set(words[i]...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.AddPort(fmt.Sprintf("p%d", i+1), p, pc); err != nil {
			t.Fatal(err)
		}
		l.ports = append(l.ports, p)
	}
	l.run()
	return l
}

func (l *lab) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
}

// send injects frames into port n (1…) and waits until the switch is done with them.
func (l *lab) send(n int, wires ...[]byte) {
	l.t.Helper()
	l.ports[n-1].Inject(wires...)
	l.settle()
}

func (l *lab) sendFrames(n int, frames ...frame.Frame) {
	l.t.Helper()
	l.ports[n-1].InjectFrames(frames...)
	l.settle()
}

func (l *lab) settle() {
	l.t.Helper()
	eventually(l.t, "the switch takes every frame", func() bool {
		for _, p := range l.ports {
			if !p.Closed() && !p.Idle() {
				return false
			}
		}
		return true
	})
}

// expect checks what left by every port since the last call: want[n] for port n.
func (l *lab) expect(what string, want map[int][][]byte) {
	l.t.Helper()
	for i, p := range l.ports {
		got := p.Sent()
		w := want[i+1]
		if len(got) != len(w) {
			l.t.Errorf("%s: p%d sent %d frames, want %d", what, i+1, len(got), len(w))
			continue
		}
		for j := range got {
			if !bytes.Equal(got[j].Wire, w[j]) {
				l.t.Errorf("%s: p%d frame %d:\n got %x\nwant %x", what, i+1, j, got[j].Wire, w[j])
			}
		}
	}
}

// drops is a drop counter of port n.
func (l *lab) drops(n int, reason string) uint64 {
	l.t.Helper()
	ps, err := l.PortStatus(fmt.Sprintf("p%d", n))
	if err != nil {
		l.t.Fatal(err)
	}
	return ps.Drops[reason]
}

// eventually polls for a condition; ten seconds is far more than any takes.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func words(kv ...string) (list []vswitch.KeyValue) {
	for i := 0; i < len(kv); i += 2 {
		list = append(list, vswitch.KeyValue{Key: kv[i], Value: kv[i+1]})
	}
	return list
}

var (
	macA, macB, macC = mem.MAC(1), mem.MAC(2), mem.MAC(3)
	bcast            = frame.Broadcast
)

func one(b []byte) [][]byte { return [][]byte{b} }
