package qemu

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a socket that says to be QMP sends: connecting and asking end, by an
// error or an answer, and so does the connection.
func FuzzMonitor(f *testing.F) {
	hello := "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n{\"return\": {}}\n"
	for _, text := range []string{"", "\n", "{}\n", hello, hello + "{\"event\":\"DEVICE_DELETED\",\"data\":{}}\n{\"return\":[]}\n",
		hello + "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n", hello + "{\"return\":", hello + "null\n"} {
		f.Add([]byte(text))
	}
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "qmp"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, text []byte) {
		served := make(chan struct{})
		go func() {
			defer close(served)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.Write(text)
			c.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, c)
		}()
		m, err := Dial(t.Context(), l.Addr().String())
		if err == nil {
			var list []struct{ Name string }
			if err := m.Do("query-x", nil, &list); err == nil && m.Version().QEMU.Major < 0 {
				t.Errorf("version %+v", m.Version())
			}
			<-m.Done()
			if err := m.Do("query-x", nil, nil); err == nil {
				// An answer that came unasked may be taken once, not for ever.
				for range 3 {
					err = m.Do("query-x", nil, nil)
				}
				if !errors.Is(err, ErrMonitorClosed) {
					t.Errorf("asked when the other end is gone: %v", err)
				}
			}
			for range m.events {
			}
			m.Disconnect()
		}
		<-served
	})
}

// What the switch answers a helper is one line, and what the helper reads.
func FuzzHelperReply(f *testing.F) {
	f.Add(byte(statusDone), "tap0")
	f.Add(byte(statusRefused), "access denied\nby acl file")
	f.Fuzz(func(t *testing.T, status byte, text string) {
		b := appendReply(nil, status, text)
		if len(b) > maxReply || strings.Contains(string(b[1:]), "\n") {
			t.Fatalf("reply %q", b)
		}
		tap, err := parseReply(b)
		if (err == nil) != (status == statusDone) || err == nil && tap != string(b[1:]) || err != nil && err.Error() != string(b[1:]) {
			t.Errorf("reply %q was read as %q, %v", b, tap, err)
		}
		if _, err := parseReply([]byte(text)); text == "" && err == nil {
			t.Error("no answer is taken for one")
		}
	})
}
