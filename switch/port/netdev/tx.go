package netdev

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// lane is one transmit socket and the message headers to fill it from. There is
// one per worker, so that the lock is free when it is wanted: it only keeps
// callers with the same hint, and the port's side, apart.
//
// Frames go out by sendmmsg, gathered from where they lie: the kernel copies
// once, into its own buffer. A PACKET_TX_RING costs the same for small frames
// (between 0.91 and 1.04, measured as in ring.go), needs a copy into slots of
// one size, and gets its slots back only when the far end is done with them.
//
// PACKET_QDISC_BYPASS is not used. It gained nothing on veth, which has no
// queueing discipline to bypass; on a NIC it would drop where the discipline
// waits; and what the switch sends would be hidden from tcpdump on the port.
type lane struct {
	mu   sync.Mutex
	fd   int // -1: the device is not there
	msgs [frame.BatchSize]sysio.Mmsghdr
	head [frame.BatchSize][frame.MaxHead]byte
	iov  [frame.BatchSize*2 + sysio.MaxIovecs]unix.Iovec
}

// sendRoom is SO_SNDBUF, in bytes: how much may wait in a NIC's queues.
const sendRoom = 4 << 20

// send sends out in order and reports how many it took care of, as frame.Port's
// Tx does.
func (l *lane) send(out []frame.Out, refused *atomic.Uint64) (done int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		refused.Add(uint64(len(out)))
		return len(out)
	}
	for done < len(out) {
		n, pieces := l.gather(out[done:])
		if n == 0 { // more pieces than a message may have
			refused.Add(1)
			done++
			continue
		}
		sent, more := l.push(n, refused)
		clear(l.iov[:pieces]) // keep no hold on the frames
		done += sent
		if !more {
			break
		}
	}
	return done
}

// gather describes as many frames as it has messages and pieces for.
func (l *lane) gather(out []frame.Out) (n, pieces int) {
	for n < len(out) && n < len(l.msgs) {
		o := &out[n]
		need := 2 + len(o.Rest)
		if need > sysio.MaxIovecs || pieces+need > len(l.iov) {
			break
		}
		iov := l.iov[pieces : pieces+need]
		head, data := o.Head(l.head[n][:0])
		iov[0], iov[1] = sysio.Piece(head), sysio.Piece(data)
		for i, rest := range o.Rest {
			iov[2+i] = sysio.Piece(rest)
		}
		l.msgs[n].SetIovecs(iov)
		pieces += need
		n++
	}
	return n, pieces
}

// push sends the first n messages. It reports how many it took care of, and
// whether there is room for more.
//
// What the kernel says of a frame, it says of that one alone, but for two things:
// that the device is down, and that there is no room. The latter is ENOBUFS as a
// rule, and so is a peer's refusal of a frame beyond its MTU. So another frame is
// tried then: if that is refused, too, there is no room.
func (l *lane) push(n int, refused *atomic.Uint64) (done int, more bool) {
	doubt := 0 // 1 if the frame before done was refused with ENOBUFS
	for done < n {
		sent, errno := sysio.Send(l.fd, l.msgs[done:n])
		if sent > 0 {
			refused.Add(uint64(doubt))
			doubt = 0
		}
		done += sent
		switch errno {
		case 0, unix.EINTR:
			continue
		case unix.EAGAIN: // socket buffer
			return done - doubt, false
		case unix.ENOBUFS: // queueing discipline, memory, the peer's queue, or its MTU
			if doubt > 0 {
				return done - doubt, false
			}
			doubt = 1
			done++
			continue
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV: // down or gone: so it is for the others
			refused.Add(uint64(n - done + doubt))
			return n, true
		}
		// This one: EMSGSIZE too long for the MTU, EINVAL a header that makes no
		// sense, ENOMEM one by which the kernel can't segment.
		refused.Add(uint64(1 + doubt))
		doubt = 0
		done++
	}
	return done - doubt, doubt == 0
}
