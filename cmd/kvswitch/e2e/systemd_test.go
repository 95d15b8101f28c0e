package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// TestSystemdUnit runs the commands of the unit as systemd would: it stands in
// for systemd, which a test can't count on.
func TestSystemdUnit(t *testing.T) {
	text, err := os.ReadFile("../systemd/kvswitch@.service")
	if err != nil {
		t.Fatal(err)
	}
	prefix := netns.Dir(t)
	if err := os.Mkdir(filepath.Join(prefix, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(prefix, "bin", "kvswitch")); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(prefix, "etc")
	unit := strings.NewReplacer("@PREFIX@", prefix, "%i", "kvs0", "$$", "$", "/etc/kvswitch", etc).Replace(string(text))
	command := func(key string) *exec.Cmd {
		t.Helper()
		_, rest, found := strings.Cut(unit, "\n"+key+"=")
		line, _, _ := strings.Cut(rest, "\n")
		if !found {
			t.Fatalf("the unit has no %s", key)
		}
		return exec.Command("sh", "-c", "exec "+line)
	}
	host := netns.New(t).Host("host")
	for _, config := range []string{"", "name: kvs0\nageing: 77s\n"} {
		if config != "" {
			if err := os.Mkdir(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(etc, "kvs0.yaml"), []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dir := netns.Dir(t)
		notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer notify.Close()
		start := command("ExecStart")
		start.Env = append(os.Environ(), "KVSWITCH_RUN_DIR="+dir, "NOTIFY_SOCKET="+notify.LocalAddr().String(), "WATCHDOG_USEC=300000")
		k := &kvs{t: t, host: host, dir: dir, proc: host.Start(start)}
		expectNotes(t, notify, "READY=1", "WATCHDOG=1", "WATCHDOG=1")
		st := k.status()
		if want := map[bool]float64{true: 300, false: 77}[config == ""]; st.Name != "kvs0" || st.AgeingS != want {
			t.Errorf("switch %s with ageing %v s, want kvs0 with %v", st.Name, st.AgeingS, want)
		}
		if config != "" {
			if err := os.WriteFile(filepath.Join(etc, "kvs0.yaml"), []byte("name: kvs0\nageing: 88s\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			reload := command("ExecReload")
			reload.Env = append(os.Environ(), "KVSWITCH_RUN_DIR="+dir)
			if out, err := reload.CombinedOutput(); err != nil || k.status().AgeingS != 88 {
				t.Errorf("reload: %v, %s; ageing is %v s, want 88", err, out, k.status().AgeingS)
			}
		}
		k.stop()
		expectNotes(t, notify, "STOPPING=1")
	}
}

// expectNotes waits for these notes among what a service says to systemd.
func expectNotes(t *testing.T, c *net.UnixConn, want ...string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for len(want) > 0 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(fmt.Errorf("wait for %v: %w", want, err))
		}
		for line := range strings.Lines(string(buf[:n])) {
			if len(want) > 0 && strings.TrimSpace(line) == want[0] {
				want = want[1:]
			}
		}
	}
}
