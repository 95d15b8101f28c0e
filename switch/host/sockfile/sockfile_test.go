package sockfile

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// makers are the ways to make a socket file; each returns what undoes it.
var makers = []struct {
	name string
	make func(path string, o Options) (func(), error)
}{
	{"stream", func(path string, o Options) (func(), error) { return listen("unix", path, o) }},
	{"seqpacket", func(path string, o Options) (func(), error) { return listen("unixpacket", path, o) }},
	{"dgram", func(path string, o Options) (func(), error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f, err := Bind(fd, path, o)
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		return func() { unix.Close(fd); f.Remove() }, nil
	}},
}

func listen(network, path string, o Options) (func(), error) {
	l, f, err := Listen(network, path, o)
	if err != nil {
		return nil, err
	}
	return func() { l.Close(); f.Remove() }, nil
}

func forMakers(t *testing.T, check func(t *testing.T, path string, make func(Options) (func(), error))) {
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			before := descriptors(t)
			t.Cleanup(func() { // the last one to run
				if n := descriptors(t); n > before {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
			check(t, path, func(o Options) (func(), error) { return m.make(path, o) })
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestModeAndOwner(t *testing.T) {
	forMakers(t, func(t *testing.T, path string, make func(Options) (func(), error)) {
		for _, c := range []struct {
			o    Options
			perm os.FileMode
		}{
			{Options{}, 0o600},
			{Options{Perm: 0o666}, 0o666}, // more than the umask lets through
			{Options{Perm: 0o660, Owner: ":" + strconv.Itoa(os.Getegid())}, 0o660},
			{Options{Owner: strconv.Itoa(os.Geteuid()) + ":"}, 0o600},
		} {
			undo, err := make(c.o)
			if err != nil {
				t.Fatalf("%+v: %v", c.o, err)
			}
			st, err := os.Lstat(path)
			if err != nil || st.Mode().Perm() != c.perm {
				t.Errorf("%+v: mode %v, %v; want %v", c.o, st.Mode().Perm(), err, c.perm)
			}
			undo()
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("%+v: the file is still there: %v", c.o, err)
			}
		}
	})
}

func TestUnknownOwnerLeavesNothing(t *testing.T) {
	forMakers(t, func(t *testing.T, path string, make func(Options) (func(), error)) {
		for _, owner := range []string{"no-such-user-here", "root:no-such-group-here"} {
			if _, err := make(Options{Owner: owner}); err == nil || !strings.Contains(err.Error(), "no-such") {
				t.Errorf("owner %s: error %v", owner, err)
			}
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("owner %s: socket was left behind: %v", owner, err)
			}
		}
	})
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

func TestStaleSocketIsTakenOver(t *testing.T) {
	forMakers(t, func(t *testing.T, path string, make func(Options) (func(), error)) {
		leaveStale(t, path)
		undo, err := make(Options{})
		if err != nil {
			t.Fatal(err)
		}
		undo()
	})
}

func TestWhatIsNotAStaleSocketIsNotTouched(t *testing.T) {
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
			forMakers(t, func(t *testing.T, path string, make func(Options) (func(), error)) {
				c.make(t, path)
				before, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				if undo, err := make(Options{}); err == nil {
					undo()
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
		})
	}
}

func TestRemoveSparesWhatReplacedTheSocket(t *testing.T) {
	forMakers(t, func(t *testing.T, path string, make func(Options) (func(), error)) {
		undo, err := make(Options{})
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(path)
		os.WriteFile(path, []byte("someone else's"), 0o600)
		undo()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a file that replaced the socket was removed: %v", err)
		}
	})
}

// A socket that was closed is stale, and a successor takes its path over. The
// successor's file may get the inode number that the first one had, were that free.
func TestRemoveSparesTheSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	before := descriptors(t)
	first, file, err := Listen("unix", path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	undo, err := listen("unix", path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	file.Remove()
	file.Remove() // once too often does no harm
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket was removed: %v", err)
	}
	undo()
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func TestCheckPath(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"", "missing"},
		{"/" + strings.Repeat("x", 108), "at most 107"},
		{"@abstract", "abstract"},
		{"/a\x00b", "abstract"},
	} {
		if _, err := listen("unix", c.path, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("path %q: error %v, want %q in it", c.path, err, c.want)
		}
	}
}

func TestOptionsSet(t *testing.T) {
	var o Options
	for _, kv := range [][2]string{{"perm", "0660"}, {"owner", "root:kvm"}} {
		if err := o.Set(kv[0], kv[1]); err != nil {
			t.Error(err)
		}
	}
	if want := (Options{Perm: 0o660, Owner: "root:kvm"}); o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	for _, kv := range [][2]string{{"perm", "999"}, {"perm", "0"}, {"perm", "7777"}, {"perm", ""}, {"colour", "red"}} {
		if err := o.Set(kv[0], kv[1]); err == nil || !strings.Contains(err.Error(), kv[0]+"="+kv[1]) {
			t.Errorf("set %s=%s: error %v, want one that repeats it", kv[0], kv[1], err)
		}
	}
}
