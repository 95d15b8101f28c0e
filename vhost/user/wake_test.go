package vhostuser

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// A worker that sleeps on a queue hears of all that makes the queue worth a look,
// not of kicks alone: the guest's frames may have been there before.
func TestSleepingWorkerIsWokenWhenTheRingChanges(t *testing.T) {
	for name, tc := range map[string]struct {
		rest func(f *frontend) // brings the ring to rest
		wake func(f *frontend)
	}{
		"SET_VRING_KICK": {
			func(f *frontend) { f.ask(reqGetVringBase, state(1, 0)) },
			func(f *frontend) { f.startRing(1, 0) },
		},
		"SET_VRING_ENABLE": {
			func(f *frontend) { f.enable(1, 0) },
			func(f *frontend) { f.enable(1, 1) },
		},
		"SET_MEM_TABLE": {
			func(f *frontend) {
				f.must(reqSetMemTable, tablePayload(f.regions[1:]), f.fd)
			},
			func(f *frontend) { f.setMemory() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, f := connected(t, Options{}, modern)
			q := p.queues[0]
			tc.rest(f)
			if q.Arm() || readable(t, q.FD()) {
				t.Fatal("the worker can't sleep")
			}
			f.transmit(0, 77) // and no kick: the driver was told not to
			tc.wake(f)
			if !readable(t, q.FD()) {
				t.Fatal("the worker sleeps on")
			}
			f.expect(0, 77)
		})
	}
}

// Whoever serves a ring next may wait for kicks, so they are wanted when it stops.
func TestKicksAreWantedWhenTheRingStops(t *testing.T) {
	_, f := connected(t, Options{}, modern)
	f.works()
	for i := range f.rings {
		if f.rings[i].WantKick() {
			t.Fatalf("ring %d: kicks are wanted while it runs and is looked at", i)
		}
		f.ask(reqGetVringBase, state(i, 0))
		if !f.rings[i].WantKick() {
			t.Errorf("ring %d stopped, and its driver would not kick", i)
		}
	}
}

// While the control side has the ring, a worker can't say that nothing is there.
func TestArmLooksAgainWhileTheControlSideWorks(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	q := p.queues[0]
	if q.Arm() {
		t.Fatal("nothing came, and there is something")
	}
	q.mu.Lock()
	armed := q.Arm()
	q.mu.Unlock()
	if !armed {
		t.Error("the worker may sleep without kicks asked for")
	}
	f.works()
}

// Kicks and polls count batches by how they were found.
func TestBatchesThatArmFoundAreNotKicks(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	q := p.queues[0]
	if q.Arm() {
		t.Fatal("nothing came, and there is something")
	}
	f.fromGuest(0, 60) // of which the guest would have had to notify
	if d := p.Detail().(Detail).Rings[1]; d.Kicks != 1 || d.Polls != 0 {
		t.Fatalf("%d kicks and %d polls, want 1 and 0", d.Kicks, d.Polls)
	}
	for range 3 {
		f.transmit(0, 60)
		if !q.Arm() {
			t.Fatal("Arm missed a frame")
		}
		f.expect(0, 60)
	}
	if d := p.Detail().(Detail).Rings[1]; d.Kicks != 1 || d.Polls != 3 {
		t.Errorf("%d kicks and %d polls, want 1 and 3", d.Kicks, d.Polls)
	}
}

// A kick descriptor that can't be watched leaves the ring as it was.
func TestKickThatCantBeWatchedChangesNothing(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	q := p.queues[0]
	real := q.bell.set
	watch := func(set int) {
		p.mu.Lock()
		q.bell.set = set
		p.mu.Unlock()
	}
	watch(-1)
	other := eventFD(t)
	leaksNothing(t, "a refused kick descriptor", func() { f.mustNot(reqSetVringKick, u64(1), other) })
	watch(real)
	kick(f.kicks[1])
	if !readable(t, q.FD()) {
		t.Error("the old one does not wake any more")
	}
	f.ask(reqGetVringBase, state(1, 0))
	watch(-1)
	f.mustNot(reqSetVringKick, u64(1), f.kicks[1])
	if d := p.Detail().(Detail).Rings[1]; d.Started {
		t.Error("shown as started")
	}
	watch(real)
	f.startRing(1, 0)
	f.works()
}

// QEMU was killed, and the next one connects before the port has noticed.
func TestQuickSuccessorIsServed(t *testing.T) {
	p := openPort(t, Options{})
	f := newFrontend(t, p, guestOptions{size: 64})
	f.up(modern)
	for range 200 {
		f.conn.Close()
		f.conn = dial(t, p.opts.Path)
		if f.askU64(reqGetFeatures)&featVersion1 == 0 {
			t.Fatal("no features")
		}
	}
	if d := p.Detail().(Detail); d.Refusals != 0 || d.Connections != 201 {
		t.Errorf("%d connections and %d refusals, the last: %s", d.Connections, d.Refusals, d.LastRefusal)
	}
	// One that has not hung up is no predecessor, and nobody waits for its end.
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if hungUp(conn) {
		t.Error("taken for one that has hung up")
	}
	c := dial(t, p.opts.Path)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a second front end is talked to")
	}
}

// A port that can't be opened leaves no socket file behind.
func TestFailedListenLeavesNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	for room := range 8 { // descriptors for the bell, the socket, its listener and its file
		next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(next)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + room), Max: was.Max}); err != nil {
			t.Fatal(err)
		}
		p, err := Open(Options{Path: path})
		unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
		if err == nil {
			p.Close()
		}
		if _, there := os.Lstat(path); there == nil {
			t.Fatalf("with %d descriptors: %v, and the file stays", room, err)
		}
	}
}

// The error descriptor is signalled once for each ring that breaks.
func TestBrokenRingIsToldOnce(t *testing.T) {
	p, f := connected(t, Options{}, modern)
	f.jump(1)
	for range 3 {
		p.queues[0].Rx(make([]frame.Frame, 4))
		p.attend()
	}
	wait(t, "the front end to be told", func() bool { return readable(t, f.errs[1]) })
	var b [8]byte
	unix.Read(f.errs[1], b[:])
	if n := binary.LittleEndian.Uint64(b[:]); n != 1 {
		t.Errorf("told %d times", n)
	}
}
