package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kvswitch/kvswitch/bench/topo"
)

// ovsKinds are Open vSwitch's userspace datapath over the two kinds of port it
// has for any netdev.
func ovsKinds() []Kind {
	version := func() string { return firstLine("ovs-vswitchd", "--version") }
	return []Kind{
		{
			Name: "ovs", Family: "ovs",
			About:  "Open vSwitch userspace datapath, AF_PACKET ports (type system) with userspace TSO, action NORMAL",
			Absent: ovsAbsent, Version: version,
			New: func() Subject { return &ovs{name: "ovs"} },
		},
		{
			Name: "ovs-afxdp", Family: "ovs",
			About:  "Open vSwitch userspace datapath, AF_XDP ports, one polling thread on the second core, action NORMAL",
			Absent: ovsAbsent, Version: version,
			New: func() Subject { return &ovs{name: "ovs-afxdp", afxdp: true} },
		},
	}
}

const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"

func ovsAbsent() error {
	if err := need("openvswitch-switch", "ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl"); err != nil {
		return err
	}
	if _, err := os.Stat(ovsSchema); err != nil {
		return fmt.Errorf("find Open vSwitch's database schema: %w", err)
	}
	return nil
}

// ovs is a private instance: its own database, sockets, logs and pid files.
type ovs struct {
	program
	name  string
	afxdp bool
	dir   string
}

func (o *ovs) Name() string { return o.name }

func (o *ovs) Attach(t *topo.Topology) error {
	o.dir = filepath.Join(t.Dir(), "ovs")
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := o.run("ovsdb-tool", "create", o.path("conf.db"), ovsSchema); err != nil {
		return err
	}
	socket := o.path("db.sock")
	if err := t.Do(func() {
		o.start(t, o.command("ovsdb-server", "--remote=punix:"+socket, "--unixctl="+o.path("db.ctl"), o.path("conf.db")))
	}); err != nil {
		return err
	}
	if err := o.appears(socket); err != nil {
		return err
	}
	if err := t.Do(func() {
		o.start(t, o.command("ovs-vswitchd", "--unixctl="+o.path("vswitchd.ctl"), "unix:"+socket))
	}); err != nil {
		return err
	}
	// ovs-vsctl waits until ovs-vswitchd has done what it says.
	vsctl := []string{"ovs-vsctl", "--db=unix:" + socket, fmt.Sprintf("--timeout=%d", int(settle.Seconds()))}
	if err := o.run(append(vsctl, o.configuration(t)...)...); err != nil {
		return err
	}
	return o.ready(t)
}

// configuration are ovs-vsctl's commands, separated by --.
func (o *ovs) configuration(t *topo.Topology) []string {
	c := []string{
		// The table of addresses is as small as 8192 entries by default, and a
		// contender must not lose a race by a setting that is a line to change.
		"--", "add-br", bridgeName, "--", "set", "Bridge", bridgeName, "datapath_type=netdev",
		"other_config:mac-table-size=1048576", "other_config:forward-bpdu=false",
		fmt.Sprintf("other_config:mac-aging-time=%.0f", Ageing.Seconds()),
		// Flows, too, would be forgotten after ten seconds, which it is stopped for.
		"--", "set", "Open_vSwitch", ".", fmt.Sprintf("other_config:max-idle=%d", Ageing.Milliseconds()),
	}
	if o.afxdp {
		c = append(c, "--", "set", "Open_vSwitch", ".", "other_config:pmd-cpu-mask=2") // CPU 1
	} else {
		// Without it frames that a veth leaves unfinished (checksum, segmentation)
		// go out as they are, and no TCP gets through.
		c = append(c, "--", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
	}
	for _, p := range t.Ports {
		c = append(c, "--", "add-port", bridgeName, p.Name)
		if o.afxdp {
			c = append(c, "--", "set", "Interface", p.Name, "type=afxdp")
		}
	}
	return c
}

// ready makes sure that every port came up in the datapath: ovs-vsctl is
// content with a port that has an error.
func (o *ovs) ready(t *topo.Topology) error {
	socket := "--db=unix:" + o.path("db.sock")
	for _, p := range t.Ports {
		out, err := o.command("ovs-vsctl", socket, "get", "Interface", p.Name, "error").Output()
		if err != nil {
			return fmt.Errorf("ask about port %s: %w", p.Name, err)
		}
		if e := strings.TrimSpace(string(out)); e != "[]" {
			return fmt.Errorf("attach port %s: %s", p.Name, e)
		}
	}
	return nil
}

func (o *ovs) path(name string) string { return filepath.Join(o.dir, name) }

// command is one of OVS's programs, kept away from the system's instance.
func (o *ovs) command(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = o.dir
	for _, v := range []string{"OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"} {
		cmd.Env = append(cmd.Env, v+"="+o.dir)
	}
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	return cmd
}

// run runs one of OVS's short-lived programs.
func (o *ovs) run(argv ...string) error {
	out, err := o.command(argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(2, len(argv))], " "), err, lastLine(string(out)))
	}
	return nil
}

func (o *ovs) Detach() error { return o.stop() }
