package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/image"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/initrd"
)

// TestNetdevPortOnTheGuestsKernel runs the switch on the kernel that guests boot,
// which is another one than this machine's. Debian 12's, 6.1, lacks what to
// receive by BPF takes: there netdev ports have packet rings, and say why.
func TestNetdevPortOnTheGuestsKernel(t *testing.T) {
	img, err := image.Ensure(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(img.Release, "%d.%d.", &major, &minor); err != nil {
		t.Fatalf("kernel %s: %v", img.Release, err)
	}
	receive, why, status, shield := "bpf", "", "ok", "tcx"
	if major == 6 && minor < 6 {
		shield = "clsact"
	}
	if major == 6 && minor < 2 {
		receive, why, status = "packet-mmap", "find kernel function bpf_cast_to_kern_ctx: not found", "warn"
	}
	var added initrd.Archive
	added.Copy("/usr/bin/kvswitch", program)
	data, err := added.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(netns.Dir(t), "kvswitch.cpio")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	g := vm.Start(t, vm.Options{SMP: 2, MemMB: 512, Initrd: []string{path}})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(g.Console())
		}
	})
	// The far host is a network namespace of the guest, behind a veth pair.
	g.Run(`modprobe veth && modprobe tun && ip link set lo up && ip link add port type veth
		(unshare -n sleep 100000 </dev/null >/dev/null 2>&1 & echo $! >/tmp/far)
		sleep 1 && ip link set veth0 netns $(cat /tmp/far) && ip link set port up
		nsenter -t $(cat /tmp/far) -n sh -c 'ip link set veth0 up && ip addr add 192.0.2.2/24 dev veth0'
		(kvswitch run --stp off --port netdev:port </dev/null >/tmp/kvswitch.log 2>&1 &)`)
	netns.Await(t, startPatience, "the switch", func() error {
		if out, err := g.Try("kvswitch port show port --json || cat /tmp/kvswitch.log"); err != nil || !strings.Contains(out, `"link": "up"`) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	var port struct {
		Detail struct {
			Receive, Shield string
			NotBPF          string `json:"not_bpf"`
		}
	}
	if out := g.Run("kvswitch port show port --json"); json.Unmarshal([]byte(out), &port) != nil ||
		port.Detail.Receive != receive || port.Detail.NotBPF != why || port.Detail.Shield != shield {
		t.Errorf("Linux %s: want %s, %q and %s; port show: %s", img.Release, receive, why, shield, out)
	}
	var findings []struct{ Check, Status, Text string }
	out := g.Run("kvswitch doctor --json")
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("doctor: %v: %s", err, out)
	}
	seen := false
	for _, f := range findings {
		if f.Check == "bpf receive" {
			seen = f.Status == status && strings.Contains(f.Text, why)
		}
	}
	if !seen {
		t.Errorf("doctor, want %s, %q: %s", status, why, out)
	}

	// Unfinished checksums and segments to be made pass both ways.
	g.Run("ip addr add 192.0.2.1/24 dev kvs0 && ping -c 3 192.0.2.2")
	g.Run("head -c 2097152 /dev/urandom >/tmp/data")
	for _, way := range []struct{ from, to, address string }{
		{"", "nsenter -t $(cat /tmp/far) -n", "192.0.2.2"},
		{"nsenter -t $(cat /tmp/far) -n", "", "192.0.2.1"},
	} {
		g.Run(fmt.Sprintf(`rm -f /tmp/got /tmp/never && mkfifo /tmp/never
			(%s timeout 60 nc -l -p 5001 <>/tmp/never >/tmp/got 2>/dev/null; echo >/tmp/done) &
			for i in 1 2 3 4 5 6 7 8 9; do %s nc %s 5001 </tmp/data 2>/dev/null && break; sleep 0.5; done`, way.to, way.from, way.address))
		netns.Await(t, 60*time.Second, "the file at "+way.address, func() error {
			out, err := g.Try("cmp /tmp/data /tmp/got")
			if err != nil {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
}
