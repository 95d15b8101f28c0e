package sysio

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEpollCarriesAll64BitsOfTheValue(t *testing.T) {
	ep := newEpoll(t)
	ev := newEventFD(t)
	const first, second = 0xfedcba9876543210, 0x8000000180000002
	if err := ep.Add(ev.FD(), first); err != nil {
		t.Fatal(err)
	}
	var events [4]Event
	if n, err := ep.Wait(0, events[:]); n != 0 || err != nil {
		t.Fatalf("before Signal: %d events, %v", n, err)
	}
	ev.Signal()
	if n, err := ep.Wait(-1, events[:]); n != 1 || err != nil || events[0].Value() != first {
		t.Fatalf("after Signal: %d events, value %#x, %v", n, events[0].Value(), err)
	}
	if err := ep.Mod(ev.FD(), second); err != nil {
		t.Fatal(err)
	}
	if n, _ := ep.Wait(0, events[:]); n != 1 || events[0].Value() != second {
		t.Fatalf("level-triggered after Mod: %d events, %+v", n, events[0])
	}
	if err := ep.Del(ev.FD()); err != nil {
		t.Fatal(err)
	}
	if n, _ := ep.Wait(0, events[:]); n != 0 {
		t.Fatalf("after Del: %d events", n)
	}
	if err := ep.Del(ev.FD()); err == nil {
		t.Fatal("deleting an absent descriptor gave no error")
	}
}

func TestEventFDIsReadableUntilDrained(t *testing.T) {
	ev := newEventFD(t)
	if ev.Drain() {
		t.Fatal("signalled from birth")
	}
	ev.Signal()
	ev.Signal()
	if !ev.Drain() || ev.Drain() {
		t.Fatal("two signals want exactly one Drain")
	}
}

func TestEpollWaitEndsWhenSignalledFromAnotherGoroutine(t *testing.T) {
	ep, ev := newEpoll(t), newEventFD(t)
	if err := ep.Add(ev.FD(), 1); err != nil {
		t.Fatal(err)
	}
	go ev.Signal()
	var events [1]Event
	for range 1000 { // a signal to the thread may end a wait early
		if n, err := ep.Wait(10_000, events[:]); err != nil {
			t.Fatal(err)
		} else if n == 1 {
			return
		}
	}
	t.Fatal("never woken")
}

func TestSendAndReceiveMoveABatchInOrder(t *testing.T) {
	a, b := socketPair(t)
	var send, recv [4]Mmsghdr
	var out, in [4][2]unix.Iovec
	var bufs [4][2][8]byte
	for i := range send {
		out[i] = [2]unix.Iovec{Piece([]byte{byte(i), 1}), Piece([]byte{2, 3})}
		send[i].SetIovecs(out[i][:])
		in[i] = [2]unix.Iovec{Piece(bufs[i][0][:3]), Piece(bufs[i][1][:])}
		recv[i].SetIovecs(in[i][:])
	}
	if n, errno := Send(a, send[:3]); n != 3 || errno != 0 {
		t.Fatalf("Send = %d, %v", n, errno)
	}
	n, errno := Receive(b, recv[:], 0)
	if n != 3 || errno != 0 {
		t.Fatalf("Receive = %d, %v", n, errno)
	}
	for i := range n {
		if got := append(slices.Clone(bufs[i][0][:3]), bufs[i][1][0]); recv[i].Len != 4 || !bytes.Equal(got, []byte{byte(i), 1, 2, 3}) {
			t.Errorf("message %d: %d bytes % x", i, recv[i].Len, got)
		}
	}
	if n, errno := Receive(b, recv[:], 0); n != 0 || errno != unix.EAGAIN {
		t.Fatalf("empty socket: %d, %v", n, errno)
	}
	if n, errno := Send(-1, send[:1]); n != 0 || errno != unix.EBADF {
		t.Fatalf("bad descriptor: %d, %v", n, errno)
	}
}

func TestWritevGathers(t *testing.T) {
	a, b := socketPair(t)
	if n, errno := Writev(a, []unix.Iovec{Piece([]byte("ab")), Piece(nil), Piece([]byte("cde"))}); n != 5 || errno != 0 {
		t.Fatalf("Writev = %d, %v", n, errno)
	}
	got := make([]byte, 9)
	if n, errno := Read(b, got); n != 5 || errno != 0 || string(got[:5]) != "abcde" {
		t.Fatalf("Read = %d, %v, %q", n, errno, got)
	}
	if n, errno := Read(b, got); n != 0 || errno != unix.EAGAIN {
		t.Fatalf("Read of nothing = %d, %v", n, errno)
	}
}

