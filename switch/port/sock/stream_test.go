package sock

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// kinds are the transports that every law of a Stream is checked on.
var kinds = []struct {
	name    string
	options func(t *testing.T) StreamOptions
}{
	{"unix", func(t *testing.T) StreamOptions { return StreamOptions{Path: filepath.Join(t.TempDir(), "s")} }},
	{"tcp", func(t *testing.T) StreamOptions { return StreamOptions{Addr: "127.0.0.1:0"} }},
}

func forKinds(t *testing.T, check func(*testing.T, StreamOptions)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			checkFDs(t)
			check(t, k.options(t))
		})
	}
}

// start opens a port and closes it when the test ends.
func start(t *testing.T, opts StreamOptions) *Stream {
	t.Helper()
	s, err := OpenStream(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := s.Start(func() { s.Acted(s.State()) }); err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects to a server port and waits until the port has noticed.
func dial(t *testing.T, s *Stream) net.Conn {
	t.Helper()
	c := dialOnly(t, s)
	await(t, "the port to come up", func() bool { return s.State().Up })
	return c
}

func dialOnly(t *testing.T, s *Stream) net.Conn {
	t.Helper()
	network := "unix"
	if s.opts.Path == "" {
		network = "tcp"
	}
	c, err := net.Dial(network, s.Detail().(StreamDetail).Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wire is the frames as a stream carries them.
func wire(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// readFrame reads one frame as QEMU would.
func readFrame(c net.Conn) ([]byte, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	f := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(c, f)
	return f, err
}

func TestStreamCarriesFramesOfEverySizeBothWays(t *testing.T) {
	forKinds(t, func(t *testing.T, opts StreamOptions) {
		s := start(t, opts)
		peer := dial(t, s)
		var frames [][]byte
		for i, n := range []int{frame.MinLen, 60, 64, 1514, 1518, 9014, 65549, frame.MaxLen} {
			frames = append(frames, testFrame(n, byte(i)))
		}
		go peer.Write(wire(frames...))
		for i, got := range receive(t, s.Queues()[0], len(frames)) {
			if !bytes.Equal(got, frames[i]) {
				t.Errorf("frame %d of %d bytes arrived as %d bytes", i, len(frames[i]), len(got))
			}
		}
		for i, f := range frames {
			if n := s.Tx(0, outs(f)); n != 1 {
				t.Fatalf("Tx of %d bytes took %d frames", len(f), n)
			}
			// A frame larger than the socket buffer needs the worker to flush it.
			stop := worker(t, s.Queues()[0])
			got, err := readFrame(peer)
			stop()
			if err != nil || !bytes.Equal(got, f) {
				t.Errorf("frame %d of %d bytes left as %d bytes, %v", i, len(f), len(got), err)
			}
		}
		if c := s.Counters(); c != (frame.Counters{}) {
			t.Errorf("counters %+v, want none", c)
		}
	})
}

func TestStreamPutsTheEgressTagInBand(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	tagged := testFrame(64, 7)
	copy(tagged[12:], []byte{0x81, 0, 0, 5, 0x88, 0xb5})
	f := frame.Frame{Data: tagged, Strip: frame.TagLen, Tag: frame.MakeTag(frame.EtherTypeVLAN, 0, 5)}
	tail := []byte("rest of it")
	f.Rest = [][]byte{tail}
	s.Tx(0, []frame.Out{{Frame: &f, EgressTag: frame.MakeTag(frame.EtherTypeVLAN, 0, 9)}, {Frame: &f}})
	want := append(bytes.Clone(tagged), tail...)
	want[15] = 9
	if got, err := readFrame(peer); err != nil || !bytes.Equal(got, want) {
		t.Errorf("tagged: got %x, %v\nwant %x", got, err, want)
	}
	want = append(append(bytes.Clone(tagged[:12]), tagged[16:]...), tail...)
	if got, err := readFrame(peer); err != nil || !bytes.Equal(got, want) {
		t.Errorf("untagged: got %x, %v\nwant %x", got, err, want)
	}
}

func TestStreamParsesFramesHoweverTheBytesArrive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	var frames [][]byte
	for i := range 3000 {
		frames = append(frames, testFrame(frame.MinLen+rng.IntN(200), byte(i)))
	}
	go func() {
		for b := wire(frames...); len(b) > 0; {
			n := min(len(b), 1+rng.IntN(9000))
			if rng.IntN(4) == 0 {
				n = min(n, 3) // cut a length in two
			}
			if _, err := peer.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	}()
	for i, got := range receive(t, s.Queues()[0], len(frames)) {
		if !bytes.Equal(got, frames[i]) {
			t.Fatalf("frame %d differs", i)
		}
	}
}

// Frames that Rx had no room to lend must not wait for more input.
func TestStreamDescriptorStaysReadableWhileFramesAreBuffered(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	const n = 3*frame.BatchSize + 5
	peer.Write(wire(slicesOf(testFrame(60, 1), n)...))
	q := s.Queues()[0]
	var b [frame.BatchSize]frame.Frame
	for got := 0; got < n; {
		if !readable(t, q, patience) {
			t.Fatalf("descriptor is not readable with %d frames to come", n-got)
		}
		got += q.Rx(b[:])
		q.Release()
	}
	if readable(t, q, 0) || q.Arm() {
		t.Error("descriptor is readable with nothing to come")
	}
}

func slicesOf(f []byte, n int) [][]byte {
	s := make([][]byte, n)
	for i := range s {
		s[i] = f
	}
	return s
}

func TestStreamFramesStayValidUntilRelease(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	q := s.Queues()[0]
	var lent []frame.Frame
	var b [4]frame.Frame
	for i := range 50 {
		peer.Write(wire(testFrame(1514, byte(i))))
		await(t, "a frame", func() bool {
			n := q.Rx(b[:])
			lent = append(lent, b[:n]...)
			return n > 0
		})
	}
	for i, f := range lent {
		if !bytes.Equal(f.Data, testFrame(1514, byte(i))) {
			t.Fatalf("frame %d was overwritten before Release", i)
		}
	}
	q.Release()
}

func TestStreamBadLengthCostsTheConnectionOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		send []byte
		errs uint64
		want string
	}{
		{"zero", []byte{0, 0, 0, 0}, 1, "length of 0 bytes"},
		{"4 GiB", []byte{0xff, 0xff, 0xff, 0xff}, 1, "length of 4294967295 bytes"},
		{"one too long", binary.BigEndian.AppendUint32(nil, frame.MaxLen+1), 1, "length of 65558 bytes"},
		{"text", []byte("GET / HTTP/1.1\r\n"), 1, "not a QEMU stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, opts StreamOptions) {
				s := start(t, opts)
				peer := dial(t, s)
				good := testFrame(60, 1)
				peer.Write(append(wire(good), c.send...))
				if got := receive(t, s.Queues()[0], 1); !bytes.Equal(got[0], good) {
					t.Error("the good frame before the bad length was lost")
				}
				var b [1]frame.Frame
				await(t, "the port to go down", func() bool { s.Queues()[0].Rx(b[:]); return !s.State().Up })
				if r := s.State().Reason; !strings.Contains(r, c.want) {
					t.Errorf("reason %q, want %q in it", r, c.want)
				}
				if n := s.Counters().RxErrors; n != c.errs {
					t.Errorf("RxErrors %d, want %d", n, c.errs)
				}
				if _, err := readFrame(peer); err == nil {
					t.Error("connection is still open")
				}
				// The next peer is served as if nothing had been.
				next := dial(t, s)
				next.Write(wire(good))
				receive(t, s.Queues()[0], 1)
				if d := s.Detail().(StreamDetail); d.Connects != 2 || !strings.Contains(d.LastLoss, c.want) {
					t.Errorf("detail %+v", d)
				}
			})
		})
	}
}

func TestStreamCountsRuntsAndHalfFrames(t *testing.T) {
	forKinds(t, func(t *testing.T, opts StreamOptions) {
		s := start(t, opts)
		peer := dial(t, s)
		good := testFrame(60, 1)
		half := wire(testFrame(100, 2))[:50]
		peer.Write(append(wire(testFrame(60, 0)[:13], good), half...))
		receive(t, s.Queues()[0], 1)
		if n := s.Counters().RxErrors; n != 1 {
			t.Errorf("RxErrors %d after a runt, want 1", n)
		}
		peer.Close()
		var b [1]frame.Frame
		await(t, "the port to go down", func() bool { s.Queues()[0].Rx(b[:]); return !s.State().Up })
		if n := s.Counters().RxErrors; n != 2 {
			t.Errorf("RxErrors %d after half a frame, want 2", n)
		}
	})
}
