package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The hook that the shield hangs on is not ours alone. tcx programs of others run
// before it, whenever they were attached: it moves behind them. What comes after
// tcx — tc's filters, nftables' netdev chains — doesn't run on a port, for the
// shield ends the way there: that is told, and so is what can go wrong with the
// programs before it.

// tcx is a program that hangs on tcx. Only the Watcher's goroutine uses it, until
// the port lets go of it.
type tcx struct {
	index int
	link  link.Link
	id    link.ID
}

func hangTCX(index int, program *ebpf.Program, at link.Anchor) (*tcx, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: at})
	if err != nil {
		return nil, err
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("look at BPF program's link: %w", err)
	}
	return &tcx{index, l, info.ID}, nil
}

// around lists the programs that run before ours and those that never run for
// they hang behind it.
func (t *tcx) around() (own ebpf.ProgramID, before, behind []ebpf.ProgramID) {
	q, err := link.QueryPrograms(link.QueryOptions{Target: t.index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return 0, nil, nil
	}
	for _, p := range q.Programs {
		id, _ := p.LinkID()
		switch {
		case id == t.id:
			own = p.ID
		case own == 0:
			before = append(before, p.ID)
		default:
			behind = append(behind, p.ID)
		}
	}
	return own, before, behind
}

// moveLast hangs our program behind all others. A plain shield takes its place for
// the moment, since one program can't hang there twice: frames are lost meanwhile,
// but none gets past the switch.
func (t *tcx) moveLast(own ebpf.ProgramID) error {
	program, err := ebpf.NewProgramFromID(own)
	if err != nil {
		return fmt.Errorf("find own BPF program: %w", err)
	}
	defer program.Close()
	plain, err := shieldProgram(nil)
	if err != nil {
		return err
	}
	defer plain.Close()
	shield, err := hangTCX(t.index, plain, link.Tail())
	if err != nil {
		return err
	}
	defer shield.link.Close()
	t.link.Close()
	moved, err := hangTCX(t.index, program, link.BeforeLink(shield.link))
	if err != nil {
		// Anywhere is better than nowhere.
		if moved, err = hangTCX(t.index, program, link.Head()); err != nil {
			return err
		}
	}
	*t = *moved
	return nil
}

// checkOthers finds who else uses the device's ingress hooks, makes room for them,
// and reports whether what there is to warn of has changed. Filters and chains are
// looked at only if all is set: that costs more.
func (p *Port) checkOthers(all bool) bool {
	a := p.at
	var list []string
	if t := a.shield.tcx; t != nil {
		own, before, behind := t.around()
		if len(behind) > 0 && own != 0 && t.moveLast(own) == nil {
			_, before, behind = t.around()
		}
		for _, id := range before {
			list = append(list, fmt.Sprintf("%s runs before the switch: frames that it lets pass to the host (TC_ACT_OK, not TCX_NEXT) don't come to the switch", programName(id)))
		}
		for _, id := range behind {
			list = append(list, fmt.Sprintf("%s hangs behind the switch's program and doesn't run", programName(id)))
		}
	}
	same := slices.Equal(list, a.programs)
	a.programs = list
	if !all || a.shield.kind == shieldNone {
		return !same
	}
	list = nil
	if filters := p.classicFilters(a.index); len(filters) > 0 {
		list = append(list, fmt.Sprintf("%s at its ingress: tc's filters don't run while the interface is a port", enumerate(filters)))
	}
	if chains := ingressChains(p.link.Name); len(chains) > 0 {
		list = append(list, fmt.Sprintf("%s at its ingress: nftables' netdev chains don't run while the interface is a port", enumerate(chains)))
	}
	same = same && slices.Equal(list, a.filters)
	a.filters = list
	return !same
}

// othersWarnings are the warnings that checkOthers found.
func (p *Port) othersWarnings(a *attachment) (list []string) {
	for _, text := range slices.Concat(a.programs, a.filters) {
		list = append(list, p.link.Name+": "+text)
	}
	return list
}

// programName is what an operator knows a program by.
func programName(id ebpf.ProgramID) string {
	text := fmt.Sprintf("BPF program %d", id)
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return text // CAP_SYS_ADMIN is missing
	}
	defer program.Close()
	if info, err := program.Info(); err == nil && info.Name != "" {
		text += " (" + info.Name + ")"
	}
	return text
}

