package sock

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// patience is how long a test waits for something that is sure to come.
const patience = 10 * time.Second

// await polls cond until it holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// receive drives the queue as a worker does, sleeping on its descriptor alone,
// until it has n frames; it copies what it is lent.
func receive(t *testing.T, q frame.Queue, n int) [][]byte {
	t.Helper()
	var got [][]byte
	b := make([]frame.Frame, frame.BatchSize)
	deadline := time.Now().Add(patience)
	for len(got) < n {
		if !q.Arm() && !readable(t, q, 100*time.Millisecond) && time.Now().After(deadline) {
			t.Fatalf("received %d frames, want %d", len(got), n)
		}
		for _, f := range b[:q.Rx(b)] {
			got = append(got, bytes.Clone(f.Data))
		}
		q.Release()
	}
	return got
}

// worker drives a queue whose peer sends nothing, for the flushing that Rx does
// beside, until stop is called.
func worker(t *testing.T, q frame.Queue) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var b [1]frame.Frame
		for {
			select {
			case <-end:
				return
			default:
				if readable(t, q, time.Millisecond) {
					q.Rx(b[:])
				}
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(end); <-done })
	t.Cleanup(stop)
	return stop
}

// readable polls the queue's descriptor.
func readable(t *testing.T, q frame.Queue, wait time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, int(wait.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}

// testFrame is a frame of n bytes that says which one it is.
func testFrame(n int, tag byte) []byte {
	f := bytes.Repeat([]byte{tag}, n)
	copy(f, []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

func outs(frames ...[]byte) []frame.Out {
	var out []frame.Out
	for _, f := range frames {
		out = append(out, frame.Out{Frame: &frame.Frame{Data: f}})
	}
	return out
}

// openFDs counts this process's descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// checkFDs fails the test if it ends with more descriptors than it began with.
func checkFDs(t *testing.T) {
	t.Helper()
	before := openFDs(t)
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		for openFDs(t) > before {
			if time.Now().After(deadline) {
				t.Errorf("%d descriptors open, %d when the test began", openFDs(t), before)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}
