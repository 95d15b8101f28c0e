package sock

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sockfile"
)

// dgramPair is a started port and the socket at its other end, as QEMU would
// hold it: bound, and sending to the port by address.
type dgramPair struct {
	port *Dgram
	peer net.PacketConn
	to   net.Addr
}

func startDgram(t *testing.T, opts DgramOptions) *Dgram {
	t.Helper()
	p, err := OpenDgram(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	p.Start(func() {})
	return p
}

func unixPair(t *testing.T) dgramPair {
	dir := t.TempDir()
	opts := DgramOptions{Local: filepath.Join(dir, "switch"), Remote: filepath.Join(dir, "guest"), Reconnect: minReconnect}
	p := startDgram(t, opts)
	peer, err := net.ListenPacket("unixgram", opts.Remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	await(t, "the port to come up", func() bool { return p.State().Up })
	return dgramPair{p, peer, &net.UnixAddr{Name: opts.Local, Net: "unixgram"}}
}

func udpPair(t *testing.T) dgramPair {
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	p := startDgram(t, DgramOptions{Local: "127.0.0.1:0", Remote: peer.LocalAddr().String()})
	to, err := net.ResolveUDPAddr("udp", p.Detail().(DgramDetail).Local)
	if err != nil {
		t.Fatal(err)
	}
	return dgramPair{p, peer, to}
}

func forPairs(t *testing.T, check func(*testing.T, dgramPair)) {
	for _, k := range []struct {
		name string
		make func(*testing.T) dgramPair
	}{{"unix", unixPair}, {"udp", udpPair}} {
		t.Run(k.name, func(t *testing.T) {
			checkFDs(t)
			check(t, k.make(t))
		})
	}
}

func (d dgramPair) read(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 1<<17)
	d.peer.SetReadDeadline(time.Now().Add(patience))
	n, _, err := d.peer.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestDgramCarriesFramesOfEverySizeBothWays(t *testing.T) {
	forPairs(t, func(t *testing.T, d dgramPair) {
		for i, n := range []int{frame.MinLen, 60, 64, 1514, 1518, 9014, 65507} {
			f := testFrame(n, byte(i))
			if _, err := d.peer.WriteTo(f, d.to); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, d.port.Queues()[0], 1)[0]; !bytes.Equal(got, f) {
				t.Errorf("frame of %d bytes arrived as %d bytes", n, len(got))
			}
			if k := d.port.Tx(0, outs(f)); k != 1 {
				t.Fatalf("Tx of %d bytes took %d", n, k)
			}
			if got := d.read(t); !bytes.Equal(got, f) {
				t.Errorf("frame of %d bytes left as %d bytes", n, len(got))
			}
		}
		if c := d.port.Counters(); c != (frame.Counters{}) {
			t.Errorf("counters %+v, want none", c)
		}
	})
}

func TestDgramGathersTagsAndPieces(t *testing.T) {
	d := udpPair(t)
	data := testFrame(64, 7)
	copy(data[12:], []byte{0x81, 0, 0, 5, 0x88, 0xb5})
	for pieces := range 2 * txPieces {
		f := frame.Frame{Data: data, Strip: frame.TagLen}
		for i := range pieces {
			f.Rest = append(f.Rest, bytes.Repeat([]byte{byte(i)}, i+1))
		}
		for _, tag := range []frame.Tag{0, frame.MakeTag(frame.EtherTypeVLAN, 3, 9), frame.MakeTag(frame.EtherTypeQinQ, 0, 4094)} {
			o := frame.Out{Frame: &f, EgressTag: tag}
			// Between two ordinary frames, so that order shows too.
			if n := d.port.Tx(0, []frame.Out{outs(data)[0], o, o, outs(data)[0]}); n != 4 {
				t.Fatalf("Tx took %d", n)
			}
			for i, want := range [][]byte{data, o.AppendWire(nil), o.AppendWire(nil), data} {
				if got := d.read(t); !bytes.Equal(got, want) {
					t.Fatalf("%d pieces, tag %#x, frame %d:\ngot  %x\nwant %x", pieces, tag, i, got, want)
				}
			}
		}
	}
}

func TestDgramCountsRuntsAndGiants(t *testing.T) {
	d := unixPair(t)
	good := testFrame(60, 1)
	for _, n := range []int{0, 1, frame.MinLen - 1, frame.MaxLen + 1} {
		if _, err := d.peer.WriteTo(testFrame(frame.MaxLen+1, 0)[:n], d.to); err != nil {
			t.Fatal(err)
		}
		// One at a time: net.unix.max_dgram_qlen may be as low as 10.
		d.peer.WriteTo(good, d.to)
		if got := receive(t, d.port.Queues()[0], 1)[0]; !bytes.Equal(got, good) {
			t.Errorf("after %d bytes: got %d bytes", n, len(got))
		}
	}
	if n := d.port.Counters().RxErrors; n != 4 {
		t.Errorf("RxErrors %d, want 4", n)
	}
}

// A worker releases only what it was lent.
func TestDgramSurvivesNothingButRunts(t *testing.T) {
	d := unixPair(t)
	q := d.port.Queues()[0]
	var b [frame.BatchSize]frame.Frame
	d.peer.SetWriteDeadline(time.Now().Add(patience)) // it would wait for a queue that nobody empties
	for range 3 * frame.BatchSize {
		d.peer.WriteTo([]byte{1}, d.to)
		if n := q.Rx(b[:]); n != 0 {
			t.Fatalf("lent %d frames, want none", n)
		}
	}
	d.peer.WriteTo(testFrame(60, 1), d.to)
	if n := q.Rx(b[:]); n != 1 {
		t.Errorf("lent %d frames after as many runts as fit, want 1", n)
	}
}

func TestDgramFramesStayValidUntilRelease(t *testing.T) {
	d := unixPair(t)
	q := d.port.Queues()[0]
	var lent []frame.Frame
	var b [frame.BatchSize]frame.Frame
	for i := range frame.BatchSize {
		d.peer.WriteTo(testFrame(100, byte(i)), d.to)
		lent = append(lent, b[:q.Rx(b[:])]...)
	}
	d.peer.WriteTo(testFrame(100, 255), d.to)
	if n := q.Rx(b[:]); n != 0 {
		t.Fatalf("lent %d frames more than a batch before Release", n)
	}
	if len(lent) != frame.BatchSize {
		t.Fatalf("lent %d frames, want %d", len(lent), frame.BatchSize)
	}
	for i, f := range lent {
		if !bytes.Equal(f.Data, testFrame(100, byte(i))) {
			t.Fatalf("frame %d was overwritten before Release", i)
		}
	}
	q.Release()
	receive(t, q, 1)
}

// A guest's socket is unlinked and made anew when the guest restarts.
func TestDgramUnixPeerComesAndGoes(t *testing.T) {
	d := unixPair(t)
	path := d.peer.LocalAddr().String()
	for i := range 3 {
		d.peer.Close()
		os.Remove(path)
		// The port learns of it when it sends, as spanning tree does at least.
		await(t, "the port to go down", func() bool {
			d.port.Tx(0, outs(testFrame(60, 0)))
			return !d.port.State().Up
		})
		if r := d.port.State().Reason; !strings.Contains(r, path) {
			t.Errorf("reason %q does not name %s", r, path)
		}
		var err error
		if d.peer, err = net.ListenPacket("unixgram", path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.peer.Close() })
		// The new guest's first frame is not refused, whatever we know of it.
		if _, err := d.peer.WriteTo(testFrame(60, byte(i)), d.to); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, d.port.Queues()[0], 1)[0]; got[20] != byte(i) {
			t.Fatalf("frame %d, want %d", got[20], i)
		}
		await(t, "the port to come up", func() bool { return d.port.State().Up })
	}
}

