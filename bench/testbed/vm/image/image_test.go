package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bzImage wraps data, which unpacks to size bytes, as a kernel build does.
func bzImage(data []byte, size int) []byte {
	b := make([]byte, 5*sector)
	binary.LittleEndian.PutUint32(b[offHeaderMagic:], headerMagic)
	payload := binary.LittleEndian.AppendUint32(bytes.Clone(data), uint32(size))
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(b, payload...)
}

// lz4 is a legacy frame of blocks.
func lz4(blocks ...string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, lz4LegacyMagic)
	for _, block := range blocks {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(block))), block...)
	}
	return b
}

func TestUnpackKernel(t *testing.T) {
	long := strings.Repeat("x", 15+255+3)
	for name, tc := range map[string]struct {
		blocks []string
		want   string
	}{
		"literals":         {[]string{"\x50hello"}, "hello"},
		"overlap":          {[]string{"\x14a\x01\x00", "\x10b"}, "aaaaaaaaab"},
		"long literals":    {[]string{"\xf0\xff\x03" + long}, long},
		"long match":       {[]string{"\x2fab\x02\x00\x05\x10z"}, strings.Repeat("ab", 13) + "z"},
		"blocks on blocks": {[]string{"\x20ab", "\x20cd"}, "abcd"},
	} {
		got, err := unpackKernel(bzImage(lz4(tc.blocks...), len(tc.want)))
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tc.want)
		}
	}
}

func TestUnpackKernelRefuses(t *testing.T) {
	short := bzImage(lz4("\x50hello"), 5)
	for name, image := range map[string][]byte{
		"nothing":               nil,
		"no kernel":             make([]byte, 4096),
		"cut payload":           short[:len(short)-1],
		"literals beyond":       bzImage(lz4("\x50hell"), 5),
		"match before start":    bzImage(lz4("\x14a\x02\x00"), 9),
		"match of offset 0":     bzImage(lz4("\x14a\x00\x00"), 9),
		"match into last block": bzImage(lz4("\x10a", "\x04\x01\x00"), 9),
		"no offset":             bzImage(lz4("\x14a\x01"), 9),
		"endless length":        bzImage(lz4("\xf0\xff"), 999),
		"too much":              bzImage(lz4("\x50hello"), 4),
		"too little":            bzImage(lz4("\x50hello"), 6),
		"block beyond":          bzImage(append(lz4(), 9, 0, 0, 0, 0), 9),
	} {
		if out, err := unpackKernel(image); err == nil {
			t.Errorf("%s: unpacked to %q", name, out)
		}
	}
	other := bzImage([]byte("\xfd7zXZ\x00....."), 5)
	if _, err := unpackKernel(other); !errors.Is(err, errCompression) {
		t.Errorf("xz: %v", err)
	}
}

func FuzzUnpackLZ4(f *testing.F) {
	f.Add([]byte("\x05\x00\x00\x00\x50hello"), uint16(5))
	f.Add([]byte("\x04\x00\x00\x00\x14a\x01\x00"), uint16(9))
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		out, err := unpackLZ4(data, int(size))
		if err == nil && len(out) != int(size) {
			t.Errorf("%d bytes, want %d", len(out), size)
		}
	})
}

func TestParseModinfo(t *testing.T) {
	got := parseModinfo([]byte("license=GPL\x00depends=virtio-ring,failover\x00alias=virtio:d00000001v*\x00alias=net-x\x00"))
	want := modinfo{depends: []string{"virtio_ring", "failover"}, aliases: []string{"virtio:d00000001v*", "net-x"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := parseModinfo([]byte("depends=\x00")); got.depends != nil {
		t.Errorf("no dependency read as %q", got.depends)
	}
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	m := modules{facts: map[string]modinfo{
		"net": {depends: []string{"bus", "lib"}},
		"bus": {depends: []string{"lib"}},
		"lib": {},
		"odd": {},
	}}
	got, err := m.order("odd", "net", "bus")
	if err != nil || !slices.Equal(got, []string{"odd", "lib", "bus", "net"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := m.order("none"); err == nil {
		t.Error("no error for a module that isn't there")
	}
}

func TestRootIsTheModules(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !bytes.Contains(b, []byte("module github.com/kvswitch/kvswitch\n")) {
		t.Errorf("%s: %v", root, err)
	}
}

func TestFingerprintChangesWithItsFiles(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "bench/testbed/vm/agent/main.go")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, content := range []string{"a", "b"} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		key, err := fingerprint(root, os.Args[0])
		if err != nil || seen[key] {
			t.Errorf("key %s, %v", key, err)
		}
		seen[key] = true
	}
}
