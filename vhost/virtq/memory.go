package virtq

import (
	"cmp"
	"fmt"
	"slices"
)

// Region is a range of guest memory that is mapped here.
type Region struct {
	Guest uint64 // guest physical address of its first byte
	User  uint64 // the same byte's address in the front end's own space
	Mem   []byte // the mapping
}

// Memory is a guest's memory as this process sees it: regions that don't
// overlap. It is immutable.
type Memory struct {
	guest  []Region // by Guest
	user   []Region // by User
	starts []uint64 // guest[i].Guest: the search touches no more than this
}

// NewMemory checks the regions: none empty, none that runs past the end of the
// address space, no two that overlap in either space.
func NewMemory(regions ...Region) (*Memory, error) {
	m := &Memory{guest: slices.Clone(regions), user: slices.Clone(regions)}
	by := func(start func(*Region) uint64, s []Region, space string) error {
		slices.SortFunc(s, func(a, b Region) int { return cmp.Compare(start(&a), start(&b)) })
		for i := range s {
			from, n := start(&s[i]), uint64(len(s[i].Mem))
			if n == 0 {
				return fmt.Errorf("memory region at %s address %#x: empty", space, from)
			}
			if from+n < from {
				return fmt.Errorf("memory region at %s address %#x: %#x bytes run past the end of the address space", space, from, n)
			}
			if i > 0 && from-start(&s[i-1]) < uint64(len(s[i-1].Mem)) {
				return fmt.Errorf("memory region at %s address %#x: overlaps the one at %#x", space, from, start(&s[i-1]))
			}
		}
		return nil
	}
	if err := by(func(r *Region) uint64 { return r.Guest }, m.guest, "guest"); err != nil {
		return nil, err
	}
	if err := by(func(r *Region) uint64 { return r.User }, m.user, "user"); err != nil {
		return nil, err
	}
	for i := range m.guest {
		m.starts = append(m.starts, m.guest[i].Guest)
	}
	return m, nil
}

// Regions lists the regions by guest address. The caller must not change it.
func (m *Memory) Regions() []Region { return m.guest }

// Guest is the n bytes at a guest physical address, if they lie in one region.
func (m *Memory) Guest(addr, n uint64) ([]byte, bool) {
	r := m.find(addr)
	return within(r.Mem, addr-r.Guest, n)
}

// User is the n bytes at a front-end virtual address, if they lie in one region.
func (m *Memory) User(addr, n uint64) ([]byte, bool) {
	for i := range m.user {
		if r := &m.user[i]; addr-r.User < uint64(len(r.Mem)) {
			return within(r.Mem, addr-r.User, n)
		}
	}
	return nil, false
}

// Holds reports whether an address of this process lies in the memory.
func (m *Memory) Holds(addr uintptr) bool {
	for i := range m.guest {
		if mem := m.guest[i].Mem; addr-address(mem) < uintptr(len(mem)) {
			return true
		}
	}
	return false
}

// guestAddr is the guest physical address of b, which lies in a region.
func (m *Memory) guestAddr(b []byte) (uint64, bool) {
	for i := range m.guest {
		if off, ok := offsetIn(m.guest[i].Mem, b); ok {
			return m.guest[i].Guest + off, true
		}
	}
	return 0, false
}

// none holds no address.
var none Region

// find is the region that holds a guest physical address, or &none.
func (m *Memory) find(addr uint64) *Region {
	lo, n := 0, len(m.starts)
	for n > 0 { // the last start at or below addr is before lo+n, or at lo-1
		half := (n + 1) / 2
		if m.starts[lo+half-1] <= addr {
			lo += half
			n -= half
		} else {
			n = half - 1
		}
	}
	if lo > 0 {
		if r := &m.guest[lo-1]; addr-r.Guest < uint64(len(r.Mem)) {
			return r
		}
	}
	return &none
}

// within is the n bytes at off of b, if b has them.
func within(b []byte, off, n uint64) ([]byte, bool) {
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil, false
	}
	return b[off : off+n : off+n], true
}
