package gen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

const (
	// bulkChunk is what one write hands to TCP, bytes; the kernel makes
	// super-frames of it where the path allows.
	bulkChunk = 256 << 10
	// datagram is the largest UDP payload in a frame of 1518 bytes.
	datagram = 1472
	// dialLimit is how long a connection may take to come about.
	dialLimit = 3 * time.Second
)

// Bulk sends a stream from one host to an address of another with the kernel's
// own stack, "tcp" or "udp", and returns the payload received in bit/s. warm is
// for TCP to find its window and doesn't count.
func Bulk(ctx context.Context, network string, from, to *netns.Host, addr netip.Addr, warm, length time.Duration) (bits float64, err error) {
	out, in, err := connect(ctx, network, from, to, netip.AddrPortFrom(addr, 0))
	if err != nil {
		return 0, fmt.Errorf("bulk %s: %w", network, err)
	}
	var received atomic.Int64
	var ends sync.WaitGroup
	size := bulkChunk
	if network == "udp" {
		size = datagram
	}
	ends.Go(func() { // ends when its connection is closed
		b := make([]byte, bulkChunk)
		for {
			n, err := in.Read(b)
			received.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	ends.Go(func() {
		b := make([]byte, size)
		for {
			if _, err := out.Write(b); err != nil && !transient(err) {
				return
			}
		}
	})
	Wait(ctx, warm)
	begin, before := time.Now(), received.Load()
	Wait(ctx, length)
	bits = 8 * float64(received.Load()-before) / time.Since(begin).Seconds()
	err = errors.Join(out.Close(), in.Close(), ctx.Err())
	ends.Wait()
	return bits, err
}

// transient reports a datagram that could not go, for want of room for example; the
// next one may.
func transient(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "write" && !errors.Is(err, net.ErrClosed) && op.Net == "udp"
}

// connect opens both ends.
func connect(ctx context.Context, network string, from, to *netns.Host, addr netip.AddrPort) (out, in net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if network == "udp" {
		var l *net.UDPConn
		if err := to.Do(func() (err error) {
			l, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
			return err
		}); err != nil {
			return nil, nil, err
		}
		out, err := dial(ctx, network, from, l.LocalAddr().String())
		if err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		return out, l, nil
	}
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, addr.String())
		return err
	}); err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if out, err = dial(ctx, network, from, l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if in, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return out, in, nil
}

func dial(ctx context.Context, network string, from *netns.Host, addr string) (c net.Conn, err error) {
	err = from.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}