func TestDgramSlowReaderLosesItsOwnFrames(t *testing.T) {
	d := unixPair(t)
	const offered = 200 * frame.BatchSize
	batch := make([]frame.Out, frame.BatchSize)
	var sent []uint32
	for i := 0; i < offered; i += len(batch) {
		for j := range batch {
			f := testFrame(1000, 0)
			binary.BigEndian.PutUint32(f[14:], uint32(i+j))
			batch[j] = outs(f)[0]
		}
		n := d.port.Tx(0, batch)
		for j := range n {
			sent = append(sent, uint32(i+j))
		}
	}
	if len(sent) == 0 || len(sent) == offered {
		t.Fatalf("a peer that reads nothing took %d of %d frames", len(sent), offered)
	}
	for i, want := range sent {
		if got := binary.BigEndian.Uint32(d.read(t)[14:]); got != want {
			t.Fatalf("frame %d is number %d, want %d", i, got, want)
		}
	}
	if !d.port.State().Up || d.port.Counters().TxErrors != 0 {
		t.Errorf("state %+v, counters %+v", d.port.State(), d.port.Counters())
	}
}

// Frames that may not go out are skipped wherever they stand in a batch, and
// what Tx reports counts from the right one when the rest finds no room.
func TestDgramSkipsUnfinishedFrames(t *testing.T) {
	d := unixPair(t)
	bad := frame.Out{Frame: &frame.Frame{Data: testFrame(3000, 1), Hdr: frame.VnetHdr{GSOType: frame.GSOTCPv4, GSOSize: 1448}}}
	var batch []frame.Out
	for i := range 400 {
		batch = append(batch, bad, outs(testFrame(60, byte(i)))[0])
	}
	taken := 0
	for taken < len(batch) {
		n := d.port.Tx(0, batch[taken:])
		for i := taken; i < taken+n; i++ {
			if i%2 == 1 {
				if got := d.read(t); got[20] != byte(i/2) {
					t.Fatalf("frame %d, want %d", got[20], byte(i/2))
				}
			}
		}
		if n == 0 {
			t.Fatal("no progress with an empty queue")
		}
		taken += n
	}
	if n := d.port.Counters().TxErrors; n < 400 {
		t.Errorf("TxErrors %d, want at least the 400 unfinished ones", n)
	}
}

