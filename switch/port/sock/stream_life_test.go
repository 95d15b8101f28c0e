package sock

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

func TestStreamServerServesOnePeerAndThenTheNext(t *testing.T) {
	forKinds(t, func(t *testing.T, opts StreamOptions) {
		s := start(t, opts)
		first := dial(t, s)
		second := dialOnly(t, s) // connects, and waits in the backlog
		second.Write(wire(testFrame(60, 2)))
		first.Write(wire(testFrame(60, 1)))
		q := s.Queues()[0]
		if got := receive(t, q, 1)[0]; got[20] != 1 {
			t.Fatalf("frame from peer %d, want 1", got[20])
		}
		first.Close()
		if got := receive(t, q, 1)[0]; got[20] != 2 {
			t.Fatalf("frame from peer %d, want 2", got[20])
		}
	})
}

func TestStreamClientReconnects(t *testing.T) {
	checkFDs(t)
	path := filepath.Join(t.TempDir(), "s")
	s := start(t, StreamOptions{Path: path, Client: true, Reconnect: minReconnect})
	await(t, "a reason", func() bool { return strings.Contains(s.State().Reason, "no such file") })
	for i := range 3 {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the port to come up", func() bool { return s.State().Up })
		c.Write(wire(testFrame(60, byte(i))))
		if got := receive(t, s.Queues()[0], 1)[0]; got[20] != byte(i) {
			t.Fatalf("frame of connection %d in connection %d", got[20], i)
		}
		c.Close()
		l.Close()
		var b [1]frame.Frame
		await(t, "the port to go down", func() bool { s.Queues()[0].Rx(b[:]); return !s.State().Up })
	}
	if d := s.Detail().(StreamDetail); d.Connects != 3 || d.Mode != "client" {
		t.Errorf("detail %+v", d)
	}
}

// A peer that does not read loses its own frames, whole ones only, and Tx comes
// back at once each time.
func TestStreamSlowReaderLosesWholeFramesOnly(t *testing.T) {
	forKinds(t, func(t *testing.T, opts StreamOptions) {
		s := start(t, opts)
		peer := dial(t, s)
		const offered = 20000
		var sent []int // which frames the port took, in order
		batch := make([]frame.Out, frame.BatchSize)
		for i := 0; i < offered; i += len(batch) {
			for j := range batch {
				f := testFrame(1000, 0)
				binary.BigEndian.PutUint32(f[14:], uint32(i+j))
				batch[j] = frame.Out{Frame: &frame.Frame{Data: f}}
			}
			n := s.Tx(0, batch)
			for j := range n {
				sent = append(sent, i+j)
			}
		}
		if len(sent) == offered {
			t.Fatal("a peer that reads nothing took everything")
		}
		if b := s.Detail().(StreamDetail).TxBacklog; b == 0 || b > txBufLen {
			t.Errorf("backlog %d bytes, want 1 to %d", b, txBufLen)
		}
		stop := worker(t, s.Queues()[0])
		for i, want := range sent {
			f, err := readFrame(peer)
			if err != nil {
				t.Fatalf("frame %d of %d: %v", i, len(sent), err)
			}
			if got := int(binary.BigEndian.Uint32(f[14:])); len(f) != 1000 || got != want {
				t.Fatalf("frame %d is number %d of %d bytes, want number %d", i, got, len(f), want)
			}
		}
		stop()
		if readable(t, s.Queues()[0], 0) {
			t.Error("descriptor still asks for a flush when everything is written")
		}
		if c := s.Counters(); c.TxErrors != 0 {
			t.Errorf("TxErrors %d: what the port took it delivered", c.TxErrors)
		}
	})
}

func TestStreamCountsFramesThatWaitedWhenThePeerWent(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	f := testFrame(1500, 1)
	taken := 0
	for s.Tx(0, outs(f)) == 1 {
		taken++
	}
	got := 0
	for got < 10 {
		if _, err := readFrame(peer); err != nil {
			t.Fatal(err)
		}
		got++
	}
	peer.Close()
	var b [1]frame.Frame
	await(t, "the port to go down", func() bool { s.Queues()[0].Rx(b[:]); return !s.State().Up })
	// The rest was in the kernel's buffer (uncounted) or in ours (counted).
	ours := uint64(txBufLen / len(wire(f)))
	if n := s.Counters().TxErrors; n < ours-20 || n > ours+1 {
		t.Errorf("TxErrors %d, want about %d", n, ours)
	}
}

func TestStreamRefusesUnfinishedFrames(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	bad := frame.Frame{Data: testFrame(3000, 1), Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448}}
	long := frame.Frame{Data: testFrame(frame.MaxLen+1, 1)}
	good := testFrame(60, 2)
	if n := s.Tx(0, []frame.Out{{Frame: &bad}, {Frame: &long}, {Frame: &frame.Frame{Data: good}}}); n != 3 {
		t.Errorf("Tx took %d, want 3", n)
	}
	if f, err := readFrame(peer); err != nil || !bytes.Equal(f, good) {
		t.Errorf("peer got %d bytes, %v; want the good frame alone", len(f), err)
	}
	if n := s.Counters().TxErrors; n != 2 {
		t.Errorf("TxErrors %d, want 2", n)
	}
	if s.State().Offloads != (frame.Offloads{}) {
		t.Error("a stream must claim no offloads")
	}
}

