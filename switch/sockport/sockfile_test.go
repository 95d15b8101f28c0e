package sockport

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSocketFileModeAndOwner(t *testing.T) {
	for _, c := range []struct {
		file FileOptions
		perm os.FileMode
	}{
		{FileOptions{}, 0o600},
		{FileOptions{Perm: 0o666}, 0o666}, // more than the umask lets through
		{FileOptions{Perm: 0o660, Owner: ":0"}, 0o660},
	} {
		if c.file.Owner != "" && os.Geteuid() != 0 {
			continue
		}
		path := filepath.Join(t.TempDir(), "s")
		s := start(t, StreamOptions{Path: path, File: c.file})
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != c.perm {
			t.Errorf("%+v: mode %o, want %o", c.file, st.Mode().Perm(), c.perm)
		}
		s.Close()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("socket is still there after Close: %v", err)
		}
	}
}

func TestSocketFileOwnerUnknownLeavesNothing(t *testing.T) {
	checkFDs(t)
	path := filepath.Join(t.TempDir(), "s")
	if _, err := OpenStream(StreamOptions{Path: path, File: FileOptions{Owner: "no-such-user-here"}}); err == nil {
		t.Fatal("an unknown owner was accepted")
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket was left behind: %v", err)
	}
}

// leaveStale makes a socket file with nobody behind it, as a killed process does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestSocketFileStaleIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	leaveStale(t, path)
	dial(t, start(t, StreamOptions{Path: path}))
}

func TestSocketFileRefusesWhatIsNotAStaleSocket(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"regular file", func(t *testing.T, path string) { os.WriteFile(path, []byte("precious"), 0o600) }, "not a socket"},
		{"directory", func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, "not a socket"},
		{"fifo", func(t *testing.T, path string) { syscall.Mkfifo(path, 0o600) }, "not a socket"},
		{"symlink to a stale socket", func(t *testing.T, path string) {
			leaveStale(t, path+".target")
			os.Symlink(path+".target", path)
		}, "not a socket"},
		{"dangling symlink", func(t *testing.T, path string) { os.Symlink(path+".nowhere", path) }, "not a socket"},
		{"live stream socket", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "in use"},
		{"live datagram socket", func(t *testing.T, path string) {
			l, err := net.ListenPacket("unixgram", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkFDs(t)
			path := filepath.Join(t.TempDir(), "s")
			c.make(t, path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := OpenStream(StreamOptions{Path: path}); err == nil {
				s.Close()
				t.Fatal("path was taken over")
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
				t.Errorf("the file was touched: %v, %v", after, err)
			}
			if _, err := os.Lstat(path + ".target"); c.name == "symlink to a stale socket" && err != nil {
				t.Errorf("the symlink was followed: %v", err)
			}
		})
	}
}

func TestSocketFileUnlinksOnlyItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := OpenStream(StreamOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	os.WriteFile(path, []byte("someone else's"), 0o600)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a file that replaced the socket was removed: %v", err)
	}
}
