package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/image"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

// nestedInit is the first process of the guest in the guest: it has no agent,
// so it does by itself what is asked of it, and says so on the console.
const nestedInit = `#!/bin/sh
mkdir -p /dev /proc /sys /tmp
mount -t devtmpfs none /dev; mount -t proc none /proc; mount -t sysfs none /sys
modprobe virtio_pci; modprobe virtio_net
say() { echo "$@" >/dev/ttyS0; }
say ready
while [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done
ip link set eth0 up
ip addr add 192.0.2.9/24 dev eth0
ping -c 3 -W 20 192.0.2.1 >/dev/null && say ping works
mkfifo /tmp/never
nc -l -p 5001 <>/tmp/never >/tmp/got 2>/dev/null
say got $(sha256sum </tmp/got)
until nc 192.0.2.1 5002 </tmp/got; do sleep 0.5; done 2>/dev/null
say sent
while :; do sleep 60; done
`

// hostArchive is what makes a guest a virtualization host: QEMU, the program,
// and the guest's guest.
func hostArchive(t *testing.T) string {
	t.Helper()
	img, err := image.Ensure(context.Background(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	var inner, outer initrd.Archive
	inner.File("/init", 0o755, []byte(nestedInit))
	added, err := inner.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(img.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	nested := append(base, make([]byte, -len(base)&3)...)

	outer.Copy("/usr/bin/kvswitch", program)
	// At its usual place, from which it finds its modules and firmware.
	outer.Program("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64")
	outer.Program("/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so", "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so")
	for _, f := range []string{"/usr/share/qemu/pvh.bin", "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/seabios/bios-256k.bin"} {
		outer.Copy(f, f)
	}
	outer.Copy("/guest/kernel", img.Kernel)
	outer.File("/guest/initrd", 0o644, append(nested, added...))
	data, err := outer.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(netns.Dir(t), "host.cpio")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVHostNetForReal runs the switch on the host it is for: Debian's cloud
// kernel with tun and vhost_net and without the bridge module. That host is a
// guest here, since this machine's own kernel may have no vhost_net; the
// machine that vm attach plugs a card into is a guest in it.
func TestVHostNetForReal(t *testing.T) {
	host := vm.Start(t, vm.Options{Name: "host", SMP: 2, MemMB: 3072, Initrd: []string{hostArchive(t)}})
	await := func(what string, patience time.Duration, command string) {
		t.Helper()
		netns.Await(t, patience, what, func() error {
			if out, err := host.Try(command); err != nil {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	t.Cleanup(func() {
		if t.Failed() { // and so the test's own context is over
			ctx, cancel := context.WithTimeout(context.Background(), verbPatience)
			defer cancel()
			out, _, err := host.Exec(ctx, "cat /tmp/kvswitch.log /tmp/qemu.log /tmp/console; cat /proc/net/dev; ps; dmesg | tail -n 20")
			t.Log(out, err)
		}
	})
	host.Run(`modprobe tun && modprobe vhost_net && ip link set lo up
		test ! -e /sys/module/bridge
		(kvswitch run --stp off </dev/null >/tmp/kvswitch.log 2>&1 &)
		(qemu-system-x86_64 -name inner -nodefaults -no-user-config -display none -accel tcg -cpu qemu64,+rdrand -m 256 \
			-kernel /guest/kernel -initrd /guest/initrd -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests" \
			-global virtio-net-pci.romfile= -serial file:/tmp/console -qmp unix:/tmp/qmp,server=on,wait=off </dev/null >/tmp/qemu.log 2>&1 &)`)
	await("the switch", time.Minute, "kvswitch show")
	host.Run("ip addr add 192.0.2.1/24 dev kvs0")
	var findings []struct{ Check, Status string }
	if out := host.Run("kvswitch doctor --json"); json.Unmarshal([]byte(out), &findings) != nil ||
		!slices.Contains(findings, struct{ Check, Status string }{"vhost-net", "ok"}) {
		t.Errorf("doctor does not find vhost_net: %s", out)
	}
	await("the inner guest", 5*time.Minute, "grep -q ready /tmp/console")

	var n vmDoc
	if out := host.Run("kvswitch vm attach --qmp /tmp/qmp --vhost on --json"); json.Unmarshal([]byte(out), &n) != nil || !n.VHost {
		t.Fatalf("vm attach: %s", out)
	}
	await("the inner guest's ping", time.Minute, "grep -q 'ping works' /tmp/console")
	var list []vmDoc
	if out := host.Run("kvswitch vm list --json"); json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || !list[0].VHost || list[0].Name != "inner" {
		t.Errorf("vm list: %s", out)
	}
	// The kernel's worker is a thread of its own, named after QEMU's id.
	host.Run(`ps | grep -F "[vhost-$(pidof qemu-system-x86_64)]"`)

	counters := func() (rx, tx int64) {
		t.Helper()
		out := host.Run(fmt.Sprintf("cd /sys/class/net/%s/statistics && cat rx_bytes tx_bytes", n.Port))
		if _, err := fmt.Sscan(out, &rx, &tx); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		return rx, tx
	}
	rx, tx := counters()
	sent := strings.Fields(host.Run(`head -c 1048576 /dev/urandom >/tmp/data
		for i in 1 2 3 4 5 6 7 8 9; do nc 192.0.2.9 5001 </tmp/data 2>/dev/null && sha256sum </tmp/data && exit; sleep 0.5; done; exit 1`))[0]
	await("the file to arrive", time.Minute, "grep -q '^got "+sent+"' /tmp/console")
	host.Run("mkfifo /tmp/never; timeout 60 nc -l -p 5002 <>/tmp/never >/tmp/back")
	if back := strings.Fields(host.Run("sha256sum </tmp/back"))[0]; back != sent {
		t.Errorf("came back with SHA-256 %s, sent %s", back, sent)
	}
	if rx2, tx2 := counters(); rx2-rx < 1<<20 || tx2-tx < 1<<20 {
		t.Errorf("the tap counted %d bytes in and %d out of 1 MiB each way", rx2-rx, tx2-tx)
	}

	host.Run("kill -9 $(pidof qemu-system-x86_64)")
	await("the port to go", time.Minute, "test ! -e /sys/class/net/"+n.Port+" && ! kvswitch port show "+n.Port+" 2>/dev/null")
	if out := host.Run("kvswitch vm list --json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("vm list after the machine's end: %s", out)
	}
}
