package qemu

import (
	"errors"
	"io"
	"net"
	"path/filepath"
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
