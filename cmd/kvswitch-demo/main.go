// Command kvswitch-demo shows what the switch is for: two hosts, a cable between
// them, on each a running kvswitch and a real virtual machine. The machines get
// addresses by DHCP across the switches, ping each other and move 64 MiB over
// TCP. `make demo` runs it.
//
// The hosts are network namespaces; everything is removed at the end, also after
// a failure or Ctrl-C. It exits with status 1 if anything did not work.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
	"github.com/kvswitch/kvswitch/switch/porttest/vm"
)

func main() {
	program := flag.String("kvswitch", "./kvswitch", "the kvswitch binary")
	flag.Parse()
	path, err := filepath.Abs(*program)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kvswitch-demo: %v: build it with `make build`\n", err)
		os.Exit(1)
	}
	start := time.Now()
	if err := netlab.Program("demo", os.Stderr, func(tb netlab.TB) { demo(tb, path, os.Stdout) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("\nDone in %.0f s. Nothing is left of it.\n", time.Since(start).Seconds())
}

// site is one of the two hosts.
type site struct {
	tb      netlab.TB
	out     io.Writer
	label   string
	host    *netlab.Host
	program string
	runDir  string
	guest   *vm.Guest
	ip      string
}

const (
	dhcpServer = "192.0.2.1"
	transfer   = 64 << 20
)

func demo(tb netlab.TB, program string, out io.Writer) {
	lab := netlab.New(tb)
	say(out, "Two hosts, joined by a cable: eth0 of host A to eth0 of host B.")
	var sites [2]*site
	for i, label := range []string{"A", "B"} {
		sites[i] = &site{tb: tb, out: out, label: label, host: lab.Host(label), program: program, runDir: netlab.Dir(tb)}
	}
	a, b := sites[0], sites[1]
	lab.Cable(a.host, "eth0", b.host, "eth0")

	say(out, "On each host a switch, with its NIC as the uplink. kvs0 is also the host's own interface.")
	for _, s := range sites {
		s.host.Up("eth0")
		s.startSwitch()
	}

	say(out, "On each host a virtual machine (QEMU, Debian's kernel), attached as QEMU users always did: script=.")
	for i, s := range sites {
		s.startGuest(fmt.Sprintf("52:54:00:00:00:%02x", 0xa+i))
	}
	for _, s := range sites {
		s.guest.AwaitBoot()
		fmt.Fprintf(out, "  the guest on host %s has booted\n", s.label)
	}

	say(out, "A DHCP server on host A's own interface, "+dhcpServer+". Both guests ask for an address.")
	a.host.Addr("kvs0", dhcpServer+"/24")
	a.host.Start(exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--no-ping",
		"--interface=kvs0", "--bind-interfaces", "--dhcp-authoritative", "--leasefile-ro", "--pid-file=",
		"--dhcp-range=192.0.2.100,192.0.2.150,1h"))
	for _, s := range sites {
		s.ip = s.guest.Lease("eth0").String()
		fmt.Fprintf(out, "  the guest on host %s is %s\n", s.label, s.ip)
	}

	say(out, "The guests ping each other, through two switches and the cable.")
	for i, s := range sites {
		text := s.guest.Run("ping -c 3 -i 0.2 -W 5 " + sites[1-i].ip)
		for line := range strings.Lines(text) {
			if strings.Contains(line, "bytes from") || strings.Contains(line, "received") {
				fmt.Fprintf(out, "  host %s guest: %s", s.label, line)
			}
		}
	}

	say(out, "64 MiB over TCP from the guest on A to the guest on B, with the guests' default offloads.")
	sendFile(tb, out, a.guest, b.guest, b.ip)

	for _, s := range sites {
		say(out, "What the switch on host "+s.label+" says:")
		s.show("show")
		s.show("showmacs")
	}
}

// say begins a step.
func say(out io.Writer, text string) { fmt.Fprintf(out, "\n== %s\n", text) }

// environment makes verbs find this site's switch.
func (s *site) environment() []string { return append(os.Environ(), "KVSWITCH_RUN_DIR="+s.runDir) }

