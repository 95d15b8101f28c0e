package daemon

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// addStream attaches a socket's port.
func (d *Daemon) addStream(t *testing.T, name string) error {
	t.Helper()
	spec, err := d.Kinds().ParseSpec("stream:" + name + ",path=" + filepath.Join(filepath.Dir(d.options.File), name))
	if err != nil {
		t.Fatal(err)
	}
	return d.AddPort(config.Port{Spec: spec})
}

// A reload that waits for its file keeps no port from coming.
func TestReloadThatWaitsHoldsNoPortUp(t *testing.T) {
	o := optionsOf(t, "")
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := os.Remove(o.File); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(o.File, 0o600); err != nil {
		t.Fatal(err)
	}
	reloaded := make(chan error, 1)
	go func() {
		_, err := d.Reload()
		reloaded <- err
	}()
	file, err := os.OpenFile(o.File, os.O_WRONLY, 0) // returns when it is being read
	if err != nil {
		t.Fatal(err)
	}
	if err := d.addStream(t, "meanwhile"); err != nil {
		t.Error(err)
	}
	io.WriteString(file, "host: off\n")
	file.Close()
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
}

func TestPortIsNotAddedTwiceAtOnceNorUnderAReload(t *testing.T) {
	d, err := New(optionsOf(t, "ports: ['stream:a,path=DIR/a']\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	release, err := d.reserve("b", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.addStream(t, "b"); err == nil || !strings.Contains(err.Error(), "port b is being added or changed: try again") {
		t.Errorf("another port of the name: %v", err)
	}
	if _, err := d.Reload(); err == nil || !strings.Contains(err.Error(), "port a is being added or changed: try again; nothing was changed") {
		t.Errorf("a reload that is about it: %v", err)
	}
	if err := d.addStream(t, "c"); err != nil {
		t.Errorf("another one: %v", err)
	}
	release()
	if err := d.addStream(t, "b"); err != nil {
		t.Error(err)
	}
	if _, err := d.Reload(); err != nil {
		t.Error(err)
	}
}

// blocked is a log that nobody reads.
type blocked struct{ end chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.end
	return len(p), nil
}

// A terminal that somebody stopped, or a pipe that nobody reads, stops the log and
// nothing else: ports come and go, and the daemon ends.
func TestLogThatIsNotReadHoldsNothingUp(t *testing.T) {
	o := optionsOf(t, "")
	b := blocked{make(chan struct{})}
	defer close(b.end)
	o.Log = slog.New(slog.NewTextHandler(b, nil))
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := d.addStream(t, "a"); err != nil { // each is lines in the log
			t.Fatal(err)
		}
		if err := d.sw.RemovePort("a"); err != nil {
			t.Fatal(err)
		}
	}
	d.close()
}
