package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// sandbox is a command line that runs what follows it as the unit's settings have
// systemd do: it stands in for systemd, which a test can't count on.
func sandbox(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../systemd/kvswitch@.service")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(key string) string {
		_, rest, found := strings.Cut(string(text), "\n"+key+"=")
		value, _, _ := strings.Cut(rest, "\n")
		if !found {
			t.Fatalf("the unit has no %s", key)
		}
		return value
	}
	if setting("ProtectSystem") != "full" || setting("PrivateTmp") != "no" || setting("NoNewPrivileges") != "yes" {
		t.Fatal("the unit has a sandbox that this test does not know")
	}
	homes := map[string]string{
		"yes":       "mount -t tmpfs -o mode=0 none $d",
		"read-only": "mount --bind $d $d && mount -o remount,bind,ro $d",
		"no":        ":",
	}[setting("ProtectHome")]
	caps := "-all"
	for name := range strings.FieldsSeq(setting("CapabilityBoundingSet")) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	const enter = `set -e
mount --make-rprivate /
for d in /usr /etc /boot; do [ -d $d ] || continue; mount --bind $d $d && mount -o remount,bind,ro $d; done
for d in /home /root /run/user; do [ -d $d ] || continue; %s; done
exec setpriv --bounding-set=%s --no-new-privs "$@"`
	return []string{"unshare", "--mount", "sh", "-c", fmt.Sprintf(enter, homes, caps), "sh"}
}

// A switch in the unit's sandbox serves guests in every way: QEMUs of other users,
// with sockets in their homes, too.
func TestSandboxedUnitServesGuests(t *testing.T) {
	host := netns.New(t).Host("host")
	l := &guestLAN{bin: netns.Dir(t), self: hostStation{host}}
	l.acl = filepath.Join(l.bin, "bridge.conf")
	l.allow("allow kvs0")
	l.install(t)
	dir := netns.Dir(t)
	argv := append(sandbox(t), filepath.Join(l.bin, "kvswitch"), "run", "--run-dir", dir)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "KVSWITCH_BRIDGE_CONF="+l.acl)
	l.kvs = &kvs{t: t, host: host, dir: dir, proc: host.Start(cmd)}
	t.Cleanup(l.stop)
	l.awaitReady()
	t.Setenv("KVSWITCH_RUN_DIR", dir)

	home, err := os.UserHomeDir()
	if err == nil {
		home, err = os.MkdirTemp(home, ".kvswitch-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	qmp := filepath.Join(home, "qmp")
	qemu := func(as []string, args ...string) *netns.Proc {
		argv := slices.Concat(as, []string{"qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "32"}, args)
		return host.Start(exec.Command(argv[0], argv[1:]...))
	}

	// A user's, by the bridge helper.
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	helped := qemu(nobody, "-name", "helped", "-netdev", "bridge,id=n0,br=kvs0,helper="+filepath.Join(l.bin, "kvswitch-bridge-helper"))
	netns.Await(t, startPatience, "vm list shows a user's guest", func() error {
		select {
		case <-helped.Done():
			t.Fatalf("QEMU ended: %s\n%s", helped.Log(), l.proc.Log())
		default:
		}
		if list := l.vms(); len(list) != 1 || list[0].Name != "helped" {
			return fmt.Errorf("it shows %+v", list)
		}
		return nil
	})

	// By hot plug, over a socket in somebody's home.
	qemu(nil, "-name", "plugged", "-machine", "pc", "-qmp", "unix:"+qmp+",server=on,wait=off")
	netns.Await(t, startPatience, "QEMU's monitor", func() error { _, err := os.Stat(qmp); return err })
	n := l.plug("--qmp", qmp, "--set", "isolated=on")
	if p := l.port(n.Port); p.Kind != "netdev" {
		t.Errorf("the plugged card's port is %+v", p)
	}

	// By libvirt's hook.
	hooks := filepath.Join(l.bin, "hooks")
	l.do("libvirt", "hooks", "install", "--dir", hooks)
	host.Run("ip", "tuntap", "add", "web0", "mode", "tap")
	hook := func(operation string) {
		t.Helper()
		host.Run("sh", "-c", fmt.Sprintf(`echo "<domain><uuid>6a1d5c1e-93a5-4d4e-8f3a-2f6a2f1c7f10</uuid><devices><interface type='ethernet'><target dev='web0'/></interface></devices></domain>" | %s/qemu.d/kvswitch web %s begin -`, hooks, operation))
	}
	hook("start")
	l.port("web0")
	hook("stopped")

	// With a socket that is another user's.
	l.do("port", "add", "vhost-user:rings,owner=65534,path="+filepath.Join(dir, "rings.sock"))
	if out := host.Run("stat", "-c", "%u %a", filepath.Join(dir, "rings.sock")); out != "65534 660" {
		t.Errorf("the socket has %s", out)
	}
	if names := l.portNames(); len(names) != 3 {
		t.Errorf("ports %v, want three", names)
	}
}
