package vhostuser

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"golang.org/x/sys/unix"
)

// No wake-up is lost: a worker that sleeps on the queue's descriptor, and a
// guest that kicks only when it is told to, never wait for each other.
func TestNoWakeUpIsLost(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	total := 50000
	if testing.Short() {
		total = 5000
	}
	q := p.queues[0]
	received := make(chan int)
	go func() { // the worker: spins a little, arms, sleeps
		defer close(received)
		var b [frame.BatchSize]frame.Frame
		seen := 0
		for seen < total {
			n := q.Rx(b[:])
			if n > 0 {
				seen += n
				q.Release()
				continue
			}
			if q.Arm() {
				continue
			}
			fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 10_000); n == 0 && err == nil {
				t.Errorf("asleep with %d of %d frames", seen, total)
				return
			}
		}
		received <- seen
	}()
	sent := 0
	bell := f.calls[1]
	for sent < total {
		for f.rings[1].Free() > 0 && sent < total {
			f.guest.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(60)))
			if sent++; sent%7 == 0 {
				break
			}
		}
		f.rings[1].Publish()
		if f.rings[1].WantKick() {
			kick(f.kicks[1])
		}
		// The same the other way: the guest sleeps until it is called.
		for f.sent(0) == 0 && f.rings[1].Free() == 0 {
			if !f.rings[1].EnableCalls() {
				fds := []unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}
				if n, err := unix.Poll(fds, 10_000); n == 0 && err == nil {
					t.Fatalf("the guest sleeps with %d sent", sent)
				}
				drain(bell)
			}
			f.rings[1].DisableCalls()
		}
	}
	if n := <-received; n != total {
		t.Errorf("%d of %d frames", n, total)
	}
	d := p.Detail().(Detail)
	if r := d.Rings[1]; r.Frames != uint64(total) || r.Kicks == 0 {
		t.Errorf("shown: %+v", r)
	}
}

// Many workers send to one guest while its front end keeps exchanging tables,
// descriptors and enablement: every frame that Tx took care of arrives whole,
// once, and those of one worker in order.
func TestTxFromManyWorkersWhileTheControlSideWorks(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	const workers = 3
	each := 5000
	if testing.Short() {
		each = 500
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			list := make([]frame.Frame, 16)
			for n := 0; n < each; {
				for i := range list {
					b := testFrame(64)
					b[20], b[21], b[22], b[23] = byte(w), byte(n+i), byte((n+i)>>8), byte((n+i)>>16)
					list[i].Data = b
				}
				sent := p.Tx(w, outs(list[:min(len(list), each-n)]))
				if n += sent; sent == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	payload, fds := f.table()
	next := [workers]int{}
	got := 0
	for turn := 0; got < workers*each; turn++ {
		for f.rings[0].Free() > 0 {
			f.post(0, 2048)
		}
		f.rings[0].Publish()
		for _, r := range f.receive(0, 12) {
			w, n := int(r.frame[20]), int(r.frame[21])|int(r.frame[22])<<8|int(r.frame[23])<<16
			if w >= workers || n != next[w] {
				t.Fatalf("frame %d of worker %d, want %d", n, w, next[w])
			}
			next[w]++
			got++
		}
		switch turn % 50 {
		case 10:
			f.must(reqSetMemTable, payload, fds...)
		case 20:
			f.enable(0, 0)
			f.enable(0, 1)
		case 30:
			f.must(reqSetVringCall, u64(0), f.calls[0])
		case 40:
			p.Detail()
			p.State()
			p.Counters()
		}
	}
	<-done
}

// State tells of every change, and the notification comes after it.
func TestStateIsNotified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if s := p.State(); s.Up || s.Reason == "" {
		t.Errorf("before Start: %+v", s)
	}
	changes := make(chan frame.State, 1000)
	if err := p.Start(func() { changes <- p.State() }); err != nil {
		t.Fatal(err)
	}
	f := newFrontend(t, p, guestOptions{size: 64})
	f.up(modern | allOffloads)
	f.conn.Close()
	wait(t, "the link to go down", func() bool { return !p.State().Up })
	p.Close()
	close(changes)
	ups := 0
	var last frame.State
	for s := range changes {
		if s == last {
			t.Errorf("told twice of %+v", s)
		}
		if last = s; s.Up {
			ups++
			if s.Reason != "" || !s.Offloads.TSO4 {
				t.Errorf("up: %+v", s)
			}
		} else if s.Reason == "" {
			t.Errorf("down without a reason: %+v", s)
		}
	}
	if ups == 0 || last.Up {
		t.Errorf("up %d times, in the end %+v", ups, last)
	}
}

func TestCloseGivesEverythingBack(t *testing.T) {
	dir := t.TempDir()
	leaksNothing(t, "a port's life", func() {
		t.Run("life", func(t *testing.T) {
			for _, start := range []bool{false, true} {
				p, err := Open(Options{Path: filepath.Join(dir, "s"), QueuePairs: 4})
				if err != nil {
					t.Fatal(err)
				}
				if start {
					if err := p.Start(func() { p.Acted(p.State()) }); err != nil {
						t.Fatal(err)
					}
					f := newFrontend(t, p, guestOptions{size: 64})
					f.up(modern)
					f.works()
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				if err := p.Close(); err != nil {
					t.Errorf("closed twice: %v", err)
				}
			}
		})
	})
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}
