package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// The shortest times that 802.1D allows with its usual hello time, in seconds.
const (
	shortHello        = 2
	shortMaxAge       = 6
	shortForwardDelay = 4
)

// The longest times that it allows: whatever waits for the forward delay, which
// a port does twice before it forwards, does not come before treePatience ends.
const (
	longMaxAge       = 40
	longForwardDelay = 30
)

// kvswitchTree is kvswitch with short timers.
func kvswitchTree(mode string) treeMaker { return timedTree(mode, shortMaxAge, shortForwardDelay) }

// timedTree is kvswitch with the short hello time and others as given, in seconds.
func timedTree(mode string, maxAge, forwardDelay int) treeMaker {
	return func(t *testing.T, b *treeBridge) treeMember {
		t.Helper()
		return kvsMember{runTree(t, b, "stp: "+mode,
			fmt.Sprintf("hello: %ds", shortHello), fmt.Sprintf("max-age: %ds", maxAge), fmt.Sprintf("forward-delay: %ds", forwardDelay))}
	}
}

// runTree starts kvswitch on the ports of b, with lines of configuration.
func runTree(t *testing.T, b *treeBridge, lines ...string) *kvs {
	t.Helper()
	lines = append(lines, fmt.Sprintf("priority: %d", b.priority))
	file := filepath.Join(netns.Dir(t), "kvswitch.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", file, "--no-host", "--port", "netdev:" + stationPort + ",edge=on,bpdu-guard=on"} // as a guest's tap has it
	for _, p := range b.ports {
		args = append(args, "--uplink", p)
	}
	return run(t, b.host, args...)
}

// kvsMember is kvswitch as a member of a tree.
type kvsMember struct{ *kvs }

func (k kvsMember) view() (treeView, error) {
	d := k.tree()
	v := treeView{id: d.BridgeID, root: d.RootID, states: map[string]string{}}
	for _, p := range d.Ports {
		v.states[p.Name] = p.State
	}
	return v, nil
}

// kernelTree is the kernel's bridge, which speaks 802.1D-1998.
func kernelTree(t *testing.T, b *treeBridge) treeMember {
	t.Helper()
	b.host.Run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "1", "mcast_snooping", "0",
		"priority", strconv.Itoa(b.priority),
		// In hundredths of a second.
		"hello_time", strconv.Itoa(shortHello*100), "max_age", strconv.Itoa(shortMaxAge*100),
		"forward_delay", strconv.Itoa(shortForwardDelay*100))
	for _, p := range append([]string{stationPort}, b.ports...) {
		b.host.Run("ip", "link", "set", p, "master", "br0")
	}
	b.host.Up("br0")
	return &kernelMember{b.host}
}

type kernelMember struct{ host *netns.Host }

