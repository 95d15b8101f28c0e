package netdev

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
)

// shielded fails the test unless a ping to an address on the port's device goes
// unanswered although the port receives it, ARP request or echo.
func shielded(t *testing.T, p *Port, far *netns.Host) {
	t.Helper()
	seen := 0
	done := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		defer close(done)
		result <- far.Ping("192.0.2.1")
	}()
	for pinging := true; pinging; {
		select {
		case <-done:
			pinging = false
		default:
		}
		for _, g := range take(p) {
			if ethertype := uint16(g.data[12])<<8 | uint16(g.data[13]); ethertype == frame.EtherTypeARP || ethertype == frame.EtherTypeIPv4 {
				seen++
			}
		}
	}
	if <-result == nil {
		t.Error("the host's stack answers on the port's device")
	}
	if seen == 0 {
		t.Error("the port saw nothing of the ping")
	}
}

func TestHostsStackTakesNoPartWhileTheDeviceIsAPort(t *testing.T) {
	eachWay(t, testHostsStackTakesNoPartWhileTheDeviceIsAPort)
}

func testHostsStackTakesNoPartWhileTheDeviceIsAPort(t *testing.T) {
	sw, far := cable(t)
	sw.Addr("port", "192.0.2.1/24")
	far.Addr("eth0", "192.0.2.2/24")
	far.Reaches("192.0.2.1")
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	if d := p.Detail().(Detail); d.Shield != shieldTCX && d.Shield != shieldClsact {
		t.Errorf("shield %q", d.Shield)
	}
	shielded(t, p, far)
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], "can't be reached at 192.0.2.1/24") {
		t.Errorf("warnings %q, want the one about the address", w)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	far.Reaches("192.0.2.1")
}

