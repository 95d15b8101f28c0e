package sysio

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal arrives as a write of 1 would, and goes on where a write would wait.
func TestSignalNeverWaits(t *testing.T) {
	if err := PrepareSignals(); err != nil {
		t.Skipf("no signals here, only writes: %v", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // a blocking one
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	read := func() uint64 {
		var b [8]byte
		unix.Read(fd, b[:])
		return binary.LittleEndian.Uint64(b[:])
	}
	s := new(Signal)
	const many = 5000 // more than the kernel keeps results of
	for range many {
		s.Send(fd)
	}
	if n := read(); n != many {
		t.Errorf("the counter is %d, want %d", n, many)
	}
	full := binary.LittleEndian.AppendUint64(nil, ^uint64(0)-1)
	unix.Write(fd, full)
	done := make(chan struct{})
	go func() {
		for range many {
			s.Send(fd)
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("waits for room in a full eventfd")
	}
	if n := read(); n < ^uint64(0)-1 {
		t.Errorf("the counter is %d", n)
	}
	<-done
	if n := testing.AllocsPerRun(1000, func() { s.Send(fd) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	s.Send(1 << 20) // no descriptor at all
}

func BenchmarkSignal(b *testing.B) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	b.Run("signal", func(b *testing.B) {
		s := new(Signal)
		for b.Loop() {
			s.Send(fd)
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			Write(fd, one[:])
		}
	})
}
