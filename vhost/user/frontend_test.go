package vhostuser

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// frontend is a front end in the test's hands, at the other end of a real socket.
// Messages are made byte by byte, so that they can be wrong.
type frontend struct {
	*guest
	conn  *net.UnixConn
	kicks []int // eventfds by ring
	calls []int
	errs  []int
}

// openPort opens and starts a listening port.
func openPort(t testing.TB, o Options) *Port {
	t.Helper()
	if o.Path == "" {
		dir, err := os.MkdirTemp("", "vu") // short: a socket's path may have 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		o.Path = filepath.Join(dir, "s")
	}
	p, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.Start(func() { p.Acted(p.State()) }); err != nil {
		t.Fatal(err)
	}
	return p
}

func dial(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second)) // a reply that never comes fails the test
	return c
}

// newFrontend connects to p. The guest has as many pairs as the port.
func newFrontend(t testing.TB, p *Port, o guestOptions) *frontend {
	t.Helper()
	o.pairs = p.opts.QueuePairs
	f := &frontend{guest: newGuest(t, o)}
	for range f.rings {
		f.kicks, f.calls, f.errs = append(f.kicks, eventFD(t)), append(f.calls, eventFD(t)), append(f.errs, eventFD(t))
	}
	f.port = p
	f.connect()
	return f
}

// connect makes a (new) connection and waits until it is served.
func (f *frontend) connect() {
	f.t.Helper()
	before := f.port.Detail().(Detail).Connections
	f.conn = dial(f.t, f.port.opts.Path)
	wait(f.t, "the connection to be served", func() bool { return f.port.Detail().(Detail).Connections > before })
}

func eventFD(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// wait polls for a condition that others bring about.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// ends runs f and fails the test if somebody keeps it waiting.
func ends(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come to its end", what)
	}
}

