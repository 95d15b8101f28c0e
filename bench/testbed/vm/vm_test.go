package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

// cable gives the QEMU arguments for the two ends of a wire between guests.
func cable(t *testing.T) (a, b []string) {
	dir := netns.Dir(t)
	end := func(mine, other string) []string {
		return []string{
			"-netdev", fmt.Sprintf("dgram,id=n0,local.type=unix,local.path=%s/%s,remote.type=unix,remote.path=%s/%s", dir, mine, dir, other),
			"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0" + mine,
		}
	}
	return end("1", "2"), end("2", "1")
}

func TestGuestRunsCommands(t *testing.T) {
	g := Start(t, Options{Net: []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"}})

	t.Run("output and exit status", func(t *testing.T) {
		for _, tc := range []struct {
			command, output string
			status          int
		}{
			{"true", "", 0},
			{"echo out; echo err >&2; exit 7", "out\nerr\n", 7},
			{"kill -TERM $$", "", 143},
			{"cat", "", 0},                 // standard input is empty
			{"sleep 1000 & echo", "\n", 0}, // what stays behind is not waited for
		} {
			output, status, err := g.Exec(t.Context(), tc.command)
			if output != tc.output || status != tc.status || err != nil {
				t.Errorf("%s: %q, status %d, %v", tc.command, output, status, err)
			}
		}
	})
	t.Run("failing commands are errors", func(t *testing.T) {
		if out, err := g.Try("echo why; false"); out != "why" || err == nil {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("large output and several commands at once", func(t *testing.T) {
		done := make(chan error)
		for i := range 4 {
			go func() {
				out, _, err := g.Exec(t.Context(), fmt.Sprintf("yes %d | head -c 300000", i))
				if want := strings.Repeat(fmt.Sprintf("%d\n", i), 150000); err == nil && out != want {
					err = fmt.Errorf("command %d: %d bytes of something else", i, len(out))
				}
				done <- err
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a command ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, _, err := g.Exec(ctx, "sleep 4321"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		netns.Await(t, 10*time.Second, "the command is killed", func() error {
			if out, err := g.Try("pgrep -f 'sleep 432[1]'"); err == nil {
				return fmt.Errorf("still runs as %s", out)
			}
			return nil
		})
	})
	t.Run("files", func(t *testing.T) {
		data := bytes.Repeat([]byte{0, 1, 0xff, '\n', 0x0d}, 100000)
		g.Put("/tmp/x", 0o755, data)
		if got := g.Get("/tmp/x"); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back, put %d", len(got), len(data))
		}
		if got := g.Run("stat -c %a /tmp/x"); got != "755" {
			t.Errorf("mode %s", got)
		}
	})
	t.Run("DHCP", func(t *testing.T) {
		if a := g.Lease("eth0"); a.String() != "10.0.2.15" {
			t.Errorf("address %v from QEMU's own server", a)
		}
	})
	t.Run("modules", func(t *testing.T) {
		for _, command := range []string{
			"modprobe tun && modprobe vhost_net && ls -l /dev/net/tun /dev/vhost-net",
			"ip link add br0 type bridge", // the kernel asks for the module itself
			"ip link add link eth0 name eth0.7 type vlan id 7",
			"ip link add v0 type veth peer name v1",
		} {
			if out, err := g.Try(command); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	})
	t.Run("orphans are reaped", func(t *testing.T) {
		g.Run("sh -c 'sleep 0.1 & exec true'")
		netns.Await(t, 5*time.Second, "no zombie", func() error {
			if out := g.Run("ps -o stat,comm | grep ^Z || true"); out != "" {
				return errors.New(out)
			}
			return nil
		})
	})
	t.Run("power off", func(t *testing.T) {
		g.PowerOff()
		if err := g.Proc().Err(); err != nil {
			t.Errorf("QEMU ended with %v", err)
		}
		if _, _, err := g.Exec(t.Context(), "true"); err == nil {
			t.Error("a guest that is off ran a command")
		}
	})
}

func TestGuestsShareAWire(t *testing.T) {
	netA, netB := cable(t)
	a := Launch(t, Options{Name: "a", Net: netA, Memfd: true})
	b := Launch(t, Options{Name: "b", Net: netB, SMP: 2, Machine: "q35"})
	a.AwaitBoot()
	b.AwaitBoot()
	a.Run("ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up")
	b.Run("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up")
	a.Run("ping -c 3 192.0.2.2")
	if n := b.Run("nproc"); n != "2" {
		t.Errorf("%s processors, want 2", n)
	}
}

func TestGuestBootsAgain(t *testing.T) {
	g := Start(t, Options{KeepOnReset: true})
	first := g.Run("cat /proc/sys/kernel/random/boot_id")
	g.Reboot()
	if second := g.Run("cat /proc/sys/kernel/random/boot_id"); second == first {
		t.Error("same boot id after a reboot")
	}
}

func TestExtraFilesAndInitrd(t *testing.T) {
	var a initrd.Archive
	a.File("/opt/a", 0o644, []byte("first"))
	one, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	a = initrd.Archive{}
	a.Program("/opt/env", "/usr/bin/env") // needs the C library
	two, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "1"), filepath.Join(dir, "2")}
	for i, data := range [][]byte{one[:len(one):len(one)], two} {
		if err := os.WriteFile(paths[i], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	qmp := filepath.Join(netns.Dir(t), "qmp")
	g := Start(t, Options{
		Initrd:     paths,
		ExtraFiles: []*os.File{r},
		Args:       []string{"-add-fd", "fd=3,set=1"},
		QMP:        qmp,
		Append:     "kvs.test=1",
	})
	if got := g.Run("cat /opt/a && /opt/env true && grep -o kvs.test=1 /proc/cmdline"); got != "firstkvs.test=1" {
		t.Errorf("guest says %q", got)
	}
	conn, err := net.Dial("unix", qmp)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestAGuestThatDiesSaysWhy(t *testing.T) {
	img, err := guestImage()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		options Options
		want    string
	}{
		"QEMU refuses":  {Options{Args: []string{"-device", "no-such-device"}}, "no-such-device"},
		"kernel panics": {Options{Append: "rdinit=/none root=/dev/none"}, "panic"},
	} {
		tc.options.Accel = accel(t)
		g, err := launch(t, tc.options, img)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.awaitBoot(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, tc.want)
		}
	}
}
