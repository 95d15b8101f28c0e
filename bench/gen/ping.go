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

	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
	"github.com/kvswitch/kvswitch/switch/sysio"
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

// Ping sends echo requests from a host, one a millisecond, and records their
// round trips in nanoseconds. The answers come from the other end's kernel.
// While it waits for one it looks for it without sleeping, so a round trip holds
// no wake-up but those of the contender. Lost answers are not recorded.
func Ping(ctx context.Context, from *netlab.Host, to netip.Addr, length time.Duration, h *hdrhistogram.Histogram) error {
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
			if _, _, err = p.once(pingLost); err != nil {
				return
			}
		}
		err = p.run(ctx, length, h)
	}()
	<-done
	if err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	return nil
}

type pinger struct {
	fd      int
	to      unix.SockaddrInet4
	id      uint16
	seq     uint16
	request [pingLen]byte
	answer  [256]byte
}

func newPinger(from *netlab.Host, to netip.Addr) (*pinger, error) {
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

func (p *pinger) run(ctx context.Context, length time.Duration, h *hdrhistogram.Histogram) error {
	begin := time.Now()
	for i := 0; ; i++ {
		due := time.Duration(i) * pingEvery
		if due >= length {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if rest := due - time.Since(begin); rest > pingLead {
			sleep(rest - pingLead)
		}
		for time.Since(begin) < due {
		}
		rtt, ok, err := p.once(pingLost)
		if err != nil {
			return err
		}
		if ok {
			if err := h.RecordValue(rtt.Nanoseconds()); err != nil {
				return err
			}
		}
	}
}

// once sends a request and waits for its answer.
func (p *pinger) once(limit time.Duration) (rtt time.Duration, ok bool, err error) {
	p.seq++
	b := p.request[:]
	b[0] = icmpEchoRequest
	binary.BigEndian.PutUint16(b[2:], 0)
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.seq)
	binary.BigEndian.PutUint16(b[2:], ^internetSum(b))
	begin := time.Now()
	if err := unix.Sendto(p.fd, b, 0, &p.to); err != nil {
		return 0, false, fmt.Errorf("send echo request: %w", err)
	}
	for {
		n, err := unix.Read(p.fd, p.answer[:])
		rtt = time.Since(begin)
		switch {
		case err == nil && p.mine(p.answer[:n]):
			return rtt, true, nil
		case err != nil && err != unix.EAGAIN && err != unix.EINTR:
			return 0, false, fmt.Errorf("receive echo reply: %w", err)
		case rtt > limit:
			return 0, false, nil
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