// write sends raw bytes with descriptors.
func (f *frontend) write(b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := f.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// send sends a request that has no reply.
func (f *frontend) send(request uint32, payload []byte, fds ...int) {
	f.t.Helper()
	if err := f.write(appendMessage(nil, request, flagVersion, payload), fds...); err != nil {
		f.t.Fatalf("send %s: %v", requestName(request), err)
	}
}

// answer reads one reply and checks its header (C1 row 1).
func (f *frontend) answer(request uint32) (payload []byte, fds []int) {
	f.t.Helper()
	payload, fds, err := f.tryAnswer(request)
	if err != nil {
		f.t.Fatalf("reply to %s: %v", requestName(request), err)
	}
	return payload, fds
}

func (f *frontend) tryAnswer(request uint32) (payload []byte, fds []int, err error) {
	b, oob := make([]byte, headerBytes), make([]byte, 256)
	n, oobn, _, _, err := f.conn.ReadMsgUnix(b, oob)
	if err == nil {
		_, err = io.ReadFull(f.conn, b[n:])
	}
	if err != nil {
		return nil, nil, err
	}
	if fds, err = parseFDs(oob[:oobn]); err != nil {
		return nil, nil, err
	}
	for _, fd := range fds {
		f.t.Cleanup(func() { unix.Close(fd) })
	}
	if got := binary.LittleEndian.Uint32(b); got != request {
		return nil, nil, fmt.Errorf("request %d", got)
	}
	if flags := binary.LittleEndian.Uint32(b[4:]); flags != flagVersion|flagReply {
		return nil, nil, fmt.Errorf("flags %#x", flags)
	}
	payload = make([]byte, binary.LittleEndian.Uint32(b[8:]))
	_, err = io.ReadFull(f.conn, payload)
	return payload, fds, err
}

// ask sends a request and reads its reply.
func (f *frontend) ask(request uint32, payload []byte) []byte {
	f.t.Helper()
	f.send(request, payload)
	b, _ := f.answer(request)
	return b
}

func (f *frontend) askU64(request uint32) uint64 {
	f.t.Helper()
	b := f.ask(request, nil)
	if len(b) != 8 {
		f.t.Fatalf("%s: reply of %d bytes", requestName(request), len(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// ack sends a request with NEED_REPLY and reports whether it was granted.
func (f *frontend) ack(request uint32, payload []byte, fds ...int) bool {
	f.t.Helper()
	if err := f.write(appendMessage(nil, request, flagVersion|flagNeedReply, payload), fds...); err != nil {
		f.t.Fatalf("send %s: %v", requestName(request), err)
	}
	b, _ := f.answer(request)
	if len(b) != 8 {
		f.t.Fatalf("%s: acknowledgement of %d bytes", requestName(request), len(b))
	}
	return binary.LittleEndian.Uint64(b) == 0
}

// must and mustNot are ack with the expected outcome.
func (f *frontend) must(request uint32, payload []byte, fds ...int) {
	f.t.Helper()
	if !f.ack(request, payload, fds...) {
		f.t.Fatalf("%s was refused: %s", requestName(request), f.port.Detail().(Detail).LastRefusal)
	}
}

func (f *frontend) mustNot(request uint32, payload []byte, fds ...int) {
	f.t.Helper()
	if f.ack(request, payload, fds...) {
		f.t.Fatalf("%s was granted", requestName(request))
	}
}

// closed waits until the port has ended the connection.
func (f *frontend) closed() {
	f.t.Helper()
	if _, err := f.conn.Read(make([]byte, 512)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		f.t.Fatalf("the connection goes on: %v", err)
	}
	wait(f.t, "the port to be free again", func() bool { return f.port.Detail().(Detail).Peer == nil })
}

// Payloads.

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func state(index, num int) []byte { return vringState{uint32(index), uint32(num)}.append(nil) }

func (a vringAddr) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, a.index)
	b = binary.LittleEndian.AppendUint32(b, a.flags)
	for _, v := range []uint64{a.desc, a.used, a.avail, a.log} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func (r memRegion) encode(b []byte) []byte {
	for _, v := range []uint64{r.guest, r.size, r.user, r.offset} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func tablePayload(regions []memRegion) []byte {
	b := u64(uint64(len(regions)))
	for _, r := range regions {
		b = r.encode(b)
	}
	return b
}

// table is SET_MEM_TABLE's payload and descriptors for the guest's memory.
func (f *frontend) table() ([]byte, []int) {
	fds := make([]int, len(f.regions))
	for i := range fds {
		fds[i] = f.fd
	}
	return tablePayload(f.regions), fds
}

// negotiate acknowledges features and all protocol features.
func (f *frontend) negotiate(features uint64) {
	f.t.Helper()
	if offered := f.askU64(reqGetFeatures); features&^offered != 0 {
		f.t.Fatalf("features %#x are not offered", features&^offered)
	}
	f.send(reqSetProtocolFeatures, u64(f.askU64(reqGetProtocolFeatures)))
	f.must(reqSetOwner, nil)
	f.must(reqSetFeatures, u64(features))
}

// setMemory sends the memory table.
func (f *frontend) setMemory() {
	f.t.Helper()
	payload, fds := f.table()
	f.must(reqSetMemTable, payload, fds...)
}

// startRing sends all that ring i needs, as QEMU does, base and all.
func (f *frontend) startRing(i int, base uint16) {
	f.t.Helper()
	f.must(reqSetVringNum, state(i, f.size))
	f.must(reqSetVringBase, state(i, int(base)))
	f.must(reqSetVringAddr, f.rings[i].addr.encode())
	f.must(reqSetVringKick, u64(uint64(i)), f.kicks[i])
	f.must(reqSetVringCall, u64(uint64(i)), f.calls[i])
	f.must(reqSetVringErr, u64(uint64(i)), f.errs[i])
}

func (f *frontend) enable(i, on int) {
	f.t.Helper()
	f.must(reqSetVringEnable, state(i, on))
}

// up brings the whole device up.
func (f *frontend) up(features uint64) {
	f.t.Helper()
	f.negotiate(features)
	f.setMemory()
	for i := range f.rings {
		f.startRing(i, 0)
		if features&featProtocol != 0 {
			f.enable(i, 1)
		}
	}
	wait(f.t, "the link", func() bool { return f.port.State().Up })
}

// connected is a port with one guest that is up.
func connected(t testing.TB, o Options, features uint64) (*Port, *frontend) {
	t.Helper()
	p := openPort(t, o)
	f := newFrontend(t, p, guestOptions{size: 64})
	f.up(features | featProtocol)
	return p, f
}

// fromGuest has the guest send frames and takes them off the port, checking
// every byte.
func (f *frontend) fromGuest(pair int, sizes ...int) {
	f.t.Helper()
	f.transmit(pair, sizes...)
	f.expect(pair, sizes...)
}

// expect takes frames off the port that were sent before.
func (f *frontend) expect(pair int, sizes ...int) {
	f.t.Helper()
	q := f.port.queues[pair]
	var b [frame.BatchSize]frame.Frame
	for len(sizes) > 0 {
		var n int
		wait(f.t, "frames from the guest", func() bool { n = q.Rx(b[:]); return n > 0 })
		for i := range n {
			if want := testFrame(sizes[0]); !bytes.Equal(wire(&b[i]), want) {
				f.t.Fatalf("got %d bytes, want %d", b[i].Len(), len(want))
			}
			sizes = sizes[1:]
		}
		q.Release()
	}
	f.sent(pair)
}

// toGuest sends frames to the guest and checks that they arrive.
func (f *frontend) toGuest(pair int, sizes ...int) {
	f.t.Helper()
	for range sizes {
		f.post(pair, bufBytes)
	}
	f.rings[2*pair].Publish()
	list := make([]frame.Frame, len(sizes))
	for i, n := range sizes {
		list[i].Data = testFrame(n)
	}
	if n := f.port.Tx(pair, outs(list)); n != len(sizes) {
		f.t.Fatalf("Tx = %d of %d: %+v", n, len(sizes), f.port.State())
	}
	got := f.receive(pair, 12)
	if len(got) != len(sizes) {
		f.t.Fatalf("received %d of %d", len(got), len(sizes))
	}
	for i := range got {
		if !bytes.Equal(got[i].frame, list[i].Data) {
			f.t.Fatalf("frame %d arrived as % x…", i, got[i].frame[:14])
		}
	}
}

// works checks both directions of every pair.
func (f *frontend) works() {
	f.t.Helper()
	for pair := range f.port.queues {
		f.fromGuest(pair, 60, 1514, 64)
		f.toGuest(pair, 60, 1514, 64)
	}
}

// resources counts this process's descriptors and its mappings of guests'
// memory, logs and inflight buffers.
func resources(t testing.TB) (fds, maps int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return openFDs(t), strings.Count(string(b), "memfd:")
}

// leaksNothing runs f, whose port must be back where it was, and compares.
func leaksNothing(t testing.TB, what string, f func()) {
	t.Helper()
	fds, maps := resources(t)
	f()
	wait(t, what+" to leak nothing", func() bool {
		nowFDs, nowMaps := resources(t)
		return nowFDs == fds && nowMaps == maps
	})
}
