package ctl_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

// Whatever answers on a control socket: every call of the client ends.
func FuzzClient(f *testing.F) {
	for _, body := range []string{"", "{}", "[]", "null", `{"error":"no"}`, `{"ports":[{"mac":"x"}]}`, `[{"mac":"52:54:00:00:00:01","age_s":1e999}]`,
		`{"event":"port.add"}{"event":`, `{"flushed":"many"}`, `{"changes":null}`} {
		f.Add(uint16(200), []byte(body))
		f.Add(uint16(404), []byte(body))
	}
	dir := f.TempDir()
	l, err := net.Listen("unix", ctl.SocketPath(dir, "kvs0"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	answers := make(chan *http.Response)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				(<-answers).Write(conn)
			}
			conn.Close()
		}
	}()
	enough := errors.New("enough")
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		for _, call := range []func(*ctl.Client) error{
			func(c *ctl.Client) error { _, err := c.Status(t.Context()); return err },
			func(c *ctl.Client) error { _, err := c.FDB(t.Context(), "", 0); return err },
			func(c *ctl.Client) error { _, err := c.STP(t.Context()); return err },
			func(c *ctl.Client) error { _, err := c.Reload(t.Context()); return err },
			func(c *ctl.Client) error { _, err := c.Config(t.Context()); return err },
			func(c *ctl.Client) error { return c.DelPort(t.Context(), "p") },
			func(c *ctl.Client) error {
				n := 0
				err := c.Events(t.Context(), func(vswitch.Event) error {
					if n++; n > 1000 {
						return enough
					}
					return nil
				})
				if err == nil {
					t.Error("a stream that ended is no error")
				}
				return err
			},
		} {
			c := ctl.NewClient(dir, "kvs0")
			done := make(chan error, 1)
			go func() { done <- call(c) }()
			answers <- &http.Response{StatusCode: 200 + int(status)%400, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
				Body: io.NopCloser(bytes.NewReader(body)), Close: true}
			if err := <-done; err == nil && 200+int(status)%400 >= 300 {
				t.Errorf("status %d with %q is no error", 200+int(status)%400, body)
			}
			c.Close()
		}
	})
}