// classicFilters names tc's filters at the ingress of a device, but for our own.
func (p *Port) classicFilters(index int) (list []string) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := p.watcher.Handle().FilterList(device, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil // no qdisc for them
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == shieldName {
			continue
		}
		text := fmt.Sprintf("a %s filter (pref %d", f.Type(), f.Attrs().Priority)
		for _, to := range p.redirects(f) {
			text += ", redirects to " + to
		}
		if text += ")"; !slices.Contains(list, text) { // of a hash table there are several
			list = append(list, text)
		}
	}
	return list
}

// redirects are the devices that a filter sends frames to.
func (p *Port) redirects(f netlink.Filter) (names []string) {
	var actions []netlink.Action
	switch f := f.(type) {
	case *netlink.U32:
		actions = f.Actions
	case *netlink.MatchAll:
		actions = f.Actions
	case *netlink.Flower:
		actions = f.Actions
	}
	for _, a := range actions {
		if m, ok := a.(*netlink.MirredAction); ok {
			name := fmt.Sprintf("interface %d", m.Ifindex)
			if l, err := p.watcher.ByIndex(m.Ifindex); err == nil {
				name = l.Name
			}
			names = append(names, name)
		}
	}
	return names
}

// What nfnetlink has for chains of nftables: linux/netfilter/nf_tables.h.
const (
	nfProtoNetdev  = 5
	nftChainTable  = 1 // NFTA_CHAIN_TABLE
	nftChainName   = 3 // NFTA_CHAIN_NAME
	nftChainHook   = 4 // NFTA_CHAIN_HOOK
	nftHookNumber  = 1 // NFTA_HOOK_HOOKNUM
	nftHookDevice  = 3 // NFTA_HOOK_DEV
	nftHookDevices = 4 // NFTA_HOOK_DEVS, a list of names
	nfHookIngress  = 0 // NF_NETDEV_INGRESS
)

// ingressChains names the netdev chains of nftables at the ingress of a device.
// The caller's thread must be in its network namespace.
func ingressChains(device string) (list []string) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: nfProtoNetdev})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil // a kernel without nftables, or no right to ask
	}
	for _, m := range msgs {
		if name, ok := chainOn(m, device); ok {
			list = append(list, name)
		}
	}
	return list
}

// chainOn reads an answer: the chain's name, if it is at the device's ingress.
func chainOn(msg []byte, device string) (name string, ok bool) {
	attrs, err := attributes(msg, nl.SizeofNfgenmsg)
	if err != nil {
		return "", false
	}
	hook, err := attributes(attrs[nftChainHook], 0)
	if err != nil || len(hook[nftHookNumber]) != 4 || binary.BigEndian.Uint32(hook[nftHookNumber]) != nfHookIngress {
		return "", false
	}
	on := text(hook[nftHookDevice]) == device
	if names, err := nl.ParseRouteAttr(hook[nftHookDevices]); err == nil {
		for _, n := range names {
			on = on || text(n.Value) == device
		}
	}
	return fmt.Sprintf("chain %s of table netdev %s", text(attrs[nftChainName]), text(attrs[nftChainTable])), on
}

// attributes are netlink's behind a header, by their type.
func attributes(msg []byte, header int) (map[uint16][]byte, error) {
	if len(msg) < header {
		return nil, errors.New("a short message")
	}
	list, err := nl.ParseRouteAttr(msg[header:])
	if err != nil {
		return nil, err
	}
	byType := map[uint16][]byte{}
	for _, a := range list {
		byType[a.Attr.Type&nl.NLA_TYPE_MASK] = a.Value
	}
	return byType, nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
