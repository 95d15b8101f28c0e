package ctl_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, dir, name string) *ctl.Listener {
	t.Helper()
	l, err := ctl.Listen(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSocketIsForOwnerAndGroup(t *testing.T) {
	old := syscall.Umask(0o077) // whatever the umask
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "run", "kvswitch")
	l := listen(t, dir, "kvs0")
	defer l.Close()
	fi, err := os.Lstat(ctl.SocketPath(dir, "kvs0"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v, want srw-rw----", fi.Mode())
	}
}

func TestOneNameOneSwitch(t *testing.T) {
	dir := t.TempDir()
	l := listen(t, dir, "kvs0")
	if _, err := ctl.Listen(dir, "kvs0"); err == nil || !strings.Contains(err.Error(), "running already (pid "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("a second switch: %v", err)
	}
	other := listen(t, dir, "kvs1")
	defer other.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "kvs0*")); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	listen(t, dir, "kvs0").Close()
}

// stale makes the socket of a process that is gone: bound, and not listened on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	stale(t, ctl.SocketPath(dir, "kvs0"))
	if err := os.WriteFile(filepath.Join(dir, "kvs0.pid"), []byte("999999999\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if names, err := ctl.Running(dir); err != nil || len(names) != 0 {
		t.Errorf("running %q, %v: what is stale does not run", names, err)
	}
	l := listen(t, dir, "kvs0")
	defer l.Close()
	if names, err := ctl.Running(dir); err != nil || len(names) != 1 {
		t.Errorf("running %q, %v", names, err)
	}
	// What a crash left for all to read, and so to lock, is so no longer.
	if fi, err := os.Stat(filepath.Join(dir, "kvs0.pid")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("pid file: %v, %v", fi.Mode(), err)
	}
}

// Another user can't lock the pid file, and still hears which switch it is that
// he may not control.
func TestOthersSeeARunningSwitch(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	defer listen(t, dir, "kvs0").Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: this thread is nobody's from here on
		if err := unix.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		if f, err := os.Open(filepath.Join(dir, "kvs0.pid")); err == nil {
			f.Close()
			t.Error("anybody can open the pid file")
		}
		if name, err := ctl.Choose(dir, ""); name != "kvs0" || err != nil {
			t.Errorf("got %q, %v", name, err)
		}
	}()
	<-done
}

func TestLiveSocketIsRefused(t *testing.T) {
	dir := t.TempDir()
	live, err := net.Listen("unix", ctl.SocketPath(dir, "kvs0"))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := ctl.Listen(dir, "kvs0"); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
	if _, err := net.Dial("unix", ctl.SocketPath(dir, "kvs0")); err != nil {
		t.Errorf("the live one was harmed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "kvs0.pid")); !os.IsNotExist(err) {
		t.Errorf("the refused one left a pid file: %v", err)
	}
}

func TestOnlyASocketIsReplaced(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"file":    func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"folder":  func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink": func(p string) error { return os.Symlink("/etc/passwd", p) },
	} {
		dir := t.TempDir()
		path := ctl.SocketPath(dir, "kvs0")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if _, err := ctl.Listen(dir, "kvs0"); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: it was removed: %v", name, err)
		}
	}
}

func TestPidFileSymlinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "kvs0.pid")); err != nil {
		t.Fatal(err)
	}
	if l, err := ctl.Listen(dir, "kvs0"); err == nil {
		l.Close()
		t.Error("a symlink was taken for the pid file")
	}
	if b, _ := os.ReadFile(target); string(b) != "precious" {
		t.Errorf("the target now holds %q", b)
	}
}

func TestOnlyOwnSocketIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path := ctl.SocketPath(dir, "kvs0")
	l := listen(t, dir, "kvs0")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	stale(t, path)
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another one's socket was removed: %v", err)
	}
}

func TestChooseNeedsNoNameWhenOneRuns(t *testing.T) {
	dir := t.TempDir()
	if _, err := ctl.Choose(dir, ""); err == nil || !strings.Contains(err.Error(), "no switch is running") {
		t.Errorf("none running: %v", err)
	}
	if _, err := ctl.Choose(filepath.Join(dir, "nothing"), ""); err == nil || !strings.Contains(err.Error(), "no switch is running") {
		t.Errorf("no directory: %v", err)
	}
	defer listen(t, dir, "kvs1").Close()
	stale(t, filepath.Join(dir, "vm1.sock")) // a VM's socket is no switch's
	if name, err := ctl.Choose(dir, ""); name != "kvs1" || err != nil {
		t.Errorf("one running: %q, %v", name, err)
	}
	defer listen(t, dir, "kvs2").Close()
	if _, err := ctl.Choose(dir, ""); err == nil || !strings.HasSuffix(err.Error(), "choose one with -s or KVSWITCH_SWITCH: kvs1, kvs2") {
		t.Errorf("two running: %v", err)
	}
	if _, err := ctl.Choose(dir, "../kvs2"); err == nil || !strings.Contains(err.Error(), "can't hold the character '/'") {
		t.Errorf("a name that leaves the directory: %v", err)
	}
	if name, err := ctl.Choose(dir, "kvs2"); name != "kvs2" || err != nil {
		t.Errorf("named: %q, %v", name, err)
	}
}

func TestClientSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	c := ctl.NewClient(dir, "kvs0")
	defer c.Close()
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "kvs0 is not running: there is no "+dir) {
		t.Errorf("no socket: %v", err)
	}
	for _, name := range []string{"", "..", "a/b"} { // other paths than a port's
		if err := c.DelPort(t.Context(), name); err == nil || strings.Contains(err.Error(), "not running") {
			t.Errorf("port %q: %v", name, err)
		}
	}
	stale(t, ctl.SocketPath(dir, "kvs0"))
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "kvs0 is not running: it left ") {
		t.Errorf("stale socket: %v", err)
	}
	if _, err := ctl.Listen(strings.Repeat(dir, 5), "kvs0"); err == nil || !strings.Contains(err.Error(), "a unix socket's path has at most 107") {
		t.Errorf("long path: %v", err)
	}
}