func (s *site) startSwitch() {
	fmt.Fprintf(s.out, "  host-%s# kvswitch run --uplink eth0\n", strings.ToLower(s.label))
	cmd := exec.Command(s.program, "run", "--uplink", "eth0")
	cmd.Env = s.environment()
	p := s.host.Start(cmd)
	s.tb.Cleanup(func() {
		if err := p.Stop(5 * time.Second); err != nil {
			s.tb.Errorf("stop kvswitch on host %s: %v", s.label, err)
		}
	})
	netlab.Await(s.tb, 10*time.Second, "kvswitch on host "+s.label+" is ready", func() error {
		_, err := s.verb("show")
		return err
	})
	netlab.Await(s.tb, 20*time.Second, "the uplink of host "+s.label+" forwards", func() error {
		text, err := s.verb("port", "show", "eth0")
		if err == nil && !strings.Contains(text, "forwarding") {
			err = fmt.Errorf("it says %s", text)
		}
		return err
	})
}

// startGuest starts QEMU, which makes the tap and calls kvswitch-ifup with it.
func (s *site) startGuest(mac string) {
	ifup := filepath.Join(s.runDir, "kvswitch-ifup")
	ifdown := filepath.Join(s.runDir, "kvswitch-ifdown")
	for _, name := range []string{ifup, ifdown} {
		// QEMU's environment is not ours to choose, so the run directory goes here.
		script := fmt.Sprintf("#!/bin/sh\nKVSWITCH_RUN_DIR=%s exec %s %s \"$@\"\n", s.runDir, s.program, strings.TrimPrefix(filepath.Base(name), "kvswitch-"))
		if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
			s.tb.Fatalf("write %s: %v", name, err)
		}
	}
	fmt.Fprintf(s.out, "  host-%s# qemu-system-x86_64 … -netdev tap,id=n0,script=kvswitch-ifup,downscript=kvswitch-ifdown -device virtio-net-pci,netdev=n0,mac=%s\n",
		strings.ToLower(s.label), mac)
	s.guest = vm.Launch(s.tb, vm.Options{Name: "guest " + s.label, Host: s.host, Net: []string{
		"-netdev", "tap,id=n0,script=" + ifup + ",downscript=" + ifdown,
		"-device", "virtio-net-pci,netdev=n0,mac=" + mac,
	}})
}

// verb runs a kvswitch verb and returns what it printed.
func (s *site) verb(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.tb.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = s.environment()
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kvswitch %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return string(text), nil
}

func (s *site) show(verb string) {
	text, err := s.verb(verb)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	fmt.Fprintf(s.out, "host-%s# kvswitch %s\n%s", strings.ToLower(s.label), verb, text)
}

// sendFile moves random bytes between guests and compares what left with what
// arrived.
func sendFile(tb netlab.TB, out io.Writer, from, to *vm.Guest, addr string) {
	// Standard input never ends: nc would close its half of the connection.
	to.Run("mkfifo /tmp/never && (busybox nc -l -p 5001 <>/tmp/never >/tmp/got 2>/dev/null &)")
	want := from.Run(fmt.Sprintf("head -c %d /dev/urandom >/tmp/data && sha256sum </tmp/data", transfer))
	netlab.Await(tb, 10*time.Second, "the receiver listens", func() error {
		_, err := to.Try("netstat -ltn | grep :5001")
		return err
	})
	start := time.Now()
	from.Run("busybox nc " + addr + " 5001 </tmp/data")
	var took time.Duration
	netlab.Await(tb, 3*time.Minute, "every byte arrives", func() error {
		size := strings.TrimSpace(to.Run("wc -c </tmp/got"))
		took = time.Since(start)
		if size != fmt.Sprint(transfer) {
			return fmt.Errorf("%s of %d bytes", size, transfer)
		}
		return nil
	})
	if got := to.Run("sha256sum </tmp/got"); got != want {
		tb.Fatalf("SHA-256 is %s, sent was %s", got, want)
	}
	fmt.Fprintf(out, "  64 MiB in %.1f s (emulated guests), SHA-256 %s… at both ends\n", took.Seconds(), want[:16])
}