func TestDgramUDPHearsItsPeerOnly(t *testing.T) {
	d := udpPair(t)
	other, err := net.Dial("udp", d.to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.Write(testFrame(60, 66))
	d.peer.WriteTo(testFrame(60, 1), d.to)
	if got := receive(t, d.port.Queues()[0], 1)[0]; got[20] != 1 {
		t.Errorf("took a frame from a stranger")
	}
}

func TestDgramUDPSurvivesAnAbsentPeer(t *testing.T) {
	d := udpPair(t)
	addr := d.peer.LocalAddr().String()
	d.peer.Close()
	q := d.port.Queues()[0]
	var b [1]frame.Frame
	await(t, "a refused frame to be counted", func() bool {
		d.port.Tx(0, outs(testFrame(60, 0)))
		return d.port.Counters().TxErrors > 0
	})
	await(t, "the pending error to be taken off", func() bool { q.Rx(b[:]); return !readable(t, q, 0) })
	peer, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	peer.WriteTo(testFrame(60, 1), d.to)
	receive(t, q, 1)
}

func TestDgramHotPathDoesNotAllocate(t *testing.T) {
	d := unixPair(t)
	peer := d.peer.(*net.UnixConn)
	guest, err := net.DialUnix("unixgram", nil, d.to.(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	f := frame.Frame{Data: testFrame(200, 1), Rest: [][]byte{testFrame(50, 2)}}
	out := []frame.Out{{Frame: &f, EgressTag: frame.MakeTag(frame.EtherTypeVLAN, 0, 9)}, {Frame: &f}}
	in, sink := testFrame(200, 1), make([]byte, 2000)
	var b [frame.BatchSize]frame.Frame
	q := d.port.Queues()[0]
	if n := testing.AllocsPerRun(50, func() {
		d.port.Tx(0, out)
		peer.Read(sink)
		peer.Read(sink)
		guest.Write(in)
		for q.Rx(b[:]) == 0 {
		}
		q.Release()
		q.Arm()
	}); n != 0 {
		t.Errorf("%v allocations per batch, want 0", n)
	}
}

func TestDgramOptions(t *testing.T) {
	for _, c := range []struct {
		local, remote, want string
	}{
		{"", "/run/b", "local"},
		{"/run/a", "", "remote"},
		{"/run/a", "127.0.0.1:1", "both"},
		{"/run/a", "/run/a", "same address"},
		{"127.0.0.1:0", "239.0.0.1:5000", "unicast"},
		{"127.0.0.1:0", "0.0.0.0:5000", "unicast"},
		{"127.0.0.1:0", "127.0.0.1:0", "same address"},
		{"localhost", "127.0.0.1:1", "HOST:PORT"},
		{"/nonexistent/dir/a", "/run/b", "no such file"},
	} {
		checkFDs(t)
		p, err := OpenDgram(DgramOptions{Local: c.local, Remote: c.remote})
		if err == nil {
			p.Close()
			t.Errorf("local=%s remote=%s was accepted", c.local, c.remote)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("local=%s remote=%s: error %q, want %q in it", c.local, c.remote, err, c.want)
		}
	}
	var o DgramOptions
	for _, kv := range [][2]string{{"local", "/a"}, {"remote", "/b"}, {"reconnect", "2s"}, {"perm", "0666"}} {
		if err := o.Set(kv[0], kv[1]); err != nil {
			t.Error(err)
		}
	}
	if want := (DgramOptions{Local: "/a", Remote: "/b", Reconnect: 2 * time.Second, File: sockfile.Options{Perm: 0o666}}); o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	if err := o.Set("addr", "x"); err == nil {
		t.Error("an unknown key was accepted")
	}
}
