package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// serveQMP greets, agrees on capabilities, and leaves the rest to f.
func serveQMP(t *testing.T, f func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": ["oob"]}}`)
		r.ReadString('\n')
		fmt.Fprintln(c, `{"return": {}}`)
		f(c, r)
	}()
	return l.Addr().String()
}

// An answer stays what it was while events follow it closely: the fault of
// go-qemu's SocketMonitor.
func TestMonitorAnswersSurviveEvents(t *testing.T) {
	path := serveQMP(t, func(c net.Conn, r *bufio.Reader) {
		event := fmt.Sprintf(`{"event": "X", "data": {"p": "%s"}}`, strings.Repeat("x", 3000))
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprintf(c, "%s\n{\"return\": {\"p\": \"%s\"}}\n%s\n%s\n", event, strings.Repeat("y", 1000), event, event)
		}
	})
	m, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	go func() {
		for range m.events {
		}
	}()
	for i := range 500 {
		var got struct{ P string }
		if err := m.Do("query-x", nil, &got); err != nil || got.P != strings.Repeat("y", 1000) {
			t.Fatalf("answer %d: %.40q, %v", i, got.P, err)
		}
	}
}

func TestMonitorTakesAnswersLongerThan64KiB(t *testing.T) {
	path := serveQMP(t, func(c net.Conn, r *bufio.Reader) {
		r.ReadString('\n')
		fmt.Fprintf(c, "{\"return\": %q}\n", strings.Repeat("z", 300<<10))
		r.ReadString('\n')
	})
	m, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	var s string
	if err := m.Do("query-qmp-schema", nil, &s); err != nil || len(s) != 300<<10 {
		t.Errorf("got %d bytes, %v", len(s), err)
	}
}

func TestMonitorCountsEventsNobodyReads(t *testing.T) {
	const sent = 2 * eventQueue
	path := serveQMP(t, func(c net.Conn, r *bufio.Reader) {
		for range sent {
			fmt.Fprintln(c, `{"event": "RESET", "data": {}}`)
		}
		r.ReadString('\n')
		fmt.Fprintln(c, `{"return": {}}`)
		r.ReadString('\n')
	})
	m, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	if err := m.Do("x", nil, nil); err != nil { // answers still come
		t.Fatal(err)
	}
	if n := m.Missed(); n != sent-eventQueue {
		t.Errorf("missed %d events, want %d", n, sent-eventQueue)
	}
}

func TestMonitorGarbageEndsTheConnection(t *testing.T) {
	path := serveQMP(t, func(c net.Conn, r *bufio.Reader) {
		r.ReadString('\n')
		fmt.Fprintln(c, `this is not JSON`)
		r.ReadString('\n')
	})
	m, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Do("x", nil, nil); !errors.Is(err, ErrMonitorClosed) || !strings.Contains(err.Error(), "not QMP") {
		t.Errorf("error %v", err)
	}
	if err := m.Do("x", nil, nil); !errors.Is(err, ErrMonitorClosed) {
		t.Errorf("error of a later command %v", err)
	}
	m.Disconnect()
}

func TestMonitorRunIsGoQEMUs(t *testing.T) {
	path := serveQMP(t, func(c net.Conn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		fmt.Fprintf(c, "{\"return\": %q}\n", strings.TrimSpace(line))
		r.ReadString('\n')
		fmt.Fprintln(c, `{"error": {"class": "CommandNotFound", "desc": "The command y has not been found"}}`)
		r.ReadString('\n')
	})
	m, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	b, err := m.Run([]byte(`{"execute":"x"}`))
	if err != nil || !strings.Contains(string(b), "execute") {
		t.Errorf("answer %s, %v", b, err)
	}
	var refusal *CommandError
	if _, err := m.Run([]byte(`{"execute":"y"}`)); !errors.As(err, &refusal) || refusal.Class != "CommandNotFound" || refusal.Command != "y" {
		t.Errorf("error %v", err)
	}
	if _, err := m.Run([]byte(`nonsense`)); err == nil {
		t.Error("sent what is no command")
	}
}
