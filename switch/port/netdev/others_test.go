package netdev

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// Verdicts of tcx programs.
const (
	tcxNext = -1
)

// counting hangs a program on a device's tcx ingress, as others do, that counts
// frames and has one verdict.
func counting(t *testing.T, h *netns.Host, device string, verdict int32, at link.Anchor) (count func() uint64) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		netns.Need(t, "BPF", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "others_program", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, verdict).WithSymbol("end"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var l link.Link
	if err := h.Do(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: h.Index(device), Program: program, Attach: ebpf.AttachTCXIngress, Anchor: at})
		return err
	}); err != nil {
		netns.Need(t, "tcx (Linux 6.6)", err)
	}
	t.Cleanup(func() { l.Close(); program.Close(); m.Close() })
	return func() (n uint64) {
		if err := m.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func TestTCXProgramsOfOthersRunBeforeTheSwitchWheneverTheyWereAttached(t *testing.T) {
	eachWay(t, testTCXProgramsOfOthersRunBeforeTheSwitch)
}

func testTCXProgramsOfOthersRunBeforeTheSwitch(t *testing.T) {
	sw, far := cable(t)
	first := counting(t, sw, "port", tcxNext, nil)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	second := counting(t, sw, "port", tcxNext, nil) // at the end, behind ours
	warned := func() string { return strings.Join(p.Warnings(), "\n") }
	netns.Await(t, 20*time.Second, "both run before the switch", func() error {
		if w := warned(); strings.Count(w, "others_program) runs before the switch") != 2 {
			return errors.New(w)
		}
		return nil
	})
	a, b := first(), second()
	const n = 20
	station := far.Station("eth0")
	for i := range n {
		station.Send(mem.Ethernet(frame.Broadcast, mem.MAC(1), fmt.Sprint("frame ", i)))
	}
	receive(t, p, n)
	if a, b = first()-a, second()-b; a < n || b < n {
		t.Errorf("of %d frames the program that was there first saw %d, the one that came later %d", n, a, b)
	}
	roundTrip(t, p, station, 1)
}

func TestFiltersThatDoNotRunAreNamed(t *testing.T) {
	sw, far := cable(t)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	awaitWarning := func(what, text string, there bool) {
		t.Helper()
		netns.Await(t, 10*time.Second, what, func() error {
			if w := strings.Join(p.Warnings(), "\n"); strings.Contains(w, text) != there {
				return errors.New(w)
			}
			return nil
		})
	}
	// As virsh domiftune and many scripts do.
	if out, err := sw.Try("tc", "qdisc", "add", "dev", "port", "ingress"); err != nil {
		t.Fatalf("the port keeps others from the ingress qdisc: %s", out)
	}
	sw.Run("ip", "link", "add", "elsewhere", "type", "veth", "peer", "name", "elsewhere-far")
	var kind string
	for _, filter := range [][]string{
		{"u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "elsewhere"},
		{"u32", "match", "u32", "0", "0"}, {"matchall"}, {"flower"}, {"basic"},
	} {
		if _, err := sw.Try(append([]string{"tc", "filter", "add", "dev", "port", "parent", "ffff:", "pref", "7", "protocol", "all"}, filter...)...); err == nil {
			kind = "a " + filter[0] + " filter (pref 7"
			if len(filter) > 6 {
				kind += ", redirects to elsewhere"
			}
			break
		}
	}
	if kind == "" {
		netns.Need(t, "filters of tc (u32, matchall, flower)", errors.New("no such"))
	}
	awaitWarning("a warning of the filter", kind+") at its ingress: tc's filters don't run", true)
	sw.Run("tc", "qdisc", "del", "dev", "port", "ingress")
	awaitWarning("the warning goes with it", "at its ingress", false)
	if d := p.Detail().(Detail); d.Shield != shieldTCX {
		t.Skipf("the shield hangs on %s", d.Shield)
	}
	roundTrip(t, p, far.Station("eth0"), 1)
}

func TestNetdevChainsAreReadAsNftablesTellsThem(t *testing.T) {
	chain := func(hook uint32, devices ...string) []byte {
		h := nl.NewRtAttr(nftChainHook|unix.NLA_F_NESTED, nil)
		h.AddRtAttr(nftHookNumber, []byte{0, 0, 0, byte(hook)})
		h.AddRtAttr(2, []byte{0, 0, 0, 0}) // its priority
		if len(devices) == 1 {
			h.AddRtAttr(nftHookDevice, nl.ZeroTerminated(devices[0]))
		} else {
			list := h.AddRtAttr(nftHookDevices|unix.NLA_F_NESTED, nil)
			for _, d := range devices {
				list.AddRtAttr(1, nl.ZeroTerminated(d))
			}
		}
		b := (&nl.Nfgenmsg{NfgenFamily: nfProtoNetdev}).Serialize()
		b = append(b, nl.NewRtAttr(nftChainTable, nl.ZeroTerminated("filter")).Serialize()...)
		b = append(b, nl.NewRtAttr(nftChainName, nl.ZeroTerminated("in")).Serialize()...)
		return append(b, h.Serialize()...)
	}
	for _, c := range []struct {
		what string
		msg  []byte
		on   bool
	}{
		{"one device", chain(0, "eth0"), true},
		{"several", chain(0, "eth1", "eth0"), true},
		{"another device", chain(0, "eth00"), false},
		{"egress", chain(1, "eth0"), false},
		{"nothing", nil, false},
		{"cut off", chain(0, "eth0")[:9], false},
	} {
		name, on := chainOn(c.msg, "eth0")
		if on != c.on || on && name != "chain in of table netdev filter" {
			t.Errorf("%s: %q, %v", c.what, name, on)
		}
	}
}
