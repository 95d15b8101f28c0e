package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

func TestStopsCleanlyOnSIGTERM(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		dir := t.TempDir()
		cmd := program(t, dir, "run", "--no-host", "--port", "stream:a,path="+filepath.Join(dir, "a"))
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the control socket answers", func() bool { return run(t, program(t, dir, "show")).code == 0 })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, &log)
		}
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("%v: left behind: %v", sig, files)
		}
		for line := range strings.Lines(log.String()) {
			if !strings.HasPrefix(line, "{") {
				t.Errorf("a log line that is not JSON where there is no terminal: %q", line)
			}
		}
	}
}

func TestKilledSwitchIsTakenOver(t *testing.T) {
	h := start(t, "--port", "stream:a,path=/nonexistent/x,mode=client")
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed switch is gone", func() bool { return h.kvswitch("show").code == 1 })
	if _, err := os.Lstat(ctl.SocketPath(h.dir, "kvs0")); err != nil {
		t.Fatalf("the killed switch removed its socket?: %v", err)
	}
	h.refused(1, "kvs0 is not running: it left", "show", "-s", "kvs0")
	(&host{t: t, dir: h.dir, log: new(bytes.Buffer)}).start()
}

func TestRunSaysWhatIsWrongAndLeavesNothing(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: kvs0\nworkers: 2\nvlan: 5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		text string
		args []string
	}{
		{"no such interface", []string{"--port", "netdev:nosuch0"}},
		{"no such interface", []string{"--uplink", "nosuch0"}},
		{"the loopback interface can't be a port", []string{"--port", "netdev:lo"}},
		{bad + `:3:1: unknown key "vlan"`, []string{"--config", bad}},
		{"no such file or directory", []string{"--config", bad + ".nosuch"}},
		{"set mode=both: want server or client", []string{"--port", "stream:a,path=/x,mode=both"}},
		{"want 6s to 40s", []string{"--config", writeFile(t, "max-age: 41\n")}},
		{"no such port", []string{"--config", writeFile(t, "fdb: [{mac: '52:54:00:00:00:01', port: a}]\n")}},
	} {
		h.refused(1, tc.text, append([]string{"run", "--no-host"}, tc.args...)...)
		if files, _ := os.ReadDir(h.dir); len(files) != 0 {
			t.Errorf("%s: left behind: %v", tc.args, files)
		}
	}
	// The run directory is a file.
	r := run(t, program(t, bad, "run", "--no-host"))
	if r.code != 1 || !strings.Contains(r.errors, "--run-dir") {
		t.Errorf("run directory that is a file: exit %d: %q", r.code, r.errors)
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// systemd is told when the switch answers, and fed while it does.
func TestNotifiesSystemd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd := program(t, dir, "run", "--no-host", "--config", writeFile(t, "ageing: 30s\n"))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	next := func() string {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 1000)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := next(); got != "READY=1" {
		t.Errorf("first: %q", got)
	}
	if r := run(t, program(t, dir, "show")); r.code != 0 {
		t.Errorf("ready, but: %s", r.errors)
	}
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("then: %q", got)
	}
	// until is the next message that is no heartbeat.
	until := func() string {
		for {
			if m := next(); m != "WATCHDOG=1" {
				return m
			}
		}
	}
	cmd.Process.Signal(syscall.SIGHUP)
	if got := until(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("reload: %q", got)
	}
	if got := until(); got != "READY=1" {
		t.Errorf("reloaded: %q", got)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if got := until(); got != "STOPPING=1" {
		t.Errorf("stop: %q", got)
	}
}