func TestSocketErrorIsTakenOnce(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A datagram to a loopback port that nobody has comes back as ECONNREFUSED.
	dead, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(dead, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	to, err := unix.Getsockname(dead)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(dead)
	if err := unix.Connect(fd, to); err != nil {
		t.Skipf("no loopback: %v", err)
	}
	Write(fd, []byte{1})
	got := unix.Errno(0)
	for deadline := time.Now().Add(10 * time.Second); got == 0 && time.Now().Before(deadline); {
		got = SocketError(fd)
	}
	if got != unix.ECONNREFUSED {
		t.Fatalf("pending error is %v, want ECONNREFUSED", got)
	}
	if again := SocketError(fd); again != 0 {
		t.Fatalf("the error was taken, yet there is %v", again)
	}
	if bad := SocketError(-1); bad != unix.EBADF {
		t.Fatalf("bad descriptor gave %v", bad)
	}
}

func TestMappingsAreZeroedWritableAndGivenBack(t *testing.T) {
	anon, err := MapAnonymous(8192)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(anon, make([]byte, 8192)) {
		t.Error("anonymous memory is not zeroed")
	}
	anon[8191] = 1
	if err := Unmap(anon); err != nil {
		t.Error(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "map")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	shared, err := Map(int(f.Fd()), 0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	copy(shared, "shared")
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "shared" {
		t.Errorf("file reads %q, %v", got, err)
	}
	if err := Unmap(shared); err != nil {
		t.Error(err)
	}
	if err := Unmap(shared); err == nil {
		t.Error("unmapping twice gave no error")
	}
	if err := Unmap(nil); err != nil {
		t.Error(err)
	}
	if _, err := Map(-1, 0, 4096); err == nil {
		t.Error("mapping a bad descriptor gave no error")
	}
}

func TestLinkSpeedOfLoopbackIsUnknownAndOfNothingAnError(t *testing.T) {
	if speed, _, err := LinkSpeed("lo"); err == nil && speed != 0 {
		t.Errorf("lo has %d bit/s", speed)
	}
	if _, _, err := LinkSpeed("no-such-device"); err == nil {
		t.Error("a device that does not exist has a speed")
	}
}

func TestSetAffinityMovesOnlyTheCallingThread(t *testing.T) {
	before, err := Affinity()
	if err != nil || len(before) == 0 {
		t.Fatalf("Affinity = %v, %v", before, err)
	}
	done := make(chan []int)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its affinity
		if err := SetAffinity(before[len(before)-1]); err != nil {
			t.Error(err)
		}
		cpus, err := Affinity()
		if err != nil {
			t.Error(err)
		}
		done <- cpus
	}()
	if got := <-done; !slices.Equal(got, before[len(before)-1:]) {
		t.Errorf("after SetAffinity(%d): %v", before[len(before)-1], got)
	}
	for _, cpu := range []int{-1, 1 << 20} {
		if err := SetAffinity(cpu); err == nil {
			t.Errorf("SetAffinity(%d) gave no error", cpu)
		}
	}
}

func TestHotCallsDoNotAllocate(t *testing.T) {
	ep, ev := newEpoll(t), newEventFD(t)
	if err := ep.Add(ev.FD(), 1); err != nil {
		t.Fatal(err)
	}
	a, b := socketPair(t)
	var events [4]Event
	buf := make([]byte, 64)
	iov := []unix.Iovec{Piece(buf)}
	var msgs [1]Mmsghdr
	msgs[0].SetIovecs(iov)
	for name, f := range map[string]func(){
		"Signal, Wait, Drain": func() { ev.Signal(); ep.Wait(-1, events[:]); ep.Wait(0, events[:]); ev.Drain() },
		"Send, Receive":       func() { Send(a, msgs[:]); Receive(b, msgs[:], 0) },
		"Writev, Read":        func() { Writev(a, iov); Read(b, buf) },
		"SocketError":         func() { SocketError(a) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func newEpoll(t *testing.T) *Epoll {
	t.Helper()
	ep, err := NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ep.Close(); err != nil {
			t.Error(err)
		}
	})
	return ep
}

func newEventFD(t *testing.T) *EventFD {
	t.Helper()
	ev, err := NewEventFD()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ev.Close(); err != nil {
			t.Error(err)
		}
	})
	return ev
}

func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}
