package gen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

const (
	// pingEvery is the distance of two echo requests.
	pingEvery = time.Millisecond
	// pingLost is when an answer is given up.
	pingLost = 20 * time.Millisecond
	// pingLead is how long before a request is due the thread wakes up, so that
	// its own waking is not measured.
	pingLead = 100 * time.Microsecond

	icmpEchoReply   = 0 // RFC 792
	icmpEchoRequest = 8
	icmpHeader      = 8
	pingLen         = icmpHeader + 56 // as ping(8)
)

// Pings is what became of echo requests.
type Pings struct {
	Sent int
	Lost int // not answered within 20 ms
}

// Ping sends echo requests from a host, one a millisecond, and records their
// round trips in nanoseconds, from when the request was due. The answers come
// from the other end's kernel. While it waits for one it looks for it without
// sleeping, so a round trip holds no wake-up but those of the contender.
//
// A lost answer is recorded as the time after which it was given up. While one
// is awaited no other request goes out, and none is made up for in a burst; what
// those left out would have waited is recorded in their place, so that a delay
// counts for as long as it lasted and not once.
func Ping(ctx context.Context, from *netns.Host, to netip.Addr, length time.Duration, h *hdrhistogram.Histogram) (Pings, error) {
	var n Pings
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var p *pinger
		if p, err = newPinger(from, to); err != nil {
			return
		}
		defer func() { err = errors.Join(err, unix.Close(p.fd)) }()
		if err = sysio.SetAffinity(CPU); err != nil {
			return
		}
		if err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return
		}
		// The first one asks for addresses (ARP), and teaches the switch.
		for range 3 {
			if _, _, err = p.once(time.Now()); err != nil {
				return
			}
		}
		n, err = p.run(ctx, length, h)
	}()
	<-done
	if err != nil {
		return n, fmt.Errorf("ping %s: %w", to, err)
	}
	return n, nil
}

type pinger struct {
	fd      int
	to      unix.SockaddrInet4
	id      uint16
	seq     uint16
	request [pingLen]byte
	answer  [256]byte
}

func newPinger(from *netns.Host, to netip.Addr) (*pinger, error) {
	p := &pinger{id: uint16(os.Getpid()), to: unix.SockaddrInet4{Addr: to.As4()}}
	err := from.Do(func() (err error) {
		p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	return p, nil
}

func (p *pinger) run(ctx context.Context, length time.Duration, h *hdrhistogram.Histogram) (n Pings, err error) {
	begin := time.Now()
	for due := begin; due.Sub(begin) < length; {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if rest := time.Until(due); rest > pingLead {
			sleep(rest - pingLead)
		}
		for time.Until(due) > 0 {
		}
		rtt, answered, err := p.once(due)
		if err != nil {
			return n, err
		}
		n.Sent++
		if !answered {
			n.Lost++
			rtt = pingLost
		}
		for ; rtt > 0; rtt -= pingEvery { // the request and those left out meanwhile
			if err := h.RecordValue(rtt.Nanoseconds()); err != nil {
				return n, err
			}
			due = due.Add(pingEvery)
		}
	}
	return n, nil
}

// once sends a request that was due and waits for its answer.
func (p *pinger) once(due time.Time) (rtt time.Duration, answered bool, err error) {
	p.seq++
	b := p.request[:]
	b[0] = icmpEchoRequest
	binary.BigEndian.PutUint16(b[2:], 0)
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.seq)
	binary.BigEndian.PutUint16(b[2:], ^internetSum(b))
	if err := unix.Sendto(p.fd, b, 0, &p.to); err != nil {
		return 0, false, fmt.Errorf("send echo request: %w", err)
	}
	for {
		n, err := unix.Read(p.fd, p.answer[:])
		rtt = time.Since(due)
		switch {
		case err == nil && p.mine(p.answer[:n]):
			return rtt, true, nil
		case err != nil && err != unix.EAGAIN && err != unix.EINTR:
			return 0, false, fmt.Errorf("receive echo reply: %w", err)
		case rtt > pingLost:
			return rtt, false, nil
		}
	}
}

// mine reports the answer to the last request. A raw socket delivers the IPv4
// header, too.
func (p *pinger) mine(b []byte) bool {
	if len(b) < 20 {
		return false
	}
	b = b[min(len(b), int(b[0]&15)*4):]
	return len(b) >= icmpHeader && b[0] == icmpEchoReply &&
		binary.BigEndian.Uint16(b[4:]) == p.id && binary.BigEndian.Uint16(b[6:]) == p.seq
}

// internetSum is the one's-complement sum of RFC 1071 over an even number of
// bytes.
func internetSum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