func shieldWithClsact(t *testing.T, w *link.Watcher, index int) (s shield) {
	t.Helper()
	var err error
	w.Do(func() {
		var program *ebpf.Program
		if program, err = shieldProgram(nil); err == nil {
			defer program.Close()
			s, err = attachClsact(w.Handle(), inMemory, index, program)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestShieldByClsactIsAsGoodAndLeavesNothing(t *testing.T) {
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprint("clsact there already ", existing), func(t *testing.T) {
			sw, far := cable(t)
			sw.Addr("port", "192.0.2.1/24")
			far.Addr("eth0", "192.0.2.2/24")
			if existing {
				sw.Run("tc", "qdisc", "add", "dev", "port", "clsact")
			}
			before := sw.Run("tc", "qdisc", "show", "dev", "port")
			w := watcherOf(t, sw)
			index := sw.Index("port")
			s := shieldWithClsact(t, w, index)
			if s.kind != shieldClsact {
				t.Errorf("shield %q", s.kind)
			}
			if err := far.Ping("192.0.2.1"); err == nil {
				t.Error("the host's stack answers")
			}
			if out := sw.Run("tc", "filter", "show", "dev", "port", "ingress"); !strings.Contains(out, shieldName) {
				t.Errorf("tc shows %s", out)
			}
			w.Do(s.remove)
			far.Reaches("192.0.2.1")
			if after := sw.Run("tc", "qdisc", "show", "dev", "port"); after != before {
				t.Errorf("queueing disciplines before: %s; after: %s", before, after)
			}
			if out := sw.Run("tc", "filter", "show", "dev", "port", "ingress"); out != "" {
				t.Errorf("filters left: %s", out)
			}
		})
	}
}

func TestOpenRemovesTheFilterThatACrashLeft(t *testing.T) {
	sw, far := cable(t)
	sw.Addr("port", "192.0.2.1/24")
	far.Addr("eth0", "192.0.2.2/24")
	w := watcherOf(t, sw)
	shieldWithClsact(t, w, sw.Index("port"))
	p, err := Open("port", Options{Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	far.Reaches("192.0.2.1")
}

func TestOpenWithoutBPFWarnsAndWorks(t *testing.T) {
	sw, far := cable(t)
	w := watcherOf(t, sw)
	w.Do(func() { dropCapabilities(t, unix.CAP_BPF, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN) })
	p, err := Open("port", Options{Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if d := p.Detail().(Detail); d.Shield != shieldNone {
		t.Errorf("shield %q", d.Shield)
	}
	all := strings.Join(p.Warnings(), "\n")
	if !strings.Contains(all, "port: can't shield the host's stack") || !strings.Contains(all, "may answer ARP") || !strings.Contains(all, "CAP_BPF") {
		t.Errorf("warnings %q", all)
	}
	for _, warning := range p.Warnings() {
		if strings.Contains(warning, "\n") {
			t.Errorf("more than one line: %q", warning)
		}
	}
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, p, "up", up)
	station := far.Station("eth0")
	roundTrip(t, p, station, 1)
	station.Send(bpdu(0))
	receive(t, p, 1)
}

func TestHostDoesNotAnnounceItselfOnAPort(t *testing.T) {
	sw, _ := cable(t)
	linkLocal := func() bool { return strings.Contains(sw.Run("ip", "-6", "addr", "show", "dev", "port"), "fe80::") }
	sw.Down("port")
	for key, value := range map[string]string{"disable_ipv6": "0", "addr_gen_mode": "0"} {
		sw.Sysctl("net/ipv6/conf/port/"+key, value)
	}
	p := openOn(t, sw, "port", Options{Up: true})
	awaitState(t, p, "up", up)
	// The kernel makes the address in the very call that sets the device up.
	if linkLocal() {
		t.Error("the port's device has a link-local address")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	netns.Await(t, 10*time.Second, "the address that was kept off", func() error {
		if !linkLocal() {
			return errors.New("no link-local address")
		}
		return nil
	})
	// An address that is there already stays.
	sw.Run("ip", "addr", "add", "fd00::1/64", "dev", "port", "nodad")
	p = openOn(t, sw, "port", Options{})
	p.Close()
	if out := sw.Run("ip", "-6", "addr", "show", "dev", "port"); !strings.Contains(out, "fd00::1") {
		t.Errorf("a static address is gone: %s", out)
	}
	mode, err := readSysctl(sw, "net/ipv6/conf/port/addr_gen_mode")
	if err != nil || mode != "0" {
		t.Errorf("addr_gen_mode is %q afterwards, %v", mode, err)
	}
}

// In a container /proc/sys is read-only as a rule; netlink does it, too.
func TestAddressGenerationIsSetByNetlinkWhereProcCannotBeWritten(t *testing.T) {
	sw, _ := cable(t)
	sw.Sysctl("net/ipv6/conf/port/addr_gen_mode", "0")
	w := watcherOf(t, sw)
	unwritable := link.Link{Name: "no-such-name", Index: sw.Index("port")}
	for _, mode := range []int{addrGenNone, 0} {
		var err error
		w.Do(func() { err = setAddrGen(w.Handle(), unwritable, mode) })
		if got, readErr := readSysctl(sw, "net/ipv6/conf/port/addr_gen_mode"); err != nil || readErr != nil || got != fmt.Sprint(mode) {
			t.Errorf("mode %q, want %d: %v, %v", got, mode, err, readErr)
		}
	}
	w.Do(func() {
		if err := setAddrGen(w.Handle(), link.Link{Name: "no-such-name", Index: 1 << 20}, 0); err == nil {
			t.Error("set on a device that does not exist")
		}
	})
}

// inMemory is what a port without a Store remembers.
func inMemory(_, now, ours string) string {
	if now == ours {
		return ""
	}
	return now
}

func readSysctl(h *netns.Host, key string) (value string, err error) {
	err = h.Do(func() error {
		b, err := os.ReadFile("/proc/sys/" + key)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

func TestAnAddressLeftOnTheDeviceIsWarnedOf(t *testing.T) {
	sw, _ := cable(t)
	if w := openOn(t, sw, "port", Options{}).Warnings(); len(w) != 0 {
		t.Fatalf("warnings %q of a device without an address", w)
	}
	sw.Run("ip", "link", "add", "addressed", "type", "veth", "peer", "name", "peer")
	sw.Addr("addressed", "192.0.2.7/24")
	w := strings.Join(openOn(t, sw, "addressed", Options{}).Warnings(), "\n")
	if !strings.Contains(w, "192.0.2.7/24") || strings.Contains(w, "\n") {
		t.Errorf("warnings %q, want one about 192.0.2.7/24", w)
	}
}
