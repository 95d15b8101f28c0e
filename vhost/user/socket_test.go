package vhostuser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func testSocketFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, umask := range []int{0, 0o077} {
		for perm, want := range map[os.FileMode]os.FileMode{0: 0o660, 0o600: 0o600, 0o666: 0o666} {
			unix.Umask(umask)
			p, err := Open(Options{Path: path, Perm: perm})
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Lstat(path)
			if err != nil || st.Mode().Perm() != want || st.Mode()&os.ModeSocket == 0 {
				t.Errorf("umask %o, %o asked for: %v, %v", umask, perm, st.Mode(), err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("the socket file stays")
			}
		}
	}
	unix.Umask(old)
	if os.Getuid() == 0 {
		p, err := Open(Options{Path: path, UID: 1234, GID: 4321})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if unix.Stat(path, &st); st.Uid != 1234 || st.Gid != 4321 {
			t.Errorf("owner %d:%d", st.Uid, st.Gid)
		}
		p.Close()
	}
	// A symbolic link is not followed, wherever it points.
	for _, target := range []string{"nowhere", "/etc/passwd"} {
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("link to %s: %v", target, err)
		}
		os.Remove(path)
	}
	// Nor is a file or a directory replaced.
	os.WriteFile(path, []byte("precious"), 0o600)
	if _, err := Open(Options{Path: path}); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("a file was destroyed")
	}
	os.Remove(path)
	// A socket in use is refused, its owner goes on; a stale one is taken over.
	first, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a socket in use: %v", err)
	}
	first.listen.Close() // as if its process had died
	second, err := Open(Options{Path: path})
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	defer second.Close()
	// The first's own end does not take the second's socket with it.
	first.file.Remove()
	if _, err := os.Lstat(path); err != nil {
		t.Error("a foreign socket was removed")
	}
	for name, o := range map[string]Options{
		"no path":           {},
		"path too long":     {Path: "/" + strings.Repeat("x", 107)},
		"no directory":      {Path: dir + "/none/s"},
		"0 pairs, nearly":   {Path: dir + "/x", QueuePairs: -1},
		"129 pairs":         {Path: dir + "/x", QueuePairs: 129},
		"MTU 67":            {Path: dir + "/x", MTU: 67},
		"set-uid socket":    {Path: dir + "/x", Perm: 0o4660 | os.ModeSetuid},
		"backwards in time": {Path: dir + "/x", Mode: Client, Reconnect: -time.Second},
		"third mode":        {Path: dir + "/x", Mode: 2},
	} {
		if p, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
			p.Close()
		}
	}
}
