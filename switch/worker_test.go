package vswitch_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// Every way a worker can wait, with queues that are polled and queues that are
// asked, forwards every frame.
func TestWorkersForwardHoweverTheyWait(t *testing.T) {
	for _, busy := range []time.Duration{0, 20 * time.Microsecond, vswitch.BusyPollAlways} {
		for _, workers := range []int{1, 2} {
			for _, asked := range []bool{false, true} {
				t.Run(fmt.Sprintf("busy=%v workers=%d asked=%v", busy, workers, asked), func(t *testing.T) {
					if busy == vswitch.BusyPollAlways && workers >= runtime.GOMAXPROCS(0) {
						// A worker that never sleeps needs a P of its own.
						defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers + 2))
					}
					l := newLab(t, vswitch.Config{BusyPoll: busy, Workers: workers}, 0)
					for i := range 3 {
						p := mem.NewPort()
						if asked {
							p = mem.NewAskedPort()
						}
						if _, err := l.AddPort(fmt.Sprintf("p%d", i+1), p, vswitch.NewPortConfig("memory")); err != nil {
							t.Fatal(err)
						}
						l.ports = append(l.ports, p)
					}
					w := mem.Ethernet(bcast, macA, "frame")
					for i := range 200 {
						l.ports[0].Inject(w)
						if i%50 == 0 { // let it fall asleep in between
							time.Sleep(2 * time.Millisecond)
						}
					}
					eventually(t, "all frames arrive", func() bool {
						st, _ := l.PortStatus("p3")
						return st.TX.Frames == 200
					})
				})
			}
		}
	}
}

// Control calls, port changes and status reads never disturb traffic that does
// not concern them, and nothing races.
func TestControlBesideTraffic(t *testing.T) {
	l := newLab(t, vswitch.Config{Workers: 2, BusyPoll: 20 * time.Microsecond, VLANFiltering: true}, 2)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			l.ports[i&1].Inject(mem.Ethernet(mem.MAC((i+1)&1), mem.MAC(i&1), "x"))
			for !l.ports[i&1].Idle() {
				runtime.Gosched()
			}
			l.ports[0].Sent()
			l.ports[1].Sent()
		}
	})
	events, cancel := l.Subscribe(4)
	for i := range 100 {
		p := mem.NewPort()
		name := fmt.Sprintf("x%d", i)
		if _, err := l.AddPort(name, p, vswitch.NewPortConfig("memory")); err != nil {
			t.Fatal(err)
		}
		p.Inject(mem.Ethernet(bcast, mem.MAC(100+i), ""))
		l.Status()
		l.FDB("", 0)
		l.FlushFDB("", 0)
		cfg, _ := l.PortConfig(name)
		cfg.Isolated = true
		if err := l.SetPort(name, cfg); err != nil {
			t.Fatal(err)
		}
		if err := l.SetAgeing(time.Duration(10+i) * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := l.SetSTP(vswitch.STPConfig{Mode: []vswitch.STPMode{vswitch.ModeRSTP, vswitch.ModeOff, vswitch.ModeSTP}[i%3]}); err != nil {
			t.Fatal(err)
		}
		if err := l.RemovePort(name); err != nil {
			t.Fatal(err)
		}
		if !p.Closed() {
			t.Fatal("a removed port is still open")
		}
	}
	close(stop)
	wg.Wait()
	cancel()
	lost := false
	for e := range events {
		lost = lost || e.Event == vswitch.EventEventsLost
	}
	if st := l.Status(); st.Ports[0].RX.Frames == 0 {
		t.Error("no traffic passed")
	}
}

func TestEventsAreToldInOrderAndLossesCounted(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	events, cancel := l.Subscribe(2)
	defer cancel()
	for i := range 5 {
		l.send(1, mem.Ethernet(bcast, mem.MAC(i+1), ""))
	}
	for i := range 2 {
		if e := <-events; e.Event != vswitch.EventFDBLearn || *e.MAC != mem.MAC(i+1) || e.Port != "p1" || e.VLAN != 1 {
			t.Errorf("event %d = %+v", i, e)
		}
	}
	l.send(2, mem.Ethernet(bcast, mem.MAC(1), ""))
	if e := <-events; e.Event != vswitch.EventEventsLost || e.Count != 3 {
		t.Errorf("event = %+v, want 3 lost", e)
	}
	if e := <-events; e.Event != vswitch.EventFDBMove || e.Port != "p2" || e.From != "p1" {
		t.Errorf("event = %+v, want the move", e)
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, cfg := range map[string]vswitch.Config{
		"workers":  {Workers: 65},
		"ageing":   {Ageing: time.Millisecond},
		"entries":  {MaxEntries: 1 << 30},
		"busy":     {BusyPoll: -2},
		"mac":      {MAC: bcast},
		"mode":     {STP: vswitch.STPConfig{Mode: vswitch.ModeOff + 1}},
		"max age":  {STP: vswitch.STPConfig{MaxAge: 41 * time.Second}},
		"hello":    {STP: vswitch.STPConfig{Hello: 1500 * time.Millisecond}},
		"hold":     {STP: vswitch.STPConfig{TxHold: 11}},
		"tx-hold-": {STP: vswitch.STPConfig{TxHold: -1}},
	} {
		if _, err := vswitch.New(cfg); err == nil {
			t.Errorf("%s: New took %+v", name, cfg)
		}
	}
}
