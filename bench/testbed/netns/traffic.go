package netns

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Ping sends one echo request and waits up to a second for its answer.
func (h *Host) Ping(addr string) error {
	_, err := h.Try("ping", "-n", "-c", "1", "-W", "1", addr)
	return err
}

// Reaches waits until addr answers a ping.
func (h *Host) Reaches(addr string) {
	h.tb.Helper()
	Await(h.tb, 10*time.Second, h.name+" reaches "+addr, func() error { return h.Ping(addr) })
}

// Transfer moves n bytes over one TCP connection from this host to addr, an
// address of the other host, and fails the test unless they arrive unharmed
// within the timeout.
func (h *Host) Transfer(to *Host, addr netip.Addr, n int64, timeout time.Duration) {
	h.tb.Helper()
	if err := h.TryTransfer(to, addr, n, timeout); err != nil {
		h.tb.Fatalf("move %d bytes from %s to %s: %v", n, h.name, addr, err)
	}
}

// TryTransfer is Transfer for those who want to know.
func (h *Host) TryTransfer(to *Host, addr netip.Addr, n int64, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()

	type result struct {
		sum string
		err error
	}
	received := make(chan result, 1)
	go func() {
		sum, err := receiveAll(listener, deadline)
		received <- result{sum, err}
	}()

	var conn net.Conn
	err = h.Do(func() (err error) {
		ctx, cancel := context.WithDeadline(h.tb.Context(), deadline)
		defer cancel()
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	digest := sha256.New()
	source := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{}), n), digest)
	if _, err := io.Copy(conn, source); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got := <-received
	if got.err != nil {
		return fmt.Errorf("receive: %w", got.err)
	}
	if want := hexSum(digest); got.sum != want {
		return fmt.Errorf("received other bytes than were sent: SHA-256 %s, want %s", got.sum, want)
	}
	return nil
}

// receiveAll reads one connection to its end.
func receiveAll(l net.Listener, deadline time.Time) (string, error) {
	if err := l.(*net.TCPListener).SetDeadline(deadline); err != nil {
		return "", err
	}
	conn, err := l.Accept()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	digest := sha256.New()
	_, err = io.Copy(digest, conn)
	return hexSum(digest), err
}

func hexSum(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }

// ChecksumErrors is how many packets the host's stack has refused for a wrong
// checksum, over all protocols, IPv4 and IPv6.
func (h *Host) ChecksumErrors() (n uint64) {
	h.tb.Helper()
	err := h.Do(func() error {
		for _, path := range []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"} {
			b, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			n += checksumErrors(string(b))
		}
		return nil
	})
	if err != nil {
		h.tb.Fatalf("read checksum errors of %s: %v", h.name, err)
	}
	return n
}

// checksumErrors adds up every InCsumErrors counter of a /proc/net/snmp, where
// a line of names goes before a line of values with the same first word, or of
// a /proc/net/snmp6, where a name and its value share a line.
func checksumErrors(text string) (sum uint64) {
	add := func(name, value string) {
		if n, err := strconv.ParseUint(value, 10, 64); err == nil && strings.HasSuffix(name, "InCsumErrors") {
			sum += n
		}
	}
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2:
			add(fields[0], fields[1])
		case len(fields) == len(names) && fields[0] == names[0]:
			for i, name := range names {
				add(name, fields[i])
			}
		}
		names = fields
	}
	return sum
}
