package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// copyOf is a program where everybody can run it, with this mode.
func copyOf(t *testing.T, name string, mode os.FileMode) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(program), name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(netns.Dir(t), name)
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// asNobody runs a command line as an ordinary user, in a mount namespace in which
// runDir, if not "", is /run/kvswitch.
func asNobody(t *testing.T, runDir string, env []string, argv ...string) (said string, code int) {
	t.Helper()
	shell := "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\""
	if runDir != "" {
		shell = "mount -t tmpfs none /run && mkdir /run/kvswitch && mount --bind '" + runDir + "' /run/kvswitch && " + shell
	}
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", shell, "sh"}, argv...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestSetuidBridgeHelperGivesNobodyRootsRights makes the helper setuid, as QEMU's
// is, and tries to get by it what its caller has no right to.
func TestSetuidBridgeHelperGivesNobodyRootsRights(t *testing.T) {
	acl := filepath.Join(netns.Dir(t), "bridge.conf")
	t.Setenv("KVSWITCH_BRIDGE_CONF", acl)
	write := func(mode os.FileMode) {
		if err := errors.Join(os.WriteFile(acl, []byte("allow kvs0\n"), mode), os.Chmod(acl, mode)); err != nil {
			t.Fatal(err)
		}
	}
	k := run(t, netns.New(t).Host("host"), "--no-host")
	helper := copyOf(t, "kvswitch-bridge-helper", 0o755|os.ModeSetuid)
	expect := func(what, said string, code, wantCode int, want string) {
		t.Helper()
		if code != wantCode || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, %q; want %d and %q", what, code, said, wantCode, want)
		}
	}
	write(0o600) // a list for root alone
	said, code := asNobody(t, k.dir, nil, helper, "--br=kvs0", "--fd=0")
	expect("a list that only root may read", said, code, 1, "permission denied")
	write(0o644)
	said, code = asNobody(t, k.dir, nil, helper, "--br=kvs0", "--fd=9")
	expect("a list that allows it", said, code, 1, "pass the tap to QEMU on descriptor 9")
	said, code = asNobody(t, "", []string{"KVSWITCH_RUN_DIR=" + k.dir}, helper, "--br=kvs0", "--fd=0")
	expect("the caller's environment", said, code, 1, "/run/kvswitch/kvs0.helper.sock")
	said, code = asNobody(t, k.dir, nil, helper, "--run-dir="+k.dir, "--br=kvs0", "--fd=0")
	expect("a flag that is none of QEMU's", said, code, 2, "want [--use-vnet] --br=NAME --fd=N")
	said, code = asNobody(t, k.dir, nil, helper, "port", "add", "vhost-user:x,path=/run/x.sock,perm=0777")
	expect("a verb", said, code, 2, "want [--use-vnet] --br=NAME --fd=N")

	everything := copyOf(t, "kvswitch", 0o755|os.ModeSetuid)
	for _, args := range [][]string{{"show"}, {"--help"}, {"port", "add", "vhost-user:x,path=/run/x.sock,perm=0777"}, {"bridge-helper", "--br=kvs0", "--fd=0"}} {
		said, code := asNobody(t, k.dir, nil, append([]string{everything}, args...)...)
		expect("all of kvswitch setuid: "+strings.Join(args, " "), said, code, 1, "setuid")
		if strings.Count(said, "\n") != 1 {
			t.Errorf("%q: it says more than that it refuses", said)
		}
	}
	if ports := k.status().Ports; len(ports) != 0 {
		t.Errorf("ports %+v", ports)
	}
}
