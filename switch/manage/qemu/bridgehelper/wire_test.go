package bridgehelper

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	for _, c := range []struct {
		args string
		want Args
		err  string
	}{
		{"--br=kvs0 --fd=3", Args{Bridge: "kvs0", FD: 3}, ""},
		{"--use-vnet --br=kvs0 --fd=27", Args{UseVNet: true, Bridge: "kvs0", FD: 27}, ""},
		{"--fd=0 --br=a=b --use-vnet", Args{UseVNet: true, Bridge: "a=b", FD: 0}, ""},
		{"--br=a --fd=3 --br=b --fd=4", Args{Bridge: "b", FD: 4}, ""},
		{"", Args{}, "--br"},
		{"--br=kvs0", Args{}, "--fd"},
		{"--fd=3", Args{}, "--br"},
		{"--br= --fd=3", Args{}, "--br"},
		{"--br=kvs0 --fd=x", Args{}, "--fd=x"},
		{"--br=kvs0 --fd=-1", Args{}, "--fd=-1"},
		{"--br=kvs0 --fd=4294967296", Args{}, "--fd"},
		{"--br=kvs0 --fd=3 --verbose", Args{}, `"--verbose"`},
		{"--br=" + strings.Repeat("x", 64) + " --fd=3", Args{}, "longer than 63"},
	} {
		got, err := ParseArgs(strings.Fields(c.args))
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %+v, %v; want %+v, %q", c.args, got, err, c.want, c.err)
		}
	}
}

func FuzzArgs(f *testing.F) {
	f.Add("--use-vnet --br=kvs0 --fd=3")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := ParseArgs(strings.Split(line, " "))
		if err == nil && (a.FD < 0 || a.Bridge == "" || len(a.Bridge) > maxSwitchName) {
			t.Fatalf("%q gave %+v", line, a)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(AppendRequest(nil, Args{UseVNet: true, Bridge: "kvs0"}))
	f.Add([]byte("kvs1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseRequest(b)
		if err != nil {
			return
		}
		if again := AppendRequest(nil, a); !bytes.Equal(again, b) {
			t.Fatalf("%q was read as %+v, which is %q", b, a, again)
		}
	})
}

// What the switch answers a helper is one line, and what the helper reads.
func FuzzReply(f *testing.F) {
	f.Add(byte(statusDone), "tap0")
	f.Add(byte(statusRefused), "access denied\nby acl file")
	f.Fuzz(func(t *testing.T, status byte, text string) {
		b := appendReply(nil, status, text)
		if len(b) > MaxReply || strings.Contains(string(b[1:]), "\n") {
			t.Fatalf("reply %q", b)
		}
		tap, err := ParseReply(b)
		if (err == nil) != (status == statusDone) || err == nil && tap != string(b[1:]) || err != nil && err.Error() != string(b[1:]) {
			t.Errorf("reply %q was read as %q, %v", b, tap, err)
		}
		if _, err := ParseReply([]byte(text)); text == "" && err == nil {
			t.Error("no answer is taken for one")
		}
	})
}
