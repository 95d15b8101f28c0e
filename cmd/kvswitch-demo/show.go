package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

const (
	macOne = "52:54:00:00:00:01"
	macTwo = "52:54:00:00:00:02"
	// payloadMiB is what goes over TCP.
	payloadMiB = 64
)

// show is the demonstration.
func show(tb netns.TB, program string, out io.Writer) {
	began := time.Now()
	step := stepper(out)

	step("Two hosts, a and b, with a cable between their cards eth0")
	lab := netns.New(tb)
	hostA, hostB := lab.Host("a"), lab.Host("b")
	lab.Cable(hostA, "eth0", hostB, "eth0")
	a := newSite(tb, out, "a", hostA, program)
	b := newSite(tb, out, "b", hostB, program)
	fmt.Fprintf(out, "    a is network namespace %s, b is %s\n", hostA.Name(), hostB.Name())

	step("A switch on each, with the card and the host itself on it")
	for _, s := range []*site{a, b} {
		s.start("kvswitch run --uplink eth0")
		s.await("the switch on "+s.name+" answers", "kvs0", "show")
	}
	a.run("ip addr add 192.0.2.1/24 dev kvs0")
	b.run("ip addr add 192.0.2.2/24 dev kvs0")
	for _, s := range []*site{a, b} {
		s.await("the uplink of "+s.name+" forwards", `"state": "forwarding"`, "port", "show", "eth0", "--json")
	}
	hostB.Reaches("192.0.2.1")
	b.run("ping -c 1 -q 192.0.2.1")

	step("DHCP on host a, for the whole segment")
	a.start("dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=kvs0 --bind-interfaces" +
		" --dhcp-range=192.0.2.100,192.0.2.199 --dhcp-leasefile=" + a.dir + "/leases --pid-file= --user=root --no-ping")

	step("A virtual machine on each: one by QEMU's script=, as with qemu-ifup; one on a tap that the switch made")
	one := a.guest("one", fmt.Sprintf("tap,id=n0,ifname=vm1,script=%[1]s/kvswitch-ifup,downscript=%[1]s/kvswitch-ifdown", a.dir), macOne)
	b.run("kvswitch port add tap:vm2")
	two := b.guest("two", "tap,id=n0,ifname=vm2,script=no,downscript=no", macTwo)
	one.AwaitBoot()
	two.AwaitBoot()

	step("The machines get addresses by DHCP: one from its own host's server, two across the cable")
	inGuest(out, "one", one, "udhcpc -i eth0 -n -q -t 30 -T 1")
	inGuest(out, "two", two, "udhcpc -i eth0 -n -q -t 30 -T 1")
	ipOne, ipTwo := one.Addr("eth0"), two.Addr("eth0")

	step("They ping each other, and the hosts")
	inGuest(out, "one", one, fmt.Sprintf("ping -c 3 -q %s", ipTwo))
	inGuest(out, "two", two, "ping -c 3 -q 192.0.2.1")
	b.run(fmt.Sprintf("ping -c 3 -q %s", ipOne))

	step(fmt.Sprintf("%d MiB over TCP, from one to two and back", payloadMiB))
	transfer(tb, out, "one", one, "two", two)
	transfer(tb, out, "two", two, "one", one)

	step("What the switches have seen")
	for _, s := range []*site{a, b} {
		ports := []string{"eth0", map[*site]string{a: "vm1", b: "vm2"}[s]}
		check(tb, s.run("kvswitch show"), append(ports, "kvs0")...)
		check(tb, s.run("kvswitch showmacs"), macOne, macTwo)
		check(tb, s.run("kvswitch stats"), ports...)
	}
	for _, s := range []*site{a, b} {
		fmt.Fprintf(out, "    %s\n", s.shortWay())
	}

	step("The machines go, and so do their ports")
	one.PowerOff()
	a.awaitGone("vm1")
	a.run("kvswitch show")
	for _, s := range []*site{a, b} {
		if n := s.host.ChecksumErrors(); n != 0 {
			tb.Fatalf("host %s has seen %d wrong checksums", s.name, n)
		}
	}
	fmt.Fprintf(out, "\nAll of it worked, in %v. Removing everything.\n", time.Since(began).Round(time.Second))
}

// stepper prints numbered headings.
func stepper(out io.Writer) func(string) {
	n := 0
	return func(what string) {
		n++
		fmt.Fprintf(out, "\n== %d. %s\n", n, what)
	}
}

// check fails the demonstration unless a verb's output has all of these.
func check(tb netns.TB, output string, words ...string) {
	for _, w := range words {
		if !strings.Contains(output, w) {
			tb.Fatalf("nothing about %s there", w)
		}
	}
}

// transfer moves random bytes from one guest to the other and compares digests.
func transfer(tb netns.TB, out io.Writer, fromName string, from *vm.Guest, toName string, to *vm.Guest) {
	inGuest(out, fromName, from, fmt.Sprintf("dd if=/dev/urandom of=/tmp/bytes bs=1M count=%d 2>/dev/null", payloadMiB))
	sent := inGuest(out, fromName, from, "sha256sum </tmp/bytes")
	inGuest(out, fromName, from, "httpd -p 80 -h /tmp")
	began := time.Now()
	received := inGuest(out, toName, to, fmt.Sprintf("wget -q -O - http://%s/bytes | sha256sum", from.Addr("eth0")))
	took := time.Since(began)
	if sent != received {
		tb.Fatalf("what %s received is not what %s sent", toName, fromName)
	}
	fmt.Fprintf(out, "    the same bytes, at %.0f Mbit/s between emulated machines\n",
		float64(payloadMiB<<20)*8/1e6/took.Seconds())
	from.Run("rm /tmp/bytes")
}
