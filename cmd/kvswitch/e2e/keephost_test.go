package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// The host stays on the network when its switch is restarted: the host interface
// is the same device before and after, with its addresses and routes, whatever
// ended the switch and whatever kind of device the next one would make.
func TestHostInterfaceOutlivesARestart(t *testing.T) {
	for _, tc := range []struct{ name, before, after string }{
		{"workers", "off", "off"},
		{"in the kernel", "auto", "auto"},
		{"from workers to the kernel", "off", "auto"},
		{"from the kernel to workers", "auto", "off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host := netns.New(t).Host("host")
			dir := netns.Dir(t)
			start := func(inKernel string, more ...string) *kvs {
				k := launch(t, host, dir, append([]string{"--keep-host", "--in-kernel", inKernel}, more...)...)
				k.awaitReady()
				return k
			}
			const route = "198.51.100.0/24 via 192.0.2.254 dev lan0"
			state := func() string {
				return host.Run("sh", "-c", "ip -o link show lan0 | cut -d: -f1,2 | sed s/@.*//; ip -o -4 addr show dev lan0 | sed s/valid.*//; ip route show dev lan0 | sed 's/ linkdown//'; ip -o link show lan0 | grep -o 'link/ether [0-9a-f:]*'")
			}
			k := start(tc.before, "--host", "lan0")
			host.Run("ip", "addr", "add", "192.0.2.7/24", "dev", "lan0")
			host.Run("ip", "addr", "add", "192.0.2.8/24", "dev", "lan0")
			host.Run("sh", "-c", "ip route add "+route)
			was := state()
			if !strings.Contains(was, "198.51.100.0/24 via 192.0.2.254") || !strings.Contains(was, "192.0.2.8") {
				t.Fatalf("the host has\n%s", was)
			}
			same := func(when string) {
				t.Helper()
				if is := state(); is != was {
					t.Errorf("%s: the host has\n%s\nit had\n%s", when, is, was)
				}
			}
			k.stop()
			same("stopped")
			k = start(tc.after, "--host", "lan0")
			same("started again")
			k.proc.Kill()
			same("killed")
			k = start(tc.after, "--host", "lan0")
			same("started after a crash")

			// What the switch has is not left over; what it has no use for is.
			if out, _ := host.Try(program, "--run-dir", dir, "restore"); out != "" {
				t.Errorf("restore beside the switch says %q", out)
			}
			if out, err := host.Try(program, "--run-dir", dir, "restore", "kvs0"); err == nil || !strings.Contains(out, "kvs0 is running") {
				t.Errorf("restore of a running switch: %v, %s", err, out)
			}
			same("restored nothing")
			k.stop()
			k = start(tc.after, "--host", "lan1")
			if _, err := host.Try("ip", "link", "show", "lan0"); err == nil {
				t.Error("lan0 is still there, although the host interface is lan1")
			}
			host.Run("ip", "link", "show", "lan1")
			k.stop()
			if out := host.Run(program, "--run-dir", dir, "restore", "--dry-run"); !strings.Contains(out, "would remove lan1") {
				t.Errorf("restore --dry-run says %q", out)
			}
			host.Run("ip", "link", "show", "lan1")
			if out := host.Run(program, "--run-dir", dir, "restore", "kvs0"); !strings.Contains(out, "removed lan1") {
				t.Errorf("restore says %q", out)
			}
			if links := host.Links(); len(links) != 0 {
				t.Errorf("left behind: %v", links)
			}

			// Without --keep-host a stop takes it away, whoever kept it before.
			start(tc.after, "--host", "lan0").stop()
			k = launch(t, host, dir, "--host", "lan0", "--in-kernel", tc.after)
			k.awaitReady()
			k.stop()
			if links := host.Links(); len(links) != 0 {
				t.Errorf("left behind: %v", links)
			}
		})
	}
}

// A tap that somebody made for the host interface is theirs.
func TestHostInterfaceOfSomebodyElsesStays(t *testing.T) {
	host := netns.New(t).Host("host")
	host.Run("ip", "tuntap", "add", "lan0", "mode", "tap", "vnet_hdr")
	for _, args := range [][]string{{"--keep-host"}, nil} {
		k := run(t, host, append(args, "--host", "lan0")...)
		k.stop()
		host.Run(program, "--run-dir", k.dir, "restore")
		if out := host.Run("ip", "link", "show", "lan0"); strings.Contains(out, "kvswitch") {
			t.Errorf("it is marked: %s", out)
		}
	}
}

// The unit's last command removes the host interface only if the unit is not
// enabled: a restart must not.
func TestSystemdUnitKeepsTheHostInterfaceWhileEnabled(t *testing.T) {
	text, err := os.ReadFile("../systemd/kvswitch@.service")
	if err != nil {
		t.Fatal(err)
	}
	host := netns.New(t).Host("host")
	bin := netns.Dir(t)
	if err := os.Symlink(program, filepath.Join(bin, "kvswitch")); err != nil {
		t.Fatal(err)
	}
	unit := strings.NewReplacer("@PREFIX@/bin", bin, "%i", "kvs0", "$$", "$", "/etc/kvswitch", bin).Replace(string(text))
	command := func(key, systemctl string) *exec.Cmd {
		_, rest, _ := strings.Cut(unit, "\n"+key+"=")
		line, _, _ := strings.Cut(rest, "\n")
		if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n[ \"$*\" = 'is-enabled --quiet kvswitch@kvs0' ] && exit "+systemctl+"\nexit 99\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "exec "+strings.TrimPrefix(line, "-"))
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KVSWITCH_RUN_DIR="+bin+"/run")
		return cmd
	}
	for _, tc := range []struct {
		systemctl string
		stays     bool
	}{{"0", true}, {"1", false}} {
		k := &kvs{t: t, host: host, dir: bin + "/run", proc: host.Start(command("ExecStart", "0"))}
		k.awaitReady()
		host.Run("ip", "addr", "add", "192.0.2.7/24", "dev", "kvs0")
		k.stop()
		if err := host.Start(command("ExecStopPost", tc.systemctl)).Err(); err != nil {
			t.Errorf("is-enabled gives %s: %v", tc.systemctl, err)
		}
		out, err := host.Try("ip", "addr", "show", "kvs0")
		if stays := err == nil && strings.Contains(out, "192.0.2.7"); stays != tc.stays {
			t.Errorf("is-enabled gives %s: %v, %s", tc.systemctl, err, out)
		}
		host.Try("ip", "link", "del", "kvs0")
	}
}

// Another switch of the same name, elsewhere, does not get the host interface of
// one that runs, and does not take it away either.
func TestHostInterfaceIsOneSwitchs(t *testing.T) {
	for _, inKernel := range []string{"auto", "off"} {
		host := netns.New(t).Host("host")
		k := run(t, host, "--in-kernel", inKernel)
		if out, err := host.Try(program, "run", "--run-dir", netns.Dir(t), "--in-kernel", inKernel); err == nil || !strings.Contains(out, "kvs0") {
			t.Errorf("a second switch: %v, %s", err, out)
		}
		if out, err := host.Try("ip", "link", "show", "up", "kvs0"); err != nil || out == "" {
			t.Errorf("the first switch's host interface is gone: %v, %s", err, out)
		}
		k.stop()
	}
}
