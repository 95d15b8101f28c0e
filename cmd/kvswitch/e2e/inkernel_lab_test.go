package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// wires is a host with taps p0, p1 … for ports, of which the test holds the far
// ends. What it writes has gone through the port's program, and what leaves by a
// port is read in the order in which it left: no processor's backlog lies between,
// as it does between the ends of a veth pair.
type wires struct {
	t     *testing.T
	lab   *netns.Lab
	host  *netns.Host
	names []string
	taps  []*os.File
	kvs   *kvs
}

// wireQueue is how many frames a tap keeps for its reader.
const wireQueue = 1 << 16

// newWires lays n taps, and runs kvswitch on them with args.
func newWires(t *testing.T, n int, args ...string) *wires {
	t.Helper()
	w := &wires{t: t, lab: netns.New(t)}
	w.host = w.lab.Host("switch")
	args = append([]string{"--no-host"}, args...)
	for i := range n {
		name := fmt.Sprint("p", i)
		w.names = append(w.names, name)
		w.taps = append(w.taps, w.openTap(name))
		args = append(args, "--port", "netdev:"+name+",max-learned=0")
	}
	w.kvs = run(t, w.host, args...)
	w.kvs.awaitForwarding(w.names...)
	return w
}

// openTap makes a tap and sets it up.
func (w *wires) openTap(name string) *os.File {
	w.t.Helper()
	tap := openTap(w.t, w.host, name)
	link, err := w.host.Netlink().LinkByName(name)
	if err == nil {
		err = w.host.Netlink().LinkSetTxQLen(link, wireQueue)
	}
	if err != nil {
		w.t.Fatalf("make %s: %v", name, err)
	}
	w.host.Up(name)
	return tap
}

// carrier plugs a port's cable in, or pulls it out.
func (w *wires) carrier(port int, on bool) {
	w.t.Helper()
	raw, err := w.taps[port].SyscallConn()
	if err == nil {
		value := 0
		if on {
			value = 1
		}
		var setErr error
		err = errors.Join(raw.Control(func(fd uintptr) { setErr = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, value) }), setErr)
	}
	if err != nil {
		w.t.Fatalf("set carrier of %s: %v", w.names[port], err)
	}
}

// send writes a frame to a port. A port without carrier loses it.
func (w *wires) send(port int, f []byte) error {
	_, err := w.taps[port].Write(f)
	if errors.Is(err, unix.EIO) {
		return nil
	}
	return err
}

// says sends frames that must not fail, from the test's goroutine.
func (w *wires) says(port int, frames ...[]byte) {
	w.t.Helper()
	for _, f := range frames {
		if err := w.send(port, f); err != nil {
			w.t.Fatalf("write to %s: %v", w.names[port], err)
		}
	}
}

// listen gives each frame that leaves by a port to hear, on one goroutine for the
// port, until the test ends. The bytes are hear's until it returns.
func (w *wires) listen(port int, hear func(f []byte)) { listenTo(w.t, w.taps[port], hear) }

func listenTo(t *testing.T, tap *os.File, hear func(f []byte)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, frame.MaxLen)
		for {
			n, err := tap.Read(b)
			switch {
			case errors.Is(err, os.ErrClosed), errors.Is(err, unix.EBADFD):
				return
			case err == nil && n >= frame.HeaderLen:
				hear(b[:n])
			}
		}
	}()
	t.Cleanup(func() { tap.Close(); <-done })
}

// short is how many frames came in by a port and went the short way.
func (w *wires) short(port int) uint64 {
	w.t.Helper()
	return w.kvs.port(w.names[port]).InKernel.RxFrames
}

// awaitShort waits until port's frames take the short way, which say is to send
// some of. In mode off it checks that none do.
func (w *wires) awaitShort(port int, say func()) {
	w.t.Helper()
	if inKernelMode(w.t) == inKernelOff {
		say()
		if n := w.short(port); n != 0 {
			w.t.Errorf("%d frames went the short way, which is off", n)
		}
		return
	}
	before := w.short(port)
	netns.Await(w.t, startPatience, "frames of "+w.names[port]+" take the short way", func() error {
		say()
		if p := w.kvs.port(w.names[port]); p.InKernel.RxFrames == before {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
}

// numbered is a frame that says its number and when it was sent.
const (
	numberedMark = "numbered"
	numberedLen  = len(numberedMark) + 16
)

// numbered is an untagged frame with a number and the present time.
func numbered(dst, src frame.MAC, n uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(numberedMark), n)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixNano()))
	return ether(dst, src, string(append(b, make([]byte, 46-len(b))...)))
}