func (k *kernelMember) view() (treeView, error) {
	out, err := k.host.Try("ip", "-json", "-details", "link", "show")
	if err != nil {
		return treeView{}, err
	}
	var links []struct {
		Name string `json:"ifname"`
		Info struct {
			Bridge struct {
				ID string `json:"bridge_id"` // what it shows as root_id is the same, in iproute2 up to 6.1
			} `json:"info_data"`
			Port struct {
				State string `json:"state"`
				Root  string `json:"root_id"`
			} `json:"info_slave_data"`
		} `json:"linkinfo"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return treeView{}, err
	}
	v := treeView{states: map[string]string{}}
	for _, l := range links {
		if l.Name == "br0" {
			v.id = bridgeIDOf(l.Info.Bridge.ID)
		} else if port := l.Info.Port; port.State != "" {
			v.states[l.Name] = port.State
			if root := bridgeIDOf(port.Root); port.State != "disabled" && v.root != "" && root != v.root {
				return v, fmt.Errorf("ports know of roots %s and %s", v.root, root)
			} else if port.State != "disabled" {
				v.root = root
			}
		}
	}
	return v, nil
}

// bridgeIDOf turns a bridge id such as 8000.2:0:0:0:0:1 into 8000.020000000001.
func bridgeIDOf(s string) string {
	prio, addr, _ := strings.Cut(s, ".")
	for i, octet := range strings.Split(addr, ":") {
		if i == 0 {
			addr = ""
		}
		addr += fmt.Sprintf("%02s", octet)
	}
	return fmt.Sprintf("%04s.%s", prio, addr)
}

const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"

// ovsTree is Open vSwitch's RSTP on its userspace datapath: an instance with its
// own database, sockets and logs. Its hello time is two seconds, always.
func ovsTree(t *testing.T, b *treeBridge) treeMember {
	t.Helper()
	_, err := os.Stat(ovsSchema)
	netns.Need(t, "package openvswitch-switch", err)
	o := &ovsMember{host: b.host, dir: netns.Dir(t)}
	if out, err := o.command("ovsdb-tool", "create", o.path("conf.db"), ovsSchema).CombinedOutput(); err != nil {
		t.Fatalf("make database of Open vSwitch: %v\n%s", err, out)
	}
	b.host.Start(o.command("ovsdb-server", "--remote=punix:"+o.path("db.sock"), "--unixctl="+o.path("db.ctl"), o.path("conf.db")))
	netns.Await(t, startPatience, "ovsdb-server is there", func() error {
		_, err := os.Stat(o.path("db.sock"))
		return err
	})
	b.host.Start(o.command("ovs-vswitchd", "--unixctl="+o.path("vswitchd.ctl"), "unix:"+o.path("db.sock")))
	// In one transaction, so that there is no bridge without a spanning tree;
	// ovs-vsctl waits until ovs-vswitchd has done it.
	args := []string{"--db=unix:" + o.path("db.sock"), "--timeout=20",
		"--", "add-br", "br", "--", "set", "Bridge", "br", "datapath_type=netdev", "rstp_enable=true",
		"other_config:rstp-priority=" + strconv.Itoa(b.priority),
		"other_config:rstp-max-age=" + strconv.Itoa(shortMaxAge),
		"other_config:rstp-forward-delay=" + strconv.Itoa(shortForwardDelay)}
	for _, p := range b.ports {
		args = append(args, "--", "add-port", "br", p)
	}
	args = append(args, "--", "add-port", "br", stationPort, "--", "set", "Port", stationPort, "other_config:rstp-port-admin-edge=true")
	if out, err := o.command("ovs-vsctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("set up Open vSwitch: %v\n%s", err, out)
	}
	return o
}

type ovsMember struct {
	host *netns.Host
	dir  string
}

func (o *ovsMember) path(name string) string { return filepath.Join(o.dir, name) }

// command is one of OVS's programs, kept away from the system's instance.
func (o *ovsMember) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = o.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, v := range []string{"OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"} {
		cmd.Env = append(cmd.Env, v+"="+o.dir)
	}
	return cmd
}

// view reads rstp/show: two groups of facts, of the root and of the bridge, and
// a table of ports.
func (o *ovsMember) view() (treeView, error) {
	out, err := o.command("ovs-appctl", "-t", o.path("vswitchd.ctl"), "rstp/show", "br").CombinedOutput()
	if err != nil {
		return treeView{}, fmt.Errorf("rstp/show: %w: %s", err, out)
	}
	return parseRSTPShow(string(out))
}

func parseRSTPShow(text string) (treeView, error) {
	v := treeView{states: map[string]string{}}
	group := &v.root
	var prio int
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "Bridge":
			group = &v.id
		case len(f) == 2 && f[0] == "stp-priority":
			prio, _ = strconv.Atoi(f[1])
		case len(f) == 2 && f[0] == "stp-system-id":
			*group = bridgeIDOf(fmt.Sprintf("%04x.%s", prio, f[1]))
		case len(f) == 5 && f[0] != "Interface" && !strings.HasPrefix(f[0], "-"):
			v.states[f[0]] = strings.ToLower(f[2])
		}
	}
	if v.id == "" || v.root == "" {
		return v, errors.New("no bridge id in: " + text)
	}
	return v, nil
}
