package sock

import (
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/host/sockfile"
)

func TestStreamOptionsSet(t *testing.T) {
	var o StreamOptions
	for _, kv := range [][2]string{{"path", "/run/a.sock"}, {"mode", "client"}, {"reconnect", "250ms"}, {"perm", "0660"}, {"owner", "root:kvm"}} {
		if err := o.Set(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := StreamOptions{Path: "/run/a.sock", Client: true, Reconnect: 250 * time.Millisecond, File: sockfile.Options{Perm: 0o660, Owner: "root:kvm"}}
	if o != want {
		t.Errorf("got %+v\nwant %+v", o, want)
	}
	for _, kv := range [][2]string{{"mode", "both"}, {"reconnect", "0"}, {"reconnect", "soon"}, {"perm", "999"}, {"perm", "0"}, {"perm", "7777"}, {"colour", "red"}} {
		if err := o.Set(kv[0], kv[1]); err == nil || !strings.Contains(err.Error(), kv[0]+"="+kv[1]) {
			t.Errorf("set %s=%s: error %v, want one that repeats it", kv[0], kv[1], err)
		}
	}
	if o != want {
		t.Error("a refused word changed the options")
	}
}

func TestStreamOptionsCheck(t *testing.T) {
	for _, c := range []struct {
		opts StreamOptions
		want string
	}{
		{StreamOptions{}, "want path="},
		{StreamOptions{Path: "/a", Addr: "b:1"}, "not both"},
		{StreamOptions{Path: "/" + strings.Repeat("x", 108)}, "at most 107"},
		{StreamOptions{Path: "@abstract"}, "abstract"},
		{StreamOptions{Path: "/a\x00b"}, "abstract"},
		{StreamOptions{Addr: "localhost"}, "HOST:PORT"},
		{StreamOptions{Addr: "localhost:http2"}, "not a number"},
		{StreamOptions{Addr: "localhost:65536"}, "not a number"},
	} {
		if s, err := OpenStream(c.opts); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", c.opts)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %q, want %q in it", c.opts, err, c.want)
		}
	}
}
