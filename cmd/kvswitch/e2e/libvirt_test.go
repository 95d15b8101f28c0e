package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

// libvirt is a real libvirtd of the system, on a host of its own: its mount,
// host name and process namespaces are its own, too, so that it shares no state
// with another, and its guests end with the test.
type libvirt struct {
	t      *testing.T
	host   *netns.Host
	dir    string // etc, lib, log, run: what it takes for /etc/libvirt and so on
	init   string // process id of its namespaces' first process
	daemon *netns.Proc
}

// libvirtHouse makes the namespaces: $1 is the directory, $2 the name.
const libvirtHouse = `set -e
mount --make-rprivate /
mount -t sysfs sysfs /sys
hostname "$2"
for d in cache log; do mkdir "$1/$d"; mount --bind "$1/$d" "/var/$d/libvirt"; done
cp -a /etc/libvirt "$1/etc"; cp -a /var/lib/libvirt "$1/lib"
rm -rf "$1"/etc/hooks/* "$1"/etc/qemu/networks "$1"/etc/qemu/*.xml
mkdir -p "$1/run" /run/libvirt
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/run" /run/libvirt
touch "$1/kernel" "$1/initrd"
mount --bind "$3" "$1/kernel"; mount --bind "$4" "$1/initrd"
cat >/etc/libvirt/qemu.conf <<'END'
stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
namespaces = []
cgroup_controllers = []
END
cat >/etc/libvirt/libvirtd.conf <<END
auth_unix_rw = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
log_outputs = "3:stderr"
END
touch "$1/ready"
# The first process of a namespace has orphans to bury.
sleep infinity & wait`

func newLibvirt(t *testing.T, host *netns.Host, name string) *libvirt {
	t.Helper()
	_, err := exec.LookPath("libvirtd")
	netns.Need(t, "libvirt", err)
	l := &libvirt{t: t, host: host, dir: netns.Dir(t)}
	if err := os.Mkdir(filepath.Join(l.dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(l.dir, "open"), 0o777) // QEMU runs as a user of its own
	kernel, initrd := vm.Files(t)
	house := host.Start(exec.Command("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", libvirtHouse, "sh", l.dir, name, kernel, initrd))
	netns.Await(t, startPatience, "the place for libvirt", func() error {
		if _, err := os.Stat(filepath.Join(l.dir, "ready")); err != nil {
			select {
			case <-house.Done():
				t.Fatalf("make a place for libvirt: %v: %s", house.Err(), house.Log())
			default:
			}
			return err
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", house.Pid()))
		l.init = strings.TrimSpace(string(children))
		return err
	})
	return l
}

// inside is a command in libvirt's namespaces.
func (l *libvirt) inside(argv ...string) []string {
	return append([]string{"nsenter", "--target", l.init, "--mount", "--uts", "--pid"}, argv...)
}

// start starts the daemon and waits until it answers.
func (l *libvirt) start() {
	l.t.Helper()
	argv := l.inside("libvirtd", "--pid-file", "/run/libvirt/libvirtd.pid")
	l.daemon = l.host.Start(exec.Command(argv[0], argv[1:]...))
	netns.Await(l.t, startPatience, "libvirtd answers", func() error {
		_, err := l.try("version")
		return err
	})
}

// socket is its address for virsh.
func (l *libvirt) address() string {
	return "qemu+unix:///system?socket=" + filepath.Join(l.dir, "run", "libvirt-sock")
}

// try runs a verb of virsh; do must succeed.
func (l *libvirt) try(args ...string) (string, error) {
	return l.host.Try(append([]string{"virsh", "-q", "-c", l.address()}, args...)...)
}

func (l *libvirt) do(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatalf("%v: %s\n%s", err, out, l.daemon.Log())
	}
	return out
}

// file writes a file that virsh reads.
func (l *libvirt) file(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// define defines the guest web with these interfaces and this metadata of ours.
func (l *libvirt) define(interfaces, metadata string) {
	l.t.Helper()
	l.do("define", l.file("web.xml", fmt.Sprintf(`<domain type='qemu' xmlns:kvs='https://github.com/kvswitch/kvswitch'>
  <name>web</name>
  <uuid>6a1d5c1e-93a5-4d4e-8f3a-2f6a2f1c7f10</uuid>
  <metadata><kvs:switch>%s</kvs:switch></metadata>
  <memory unit='MiB'>192</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>
    <kernel>%s/kernel</kernel><initrd>%[2]s/initrd</initrd><cmdline>%s</cmdline></os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model><feature policy='require' name='rdrand'/></cpu>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    %s
    <controller type='virtio-serial' index='0'/>
    <channel type='unix'><source mode='bind'/><target type='virtio' name='%s'/></channel>
    <serial type='file'><source path='%[2]s/open/console'/></serial>
  </devices>
</domain>`, metadata, l.dir, vm.KernelArgs, interfaces, wire.Port)))
}

// override sets a property of the guest's device in QEMU.
func (l *libvirt) override(alias, property, value string) {
	l.t.Helper()
	text := l.do("dumpxml", "--inactive", "web")
	text = strings.Replace(text, "</domain>", fmt.Sprintf("<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:device alias='%s'><qemu:frontend>"+
		"<qemu:property name='%s' type='unsigned' value='%s'/></qemu:frontend></qemu:device></qemu:override></domain>", alias, property, value), 1)
	l.do("define", l.file("web.xml", text))
}

// guest speaks to the guest's agent.
func (l *libvirt) guest() *vm.Guest {
	l.t.Helper()
	var socket string
	netns.Await(l.t, startPatience, "the socket of the guest's agent", func() error {
		found, err := filepath.Glob(filepath.Join(l.dir, "lib/qemu/channel/target/*-web", wire.Port))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("found %q", found)
		}
		if err == nil {
			socket = found[0]
		}
		return err
	})
	return vm.Meet(l.t, "web", socket, filepath.Join(l.dir, "open", "console"))
}

// boot waits until the guest has booted, and gives it an address.
func (l *libvirt) boot(addr string) *vm.Guest {
	l.t.Helper()
	g := l.guest()
	g.AwaitBoot()
	g.Run("ip link set eth0 up; ip addr add " + addr + "/24 dev eth0")
	return g
}

// killQEMU ends the guest's process as a crash does.
func (l *libvirt) killQEMU() {
	l.t.Helper()
	l.host.Run(l.inside("sh", "-c", "kill -9 $(cat /run/libvirt/qemu/web.pid)")...)
}

// taps are the names of the guest's taps, in the order of its description.
func (l *libvirt) taps() (names []string) {
	l.t.Helper()
	for line := range strings.Lines(l.do("domiflist", "web")) {
		if f := strings.Fields(line); len(f) == 5 && f[1] == "ethernet" {
			names = append(names, f[0])
		}
	}
	return names
}

// script writes a <script> that speaks to the switch in another directory than
// the default one: libvirt hands it no environment.
func (l *libvirt) script(verb, runDir string) string {
	return l.file("kvswitch-"+verb, fmt.Sprintf("#!/bin/sh\nexec %s --run-dir %s %s \"$1\"\n", program, runDir, verb))
}

// awaitPorts waits until the switch has these ports and no others.
func (k *kvs) awaitPorts(when string, want ...string) {
	k.t.Helper()
	netns.Await(k.t, guestPatience, when, func() error {
		var got []string
		for _, p := range k.status().Ports {
			got = append(got, p.Name)
			if p.Link != "up" {
				got[len(got)-1] += " (down)"
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("ports %v, want %v", got, want)
		}
		return nil
	})
}

// guestPatience is for what a guest has to do, or QEMU under emulation.
const guestPatience = 40 * time.Second
