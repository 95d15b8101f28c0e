package netdev

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// skbLayout says where this kernel keeps what a program needs to know of a frame
// and struct __sk_buff does not show, by the kernel's own description (BTF), and
// the functions that lead there. Offsets are in bytes.
type skbLayout struct {
	// of struct sk_buff
	head, data, end, dataLen int16
	csumStart, csumOffset    int16
	summed                   int16 // the byte that holds ip_summed,
	summedShift              int32 // and where in it
	// of struct skb_shared_info
	gsoType int16

	sharedInfo   btf.TypeID // struct skb_shared_info
	castToSKB    btf.TypeID // kfunc bpf_cast_to_kern_ctx, Linux 6.2
	readOnlyCast btf.TypeID // kfunc bpf_rdonly_cast, Linux 6.2
}

// Values of ip_summed, linux/skbuff.h.
const (
	checksumUnnecessary = 1
	checksumPartial     = 3
)

// Bits of gso_type, linux/skbuff.h.
const (
	skbGSOTCPv4 = 1 << 0
	skbGSOECN   = 1 << 2
	skbGSOTCPv6 = 1 << 4
	skbGSOUDPL4 = 1 << 17
)

// theSKB is the running kernel's, which does not change.
var theSKB = sync.OnceValues(func() (*skbLayout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's type information: %w", err)
	}
	l := &skbLayout{}
	if l.castToSKB, err = kfunc(spec, "bpf_cast_to_kern_ctx"); err != nil {
		return nil, err
	}
	if l.readOnlyCast, err = kfunc(spec, "bpf_rdonly_cast"); err != nil {
		return nil, err
	}
	var skb, info *btf.Struct
	if err := spec.TypeByName("sk_buff", &skb); err != nil {
		return nil, fmt.Errorf("find struct sk_buff: %w", err)
	}
	if err := spec.TypeByName("skb_shared_info", &info); err != nil {
		return nil, fmt.Errorf("find struct skb_shared_info: %w", err)
	}
	if l.sharedInfo, err = spec.TypeID(info); err != nil {
		return nil, fmt.Errorf("find struct skb_shared_info: %w", err)
	}
	for _, f := range []struct {
		in   *btf.Struct
		name string
		off  *int16
	}{
		{skb, "head", &l.head}, {skb, "data", &l.data}, {skb, "end", &l.end}, {skb, "data_len", &l.dataLen},
		{skb, "csum_start", &l.csumStart}, {skb, "csum_offset", &l.csumOffset}, {skb, "ip_summed", &l.summed},
		{info, "gso_type", &l.gsoType},
	} {
		at, ok := member(f.in.Members, f.name)
		if !ok {
			return nil, fmt.Errorf("struct %s has no %s", f.in.Name, f.name)
		}
		*f.off = int16(at.Bytes())
		if f.name == "ip_summed" { // a bit field
			*f.off, l.summedShift = int16(at/8), int32(at%8)
		}
	}
	return l, nil
})

// kfunc is the type of a function that programs may call.
func kfunc(spec *btf.Spec, name string) (btf.TypeID, error) {
	var f *btf.Func
	if err := spec.TypeByName(name, &f); err != nil {
		return 0, fmt.Errorf("find kernel function %s: %w", name, err)
	}
	return spec.TypeID(f)
}

// member is the offset of a field, which may belong to nameless structs and
// unions within.
func member(members []btf.Member, name string) (at btf.Bits, ok bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset, true
		}
		if m.Name != "" {
			continue
		}
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			at, ok = member(t.Members, name)
		case *btf.Union:
			at, ok = member(t.Members, name)
		}
		if ok {
			return m.Offset + at, true
		}
	}
	return 0, false
}
