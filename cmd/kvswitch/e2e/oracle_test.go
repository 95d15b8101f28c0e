package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// A subject is a switch on the ports of a star: kvswitch, or one that it is
// compared with.
type subject interface {
	// ageing sets how long a station is remembered.
	ageing(time.Duration)
	// learned is how many stations it knows.
	learned() int
}

// kernelBridge is Linux's own.
type kernelBridge struct{ host *netns.Host }

func newKernelBridge(s *star) subject {
	s.host.Bridge("br0", s.ports...)
	return kernelBridge{s.host}
}

func (k kernelBridge) ageing(d time.Duration) {
	k.host.Run("ip", "link", "set", "br0", "type", "bridge", "ageing_time", fmt.Sprint(d.Milliseconds()/10))
}

func (k kernelBridge) learned() (n int) {
	for line := range strings.Lines(k.host.Run("bridge", "fdb", "show", "br", "br0")) {
		if !strings.Contains(line, "permanent") {
			n++
		}
	}
	return n
}

// openVSwitch is ovs-vswitchd with its datapath in userspace: a private one,
// whose database, sockets and logs are in the lab's directory.
type openVSwitch struct {
	t   *testing.T
	dir string
}

// newOpenVSwitch makes a bridge of the star's ports; vlan gives each the columns
// of its Port record, as ovs-vsctl takes them.
func newOpenVSwitch(s *star, vlan func(port int) []string) subject {
	s.t.Helper()
	o := openVSwitch{s.t, netns.Dir(s.t)}
	path := func(name string) string { return filepath.Join(o.dir, name) }
	o.run("ovsdb-tool", "create", path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	o.start(s.host, "ovsdb-server", path("conf.db"), "--remote=punix:"+path("db.sock"), "--unixctl="+path("db.ctl"))
	netns.Await(s.t, 10*time.Second, "ovsdb-server answers", func() error {
		return o.vsctl("--no-wait", "init").Run()
	})
	o.start(s.host, "ovs-vswitchd", "unix:"+path("db.sock"), "--unixctl="+path("vs.ctl"))
	args := []string{"--timeout=20", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=standalone"}
	for i, p := range s.ports {
		args = append(args, append([]string{"--", "add-port", "br0", p}, vlan(i)...)...)
	}
	if out, err := o.vsctl(args...).CombinedOutput(); err != nil {
		s.t.Fatalf("configure Open vSwitch: %v\n%s", err, out)
	}
	return o
}

// command runs one of OVS's programs with its directories in ours.
func (o openVSwitch) command(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	for _, v := range []string{"OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"} {
		cmd.Env = append(cmd.Environ(), v+"="+o.dir)
	}
	return cmd
}

func (o openVSwitch) vsctl(args ...string) *exec.Cmd {
	return o.command(append([]string{"ovs-vsctl", "--db=unix:" + filepath.Join(o.dir, "db.sock")}, args...)...)
}

func (o openVSwitch) start(h *netns.Host, argv ...string) {
	o.t.Helper()
	cmd := o.command(append(argv, "-vconsole:warn", "-vsyslog:off")...)
	h.Start(cmd)
}

func (o openVSwitch) run(argv ...string) string {
	o.t.Helper()
	out, err := o.command(argv...).CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func (o openVSwitch) ageing(d time.Duration) {
	o.t.Helper()
	if out, err := o.vsctl("set", "bridge", "br0", fmt.Sprintf("other-config:mac-aging-time=%d", d/time.Second)).CombinedOutput(); err != nil {
		o.t.Fatalf("set ageing of Open vSwitch: %v\n%s", err, out)
	}
}

func (o openVSwitch) learned() int {
	out := o.run("ovs-appctl", "-t", filepath.Join(o.dir, "vs.ctl"), "fdb/show", "br0")
	return strings.Count(out, "\n") - 1 // a line of headings
}
