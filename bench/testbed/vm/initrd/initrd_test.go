package initrd

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// entry is what the test's own reader of the format finds.
type entry struct {
	mode uint64
	data string
}

// read parses an archive by the kernel's description of it.
func read(t *testing.T, b []byte) (names []string, entries map[string]entry) {
	t.Helper()
	entries = map[string]entry{}
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header at %q", b[:min(len(b), 20)])
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		mode, size, nameSize := field(1), int(field(6)), int(field(11))
		name := string(b[110 : 110+nameSize-1])
		start := (110 + nameSize + 3) &^ 3
		if b[110+nameSize-1] != 0 || start+size > len(b) {
			t.Fatalf("entry %q is cut short", name)
		}
		if name == trailer {
			if len(b) != start {
				t.Errorf("%d bytes after the trailer", len(b)-start)
			}
			return names, entries
		}
		names = append(names, name)
		entries[name] = entry{mode, string(b[start : start+size])}
		b = b[(start+size+3)&^3:]
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("12345"), 0o754); err != nil {
		t.Fatal(err)
	}
	var a Archive
	a.File("/etc/a/b", 0o600, []byte("x"))
	a.Symlink("/etc/l", "a/b")
	a.Dir("/etc/a")
	a.Copy("copy", source)
	b, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	names, entries := read(t, b)
	if want := []string{"etc", "etc/a", "etc/a/b", "etc/l", "copy"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	for name, want := range map[string]entry{
		"etc":     {0o040755, ""},
		"etc/a/b": {0o100600, "x"},
		"etc/l":   {0o120777, "a/b"},
		"copy":    {0o100754, "12345"},
	} {
		if entries[name] != want {
			t.Errorf("%s: %o %q, want %o %q", name, entries[name].mode, entries[name].data, want.mode, want.data)
		}
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "f"), []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	var a Archive
	a.Tree(dir)
	b, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, entries := read(t, b); entries[clean(filepath.Join(dir, "sub", "f"))].data != "y" {
		t.Errorf("got %v", entries)
	}
}

func TestMissingSourceIsAnError(t *testing.T) {
	for name, add := range map[string]func(*Archive){
		"file":    func(a *Archive) { a.Copy("x", "/no/such/file") },
		"tree":    func(a *Archive) { a.Tree("/no/such/directory") },
		"program": func(a *Archive) { a.Program("x", "/no/such/program") },
	} {
		var a Archive
		add(&a)
		a.File("after", 0o644, nil)
		if _, err := a.Bytes(); err == nil || !strings.Contains(err.Error(), "/no/such/") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestProgramBringsItsLibraries(t *testing.T) {
	var a Archive
	a.Program("/bin/env", "/usr/bin/env")
	a.Program("/bin/cat", "/usr/bin/cat") // shares them
	b, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	names, entries := read(t, b)
	libc := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, "libc.so") })
	if libc < 0 || !bytes.HasPrefix([]byte(entries[names[libc]].data), []byte("\x7fELF")) {
		t.Errorf("no C library among %q", names)
	}
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
		t.Errorf("a file twice: %q", names)
	}
}

func TestParseLdd(t *testing.T) {
	got, err := parseLdd("\tlinux-vdso.so.1 (0x7ffd)\n\tlibz.so.1 => /lib/libz.so.1 (0x7f01)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f02)\n")
	if err != nil || !slices.Equal(got, []string{"/lib/libz.so.1"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := parseLdd("\tlibz.so.1 => not found\n"); err == nil {
		t.Error("no error for a missing library")
	}
}
