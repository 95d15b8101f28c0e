package netdev

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A packet socket sees every frame, and then the host's own stack gets it, too:
// it would answer ARP, forward, reset connections. The shield is a BPF program at
// the device's tc ingress hook, behind the rings' sockets and before the stack.
// It drops everything but untagged 802.2 frames, which the control socket waits
// for further on, and with which IP has nothing to do, and what is the host's own
// business on an uplink: linklocal.go.
//
// By tcx (Linux 6.6) it hangs on a descriptor and is gone when the process is,
// however it ends. By clsact it is a filter that stays; Close removes it, and
// the next Open one that a crash left.

// shieldName is the filter's name, as tc shows it. Either program hangs under it.
const shieldName = "kvswitch_shield"

// shieldKind says how a shield is attached, in words of Detail.
type shieldKind string

const (
	shieldNone   shieldKind = "none"
	shieldTCX    shieldKind = "tcx"
	shieldClsact shieldKind = "clsact"
)

// shield is an attached program.
type shield struct {
	kind   shieldKind
	tcx    *tcx // nil if it is not attached so
	remove func()
}

// newShield shields the host's stack from device index by a program that load
// makes. The caller's thread must be in the device's network namespace, as nl
// must be.
func newShield(nl *netlink.Handle, keep keeping, index int, load func() (*ebpf.Program, error)) (shield, error) {
	removeFilters(nl, index) // of a process that could not
	program, err := load()
	if err != nil {
		return shield{kind: shieldNone}, err
	}
	defer program.Close() // the attachment keeps it
	s, err := attachTCX(index, program)
	if err == nil {
		return s, nil
	}
	s, clsactErr := attachClsact(nl, keep, index, program)
	if clsactErr != nil {
		return shield{kind: shieldNone}, fmt.Errorf("%w; %w", err, clsactErr)
	}
	return s, nil
}

// attachTCX hangs the program behind all that are there.
func attachTCX(index int, program *ebpf.Program) (shield, error) {
	t, err := hangTCX(index, program, link.Tail())
	if err != nil {
		return shield{}, err
	}
	return shield{kind: shieldTCX, tcx: t, remove: func() { t.link.Close() }}, nil
}

func attachClsact(nl *netlink.Handle, keep keeping, index int, program *ebpf.Program) (shield, error) {
	there := hasClsact(nl, index)
	added := keep(settingClsact, upText(there), upText(true)) != ""
	if !there {
		if err := nl.QdiscAdd(clsact(index)); err != nil && !errors.Is(err, unix.EEXIST) {
			return shield{}, fmt.Errorf("add clsact: %w", err)
		}
	}
	s := shield{kind: shieldClsact, remove: func() {
		removeFilters(nl, index)
		if added {
			dropClsact(nl, index)
		}
	}}
	if err := nl.FilterAdd(shieldFilter(index, program.FD())); err != nil {
		s.remove()
		return shield{}, fmt.Errorf("add ingress filter: %w", err)
	}
	return s, nil
}

// The plain program is C, as intakes' is: bpf/shield.bpf.c. It uses nothing of
// BPF that every kernel with packet rings has not.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel shield bpf/shield.bpf.c -- -Wall -Werror

func shieldProgram(uplink *ebpf.Map) (*ebpf.Program, error) {
	_ = rlimit.RemoveMemlock() // Linux before 5.11 counts BPF as locked memory
	var p shieldPrograms
	var o ebpf.CollectionOptions
	if uplink != nil {
		o.MapReplacements = map[string]*ebpf.Map{uplinkMap: uplink}
	}
	if err := loadShieldObjects(&p, &o); err != nil {
		return nil, loadError(err, ": needs root or CAP_BPF and CAP_NET_ADMIN")
	}
	return p.KvswitchShield, nil
}

// hasClsact reports whether the device has the qdisc that filters hang on.
func hasClsact(nl *netlink.Handle, index int) bool {
	list, err := nl.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	return err == nil && slices.ContainsFunc(list, func(q netlink.Qdisc) bool { return q.Type() == "clsact" })
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

func shieldFilter(index, program int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
			Protocol: unix.ETH_P_ALL, Priority: 1,
		},
		Fd: program, Name: shieldName, DirectAction: true,
	}
}

// removeFilters removes the shield's filters from the device, if there are any.
func removeFilters(nl *netlink.Handle, index int) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := nl.FilterList(device, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return // no clsact
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == shieldName {
			_ = nl.FilterDel(b)
		}
	}
}
