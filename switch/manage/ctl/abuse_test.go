package ctl_test

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

var errPermission = fs.ErrPermission

// resources are the process's goroutines and open descriptors.
func resources(t *testing.T) (goroutines, fds int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(entries)
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// forwards checks that a frame still crosses the switch.
func forwards(t testing.TB, h *host) {
	t.Helper()
	wire := mem.Ethernet(mem.MAC(2), mem.MAC(1), "still here")
	h.ports["b"].Sent()
	h.ports["a"].Inject(wire)
	for _, got := range h.ports["b"].Wait(1) {
		if bytes.Equal(got.Wire, wire) {
			return
		}
	}
	t.Error("the frame did not cross")
}

func TestGarbageHoldsNothing(t *testing.T) {
	h := newHost(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}}, "netdev:a", "netdev:b")
	h.want("GET", "/v1/switch", "", 200, "kvs0")
	var goroutines, fds int
	eventually(t, "the first request's connection is gone", func() bool {
		g, f := resources(t)
		same := g == goroutines && f == fds
		goroutines, fds = g, f
		return same
	})
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, text := range []string{
		"", "\n", "\r\n\r\n", "GET", "GET / HTTP/9.9\r\n\r\n", "GET /v1/switch HTTP/1.1\r\n\r\n",
		"GET /v1/switch HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"POST /v1/ports HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/ports HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"POST /v1/ports HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /v1/ports HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
		"GET /v1/ports/%ff%00%2f HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 100000) + "\r\n",
		string(noise(100)), string(noise(100000)),
	} {
		conn := h.dial()
		io.WriteString(conn, text) // it may be cut off
		conn.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	h.want("GET", "/v1/switch", "", 200, "kvs0")
	forwards(t, h)
	eventually(t, "no goroutine or descriptor is left of the garbage", func() bool {
		g, f := resources(t)
		return g <= goroutines && f <= fds
	})
}

// Clients that send nothing, or half of something, are cut off; and while as
// many as may connect do so, the next one is told and the switch forwards.
func TestSilentClientsAreCutOff(t *testing.T) {
	t.Parallel()
	h := newHost(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}}, "netdev:a", "netdev:b")
	var silent []net.Conn
	for i := range 64 {
		conn := h.dial()
		if i%2 == 1 {
			io.WriteString(conn, "POST /v1/ports HTTP/1.1\r\nHo")
		}
		silent = append(silent, conn)
	}
	eventually(t, "the room for connections is full", func() bool {
		conn := h.dial()
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(conn, "GET /v1/switch HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return false
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), "too many connections")
	})
	c := ctl.NewClient(h.dir, "kvs0")
	if _, err := c.Status(t.Context()); err == nil || err.Error() != "too many connections to the control socket: try again" {
		t.Errorf("a client too many gets %v", err)
	}
	// It is told when it has asked: cut off before, it would see a broken pipe.
	slow := h.dial()
	slow.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := slow.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("a client that has not asked yet: read %d bytes, %v", n, err)
	}
	forwards(t, h)
	for _, conn := range silent { // the server ends each by itself
		if _, err := io.Copy(io.Discard, conn); err != nil && os.IsTimeout(err) {
			t.Fatal("a silent client was not cut off")
		}
	}
	h.want("GET", "/v1/switch", "", 200, "kvs0")
}

// A reader of events that stops reading loses events, and nobody else anything.
func TestDeadReaderHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := newHost(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}}, "netdev:a", "netdev:b")
	dead := h.dial()
	io.WriteString(dead, "GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n")
	first := make([]byte, 1)
	if _, err := io.ReadFull(dead, first); err != nil {
		t.Fatal(err)
	}
	// Far more than socket buffers and the queue hold together.
	note := vswitch.Event{Event: "mark", Reason: strings.Repeat("x", 1000)}
	began := time.Now()
	for range 20000 {
		h.sw.Note(note)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("20000 events took %v: the reader held the switch up", d)
	}
	forwards(t, h)
	h.want("GET", "/v1/switch", "", 200, "kvs0")
	eventually(t, "the reader is cut off", func() bool {
		_, err := dead.Write([]byte{'x'}) // EPIPE once the other end is closed
		return err != nil
	})
}

func TestReadersOfEventsAreLimited(t *testing.T) {
	h := newHost(t, vswitch.Config{})
	for range 16 {
		conn := h.dial()
		io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
	}
	h.want("GET", "/v1/events", "", 503, "too many readers of events")
	h.want("GET", "/v1/switch", "", 200, "kvs0")
}

// Any bytes whatever: the server survives and answers the next request.
func FuzzServer(f *testing.F) {
	f.Add([]byte("GET /v1/switch HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("PATCH /v1/ports/a HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{\"vlan\":\"10\"}"))
	f.Add([]byte("POST /v1/fdb HTTP/1.1\r\nHost: a\r\nContent-Length: 43\r\n\r\n{\"mac\":\"52:54:00:00:00:01\",\"port\":\"a\"}    "))
	f.Add([]byte("DELETE /v1/vlans?port=a&vids=1-4 HTTP/1.1\r\nHost: a\r\n\r\n"))
	h := newHost(f, vswitch.Config{}, "netdev:a")
	h.reload = func() ([]string, error) { return nil, nil }
	c := ctl.NewClient(h.dir, "kvs0")
	f.Fuzz(func(t *testing.T, request []byte) {
		conn, err := net.Dial("unix", h.path())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(2 * time.Second))
		conn.Write(request)
		conn.(*net.UnixConn).CloseWrite()
		if bytes.Contains(request, []byte("/v1/events")) {
			conn.SetDeadline(time.Now().Add(10 * time.Millisecond)) // a stream has no end
		}
		io.Copy(io.Discard, conn)
		if _, err := c.Status(t.Context()); err != nil {
			t.Fatalf("after %q: %v", request, err)
		}
	})
}
