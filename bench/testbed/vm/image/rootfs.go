package image

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

// agentPackage is the guest's first process.
const agentPackage = "./bench/testbed/vm/agent"

// sources are the folders that decide what is in the initramfs.
var sources = []string{"agent", "wire", "initrd", "image"}

// ensureInitrd returns the initramfs that belongs to these sources, this
// busybox and this kernel.
func ensureInitrd(ctx context.Context, root string, k kernel, log func(string, ...any)) (string, error) {
	busybox, err := findBusybox()
	if err != nil {
		return "", err
	}
	key, err := fingerprint(root, busybox)
	if err != nil {
		return "", err
	}
	target := filepath.Join(k.dir, "initrd-"+key+".cpio")
	if exists(target) {
		return target, nil
	}
	log("building initramfs for Linux %s", k.release)
	stale, err := newest(filepath.Join(k.dir, "initrd-*.cpio"))
	if err != nil {
		return "", err
	}
	agent := filepath.Join(k.dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", agent, agentPackage)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build agent: %w\n%s", err, out)
	}
	cpio, err := rootfs(k, busybox, agent)
	if err != nil {
		return "", err
	}
	if err := writeFile(target, cpio); err != nil {
		return "", err
	}
	for _, old := range stale {
		_ = os.Remove(old) // a leftover only takes room
	}
	return target, nil
}

// findBusybox wants the static one: the guest has no libraries.
func findBusybox() (string, error) {
	const advice = "install busybox-static"
	p, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, advice)
	}
	f, err := elf.Open(p)
	if err != nil {
		return "", fmt.Errorf("open busybox: %w: %s", err, advice)
	}
	defer f.Close()
	if f.Section(".interp") != nil {
		return "", fmt.Errorf("%s needs shared libraries: %s", p, advice)
	}
	return p, nil
}

// fingerprint names one state of the sources and of busybox.
func fingerprint(root, busybox string) (string, error) {
	files := []string{busybox}
	for _, dir := range sources {
		found, err := filepath.Glob(filepath.Join(root, "bench/testbed/vm", dir, "*.go"))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	h := sha256.New()
	for _, p := range files {
		f, err := os.Open(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, p)
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// udhcpcScript applies a lease; udhcpc calls it with the lease in its
// environment.
const udhcpcScript = `#!/bin/sh
case "$1" in
deconfig)
	ip addr flush dev "$interface"
	ip link set "$interface" up
	;;
bound|renew)
	ip addr replace "$ip/${mask:-24}" dev "$interface"
	for r in $router; do
		ip route replace default via "$r" dev "$interface"
	done
	: >/etc/resolv.conf
	for d in $dns; do
		echo "nameserver $d" >>/etc/resolv.conf
	done
	;;
esac
`

// rootfs packs the guest's file system.
func rootfs(k kernel, busybox, agent string) ([]byte, error) {
	var a initrd.Archive
	a.Copy("/init", agent)
	a.Copy("/bin/busybox", busybox)
	applets, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's commands: %w", err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "bin/busybox" {
			a.Symlink(applet, "/bin/busybox")
		}
	}
	a.File("/etc/udhcpc/default.script", 0o755, []byte(udhcpcScript))
	a.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n"))
	a.File("/etc/group", 0o644, []byte("root:x:0:\n"))
	a.Dir("/var/run")
	if err := addModules(&a, k); err != nil {
		return nil, err
	}
	return a.Bytes()
}

// addModules packs the modules, the order in which the agent loads the first
// of them, and the indexes by which busybox's modprobe finds the others.
func addModules(a *initrd.Archive, k kernel) error {
	found, err := findModules(k.dir)
	if err != nil {
		return err
	}
	boot, err := found.order(bootModules...)
	if err != nil {
		return err
	}
	all, err := found.order(append(bootModules, spareModules...)...)
	if err != nil {
		return err
	}
	dir := path.Join("/lib/modules", k.release)
	file := func(name string) string { return filepath.Base(found.path[name]) }
	var index, aliases, list strings.Builder
	for _, name := range all {
		a.Copy(path.Join(dir, file(name)), found.path[name])
		needs, err := found.order(name)
		if err != nil {
			return err
		}
		// The index lists what a module needs, the nearest first.
		fmt.Fprintf(&index, "%s:", file(name))
		for i := len(needs) - 2; i >= 0; i-- {
			fmt.Fprintf(&index, " %s", file(needs[i]))
		}
		fmt.Fprintln(&index)
		facts, err := found.read(name)
		if err != nil {
			return err
		}
		for _, alias := range facts.aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", alias, name)
		}
	}
	for _, name := range boot {
		fmt.Fprintln(&list, path.Join(dir, file(name)))
	}
	a.File(path.Join(dir, "modules.dep"), 0o644, []byte(index.String()))
	a.File(path.Join(dir, "modules.alias"), 0o644, []byte(aliases.String()))
	a.File("/etc/boot-modules", 0o644, []byte(list.String()))
	return nil
}
