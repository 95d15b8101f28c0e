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

// setting changes a port's configuration.
type setting func(*vswitch.PortConfig)

func isolated(c *vswitch.PortConfig) { c.Isolated = true }

func access(vid uint16) setting {
	return func(c *vswitch.PortConfig) { c.VLAN = vswitch.AccessVLAN(vid) }
}

func tunnel(vid uint16) setting {
	return func(c *vswitch.PortConfig) { c.VLAN = vswitch.TunnelVLAN(vid) }
}

func trunk(vids ...uint16) setting {
	return func(c *vswitch.PortConfig) {
		c.VLAN = vswitch.VLANConfig{}
		for _, vid := range vids {
			c.VLAN.Member.Add(vid)
		}
	}
}

func native(vid uint16, vids ...uint16) setting {
	return func(c *vswitch.PortConfig) { trunk(vids...)(c); c.VLAN.SetNative(vid, false) }
}

func nativeTagged(vid uint16, vids ...uint16) setting {
	return func(c *vswitch.PortConfig) { trunk(vids...)(c); c.VLAN.SetNative(vid, true) }
}

// everyVLAN is 1 to 4094.
var everyVLAN = func() (vids []uint16) {
	for vid := uint16(vswitch.MinVID); vid <= vswitch.MaxVID; vid++ {
		vids = append(vids, vid)
	}
	return vids
}()

// newLab runs a switch without spanning tree, with n ports set as settings say.
func newLab(t testing.TB, cfg vswitch.Config, n int, settings ...setting) *lab {
	t.Helper()
	cfg.STP.Mode = vswitch.ModeOff
	return newTreeLab(t, cfg, n, settings...)
}

// newTreeLab runs a switch with the spanning tree that cfg says.
func newTreeLab(t testing.TB, cfg vswitch.Config, n int, settings ...setting) *lab {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := vswitch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Switch: s, t: t}
	for i := range n {
		p := mem.NewPort()
		pc := vswitch.NewPortConfig("memory")
		if i < len(settings) && settings[i] != nil {
			settings[i](&pc)
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

var (
	macA, macB, macC = mem.MAC(1), mem.MAC(2), mem.MAC(3)
	bcast            = frame.Broadcast
)

func one(b []byte) [][]byte { return [][]byte{b} }
