package config_test

import (
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// Whatever a file holds, it is refused in one line, or it describes a switch
// whose dump describes the same switch.
func FuzzParse(f *testing.F) {
	for _, text := range []string{whole, "", "ports: [netdev:a]", "uplinks: [{name: e}]", "a: *b", "? x\n: y", "fdb: [{mac: '52:54:00:00:00:01', port: a}]"} {
		f.Add([]byte(text))
	}
	kinds := newBench().kinds
	f.Fuzz(func(t *testing.T, text []byte) {
		c := config.Default()
		if err := c.Parse(kinds, "f.yaml", text); err != nil {
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
			t.Fatalf("%v\n%s", err, dump)
		}
		second, err := again.Dump()
		if err != nil {
			t.Fatal(err)
		}
		if string(second) != string(dump) {
			t.Errorf("dump\n%s\nread back and dumped\n%s", dump, second)
		}
	})
}

// A SPEC that is taken is written as one that is taken and means the same.
func FuzzParseSpec(f *testing.F) {
	for _, text := range []string{"netdev:tap0", "stream:vm,path=/x,mode=server,vlan=10", "netdev:a,trunk=1-5+7,native=2", "netdev:a,,", "x"} {
		f.Add(text)
	}
	kinds := newBench().kinds
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := kinds.ParseSpec(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		again, err := kinds.ParseSpec(spec.String())
		if err != nil {
			t.Fatalf("%q written as %q: %v", text, spec, err)
		}
		if again.String() != spec.String() {
			t.Errorf("%q written as %q, then as %q", text, spec, again)
		}
	})
}
