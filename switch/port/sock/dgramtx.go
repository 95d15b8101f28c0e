package sock

import (
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// txPieces is the most pieces that a frame is gathered from: addresses, tag,
// the rest of Data, and so many of Rest. A frame in more pieces is put together
// first.
const txPieces = 8

// dgramTx sends a batch with one system call, gathering each frame from where
// it lies.
type dgramTx struct {
	port      *Dgram
	fd        int
	connected atomic.Bool // unix: the peer was there when we last knew

	mu     sync.Mutex // taken once a batch
	msgs   [frame.BatchSize]sysio.Mmsghdr
	iovs   [frame.BatchSize][txPieces]unix.Iovec
	fronts [frame.BatchSize][frame.MaxFront]byte
	flat   []byte // for a frame in too many pieces
}

func (t *dgramTx) init(p *Dgram) {
	t.port = p
	t.flat = make([]byte, 0, frame.MaxLen)
	if p.file == nil {
		t.connected.Store(true)
	}
}

// send implements Tx.
func (t *dgramTx) send(out []frame.Out) int {
	if !t.connected.Load() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := 0
	for taken < len(out) {
		batch := out[taken:min(len(out), taken+len(t.msgs))]
		looked, filled := t.gather(batch)
		sent := t.sendAll(t.msgs[:filled])
		if sent < filled {
			return taken + t.position(batch, sent)
		}
		taken += looked
	}
	return taken
}

// gather fills msgs from out and says how many frames it looked at and how many
// of them it filled in; the others must not go out and are counted.
func (t *dgramTx) gather(out []frame.Out) (looked, filled int) {
	flat := false
	for i := range out {
		o := &out[i]
		if !t.sendable(o) {
			t.port.count.txErrors.Add(1)
			continue
		}
		if 3+len(o.Rest) > txPieces {
			if flat {
				return i, filled // one at a time
			}
			flat = true
			t.flat = o.AppendWire(t.flat[:0])
			t.iovs[filled][0] = sysio.Piece(t.flat)
			t.msgs[filled].SetIovecs(t.iovs[filled][:1])
		} else {
			t.pieces(filled, o)
		}
		filled++
	}
	return len(out), filled
}

func (t *dgramTx) sendable(o *frame.Out) bool { return o.Hdr.Plain() && o.Len() <= frame.MaxLen }

// pieces points message i at the parts of o, in the order of the wire.
func (t *dgramTx) pieces(i int, o *frame.Out) {
	iov := t.iovs[i][:0]
	front, data := o.Front(t.fronts[i][:0])
	if len(front) > 0 {
		iov = append(iov, sysio.Piece(front))
	}
	iov = append(iov, sysio.Piece(data))
	for _, r := range o.Rest {
		iov = append(iov, sysio.Piece(r))
	}
	t.msgs[i].SetIovecs(iov)
}

// sendAll sends msgs and reports how many are done with: sent, or refused for
// good and counted. The rest found no room.
func (t *dgramTx) sendAll(msgs []sysio.Mmsghdr) int {
	done := 0
	for done < len(msgs) {
		n, errno := sysio.Send(t.fd, msgs[done:])
		done += n
		switch {
		case errno == 0:
		case errno == unix.EINTR:
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			return done
		case t.port.file != nil && gone(errno):
			t.connected.Store(false)
			t.port.look()
			t.port.count.txErrors.Add(uint64(len(msgs) - done))
			return len(msgs)
		default:
			// About this frame alone: EMSGSIZE, EPERM by a firewall, or UDP's
			// ECONNREFUSED for an earlier one.
			t.port.count.txErrors.Add(1)
			done++
		}
	}
	return done
}

// gone reports an error that says the unix peer's socket is closed.
func gone(errno syscall.Errno) bool {
	return errno == unix.ECONNREFUSED || errno == unix.ENOTCONN || errno == unix.ECONNRESET || errno == unix.EPIPE
}

// position is the index in out of the sendable frame number n, from 0.
func (t *dgramTx) position(out []frame.Out, n int) int {
	for i := range out {
		if t.sendable(&out[i]) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	return len(out)
}
