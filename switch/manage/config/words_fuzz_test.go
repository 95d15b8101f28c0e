package config_test

import (
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// A word of the command line is refused in one line, or it describes a switch
// whose dump describes the same switch.
func FuzzSet(f *testing.F) {
	for _, w := range [][2]string{{"name", "kvs0"}, {"mac", "52:54:00:00:00:01"}, {"host", "br7,vlan=10"}, {"host", "off"}, {"mtu", "1500"},
		{"stp", "rstp"}, {"priority", "32768"}, {"hello", "2"}, {"max-age", "20s"}, {"ageing", "300s"}, {"max-entries", "1"},
		{"vlan-filtering", "true"}, {"workers", "2"}, {"busy-poll", "20us"}, {"metrics", "[::1]:9200"}, {"colour", "red"}} {
		f.Add(w[0], w[1])
	}
	kinds := newBench().kinds
	f.Fuzz(func(t *testing.T, key, value string) {
		c := config.Default()
		if err := c.Set(key, value); err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		dump, err := c.Dump()
		if err != nil {
			t.Fatal(err)
		}
		again := config.Default()
		if err := again.Parse(kinds, "dump.yaml", dump); err != nil {
			t.Fatalf("%s=%q: %v\n%s", key, value, err, dump)
		}
		if second, err := again.Dump(); err != nil || string(second) != string(dump) {
			t.Errorf("%s=%q: dump\n%s\nread back and dumped\n%s%v", key, value, dump, second, err)
		}
	})
}

// An uplink's words are a SPEC's, or a name and its settings; what is taken is
// written as a SPEC that means the same.
func FuzzParseUplink(f *testing.F) {
	for _, text := range []string{"eth0", "eth0,cost=7", "netdev:eth0", "stream:far,path=/x", "eth0:1", ",", ""} {
		f.Add(text)
	}
	kinds := newBench().kinds
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := kinds.ParseUplink(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		again, err := kinds.ParseSpec(spec.String())
		if err != nil || again.String() != spec.String() {
			t.Fatalf("%q written as %q, read as %q: %v", text, spec, again, err)
		}
	})
}