// numberOf is the number of a numbered frame, and when it was sent.
func numberOf(f []byte) (n uint64, at int64, ok bool) {
	if len(f) < frame.HeaderLen+numberedLen || string(f[frame.HeaderLen:][:len(numberedMark)]) != numberedMark {
		return 0, 0, false
	}
	b := f[frame.HeaderLen+len(numberedMark):]
	return binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:])), true
}

// talk is from whom to whom a frame is.
type talk struct{ dst, src frame.MAC }

func talkOf(f []byte) talk { return talk{frame.MAC(f[:6]), frame.MAC(f[6:12])} }

// ear hears numbered frames at one place, and keeps what a test asks for.
type ear struct {
	mu    sync.Mutex
	last  map[talk]uint64
	heard map[talk]int
	wrong []string // frames that came after a later one, or again
}

func newEar() *ear { return &ear{last: map[talk]uint64{}, heard: map[talk]int{}} }

func (e *ear) hear(f []byte) {
	n, _, ok := numberOf(f)
	if !ok {
		return
	}
	of := talkOf(f)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[of]++
	if last := e.last[of]; n <= last && len(e.wrong) < 10 {
		e.wrong = append(e.wrong, fmt.Sprintf("%v > %v: number %d after %d", of.src, of.dst, n, last))
	}
	e.last[of] = max(e.last[of], n)
}

// of is how many frames of a flow were heard.
func (e *ear) of(f talk) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[f]
}

// all is how many frames were heard.
func (e *ear) all() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, of := range e.heard {
		n += of
	}
	return n
}

// inOrder checks that no frame came after a later one of its flow.
func (e *ear) inOrder(t *testing.T, who string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wrong {
		t.Errorf("%s heard out of order: %s", who, w)
	}
}

// ears puts one at every port.
func (w *wires) ears() (ears []*ear) {
	for i := range w.taps {
		e := newEar()
		ears = append(ears, e)
		w.listen(i, e.hear)
	}
	return ears
}

// stream sends numbered frames of some flows in turn, until stop or the test's
// end. Its pace is a frame every pause, or as fast as it goes.
type stream struct {
	sent atomic.Uint64 // of all flows
	err  atomic.Pointer[error]
	halt chan struct{}
	done chan struct{}
	once sync.Once
}

// startStream sends into a port with say.
func startStream(t *testing.T, say func([]byte) error, pause time.Duration, flows ...talk) *stream {
	s := &stream{halt: make(chan struct{}), done: make(chan struct{})}
	flows = slices.Clone(flows)
	go func() {
		defer close(s.done)
		for n := uint64(0); ; n++ {
			select {
			case <-s.halt:
				return
			default:
			}
			f := flows[n%uint64(len(flows))]
			if err := say(numbered(f.dst, f.src, 1+n/uint64(len(flows)))); err != nil {
				s.err.Store(&err)
				return
			}
			s.sent.Add(1)
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	t.Cleanup(func() { s.stop(t) })
	return s
}

// stop ends the stream and returns how many frames it sent.
func (s *stream) stop(t *testing.T) uint64 {
	t.Helper()
	s.once.Do(func() { close(s.halt) })
	<-s.done
	if err := s.err.Load(); err != nil {
		t.Errorf("send: %v", *err)
	}
	return s.sent.Load()
}

// into says frames into a port.
func (w *wires) into(port int) func([]byte) error {
	return func(f []byte) error { return w.send(port, f) }
}

// listenStation is listen at a station.
func listenStation(t *testing.T, s *netns.Station, hear func(f []byte)) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if f, ok := s.Recv(50 * time.Millisecond); ok && len(f) >= frame.HeaderLen {
				hear(f)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// tally counts frames of the tests' own, and keeps the last.
type tally struct {
	mu   sync.Mutex
	n, b uint64
	last []byte
}

func (c *tally) hear(f []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.b += uint64(len(f))
	c.last = slices.Clone(f)
}

func (c *tally) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n, c.b = 0, 0
}

func (c *tally) frames() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *tally) bytes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b
}

func (c *tally) latest() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