func TestStreamTakesNothingWithoutAPeer(t *testing.T) {
	s := start(t, kinds[0].options(t))
	if n := s.Tx(0, outs(testFrame(60, 1))); n != 0 {
		t.Errorf("Tx took %d frames", n)
	}
	if st := s.State(); st.Up || st.Reason == "" {
		t.Errorf("state %+v, want down with a reason", st)
	}
}

func TestStreamHotPathDoesNotAllocate(t *testing.T) {
	s := start(t, kinds[0].options(t))
	peer := dial(t, s)
	out := outs(slicesOf(testFrame(200, 1), frame.BatchSize)...)
	in := wire(slicesOf(testFrame(200, 1), frame.BatchSize)...)
	sink := make([]byte, len(in))
	var b [frame.BatchSize]frame.Frame
	q := s.Queues()[0]
	if n := testing.AllocsPerRun(50, func() {
		s.Tx(0, out)
		io.ReadFull(peer, sink)
		peer.Write(in)
		for got := 0; got < len(b); {
			got += q.Rx(b[:])
			q.Release()
			q.Arm()
		}
	}); n != 0 {
		t.Errorf("%v allocations per batch, want 0", n)
	}
}

// A peer may send as soon as it is connected, and hang up. What it sends waits until
// the switch has acted on the link, and is not lost with it.
func TestStreamFirstFramesWaitForTheSwitch(t *testing.T) {
	forKinds(t, func(t *testing.T, opts StreamOptions) {
		s, err := OpenStream(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		down := s.State()
		if err := s.Start(func() {}); err != nil {
			t.Fatal(err)
		}
		q := s.Queues()[0]
		var b [1]frame.Frame
		for i := range 2 {
			peer := dial(t, s)
			peer.Write(wire(testFrame(60, byte(i))))
			peer.Close()
			if !readable(t, q, patience) {
				t.Fatal("the frame does not come")
			}
			s.Acted(down) // what the switch found before
			if n := q.Rx(b[:]); n != 0 {
				t.Fatalf("Rx = %d before the switch is ready", n)
			}
			if !s.State().Up {
				t.Fatal("the port gave the connection up with its frame")
			}
			s.Acted(s.State())
			if got := receive(t, q, 1)[0]; got[20] != byte(i) {
				t.Fatalf("frame of connection %d in connection %d", got[20], i)
			}
			await(t, "the port to go down", func() bool { q.Rx(b[:]); return !s.State().Up })
		}
	})
}

func TestStreamNotifiesEveryChangeOfLink(t *testing.T) {
	s, err := OpenStream(kinds[0].options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	states := make(chan bool, 16)
	s.Start(func() { states <- s.State().Up; s.Acted(s.State()) })
	c, err := net.Dial("unix", s.opts.Path)
	if err != nil {
		t.Fatal(err)
	}
	if up := <-states; !up {
		t.Error("first notice says down")
	}
	c.Close()
	var b [1]frame.Frame
	await(t, "the second notice", func() bool {
		s.Queues()[0].Rx(b[:])
		select {
		case up := <-states:
			return !up
		default:
			return false
		}
	})
}

func FuzzStreamNeverLendsMoreThanCame(f *testing.F) {
	f.Add(wire(testFrame(60, 1), testFrame(14, 2)), 7)
	f.Add([]byte{0, 0, 0, 0}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1}, 3)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		w, err := newWake()
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		s := &Stream{wake: w, lost: make(chan string, 1)}
		s.rx.init(s)
		s.tx.init(s)
		s.rx.fd = 1 << 20 // never read: the bytes are put into the buffer here
		if cut = cut % 997; cut <= 0 {
			cut = 1
		}
		if len(in) > rxBufLen {
			in = in[:rxBufLen]
		}
		var b [3]frame.Frame
		lent := 0
		for len(in) > 0 && s.rx.fd >= 0 {
			n := copy(s.rx.buf[s.rx.end:], in[:min(cut, len(in))])
			s.rx.end += n
			in = in[n:]
			for {
				k := s.rx.parse(b[:])
				for _, fr := range b[:k] {
					if len(fr.Data) < frame.MinLen || len(fr.Data) > frame.MaxLen {
						t.Fatalf("lent %d bytes", len(fr.Data))
					}
					lent += lengthLen + len(fr.Data)
				}
				if k == 0 {
					break
				}
			}
			if lent > s.rx.end || s.rx.start > s.rx.end {
				t.Fatalf("lent %d of %d bytes, start %d", lent, s.rx.end, s.rx.start)
			}
		}
	})
}
