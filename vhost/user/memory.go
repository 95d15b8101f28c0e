package vhostuser

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// mapping is a part of a front end's file, mapped here.
type mapping struct {
	whole []byte // what was mapped, from a page boundary on
	mem   []byte // the part that was asked for
}

// mapFile maps size bytes at offset of a front end's descriptor, which the
// caller closes afterwards. It must be a file in memory. If a front end truncates
// the file later, accesses fault, and every access here is ready for that.
func mapFile(fd int, offset, size uint64) (m mapping, err error) {
	if !inMemory(fd) {
		return m, fmt.Errorf("%s is no memfd or other file on tmpfs or hugetlbfs", nameOf(fd))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return m, fmt.Errorf("fstat: %w", err)
	}
	if size == 0 || offset+size < offset || offset+size > uint64(st.Size) {
		return m, fmt.Errorf("%#x bytes at offset %#x of a file of %#x bytes", size, offset, st.Size)
	}
	// Huge page files are mapped in huge pages; others say 4 KiB here.
	page := max(uint64(st.Blksize), uint64(unix.Getpagesize()))
	start := offset / page * page
	end := (offset + size + page - 1) / page * page
	n := int(end - start)
	if err := share(n); err != nil {
		return mapping{}, err
	}
	if m.whole, err = sysio.Map(fd, int64(start), n); err != nil {
		unshare(n)
		return mapping{}, err
	}
	// A guest's memory has no place in a core dump of the switch.
	unix.Madvise(m.whole, unix.MADV_DONTDUMP)
	m.mem = m.whole[offset-start:][:size:size]
	return m, nil
}

func (m *mapping) unmap() {
	if m.whole != nil {
		sysio.Unmap(m.whole)
		unshare(len(m.whole))
	}
	*m = mapping{}
}

// memory is a guest's memory table with the mappings it stands on.
type memory struct {
	*virtq.Memory
	regions []memRegion
	maps    []mapping // of regions
}

// newMemory makes a table of regions whose mappings are given.
func newMemory(regions []memRegion, maps []mapping) (*memory, error) {
	list := make([]virtq.Region, len(regions))
	for i, r := range regions {
		list[i] = virtq.Region{Guest: r.guest, User: r.user, Mem: maps[i].mem}
	}
	m, err := virtq.NewMemory(list...)
	if err != nil {
		return nil, err
	}
	return &memory{m, regions, maps}, nil
}

// checkTotal refuses more memory than a port may have.
func checkTotal(regions []memRegion) error {
	left := uint64(maxPortBytes)
	for _, r := range regions {
		if r.size > left {
			return fmt.Errorf("region at guest address %#x: more than the %d TiB of memory that a port may have", r.guest, maxPortBytes>>40)
		}
		left -= r.size
	}
	return nil
}

// mapMemory maps a whole table, or nothing.
func mapMemory(regions []memRegion, fds []int) (m *memory, err error) {
	if err := checkTotal(regions); err != nil {
		return nil, err
	}
	maps := make([]mapping, 0, len(regions))
	defer func() {
		if err != nil {
			unmapAll(maps)
		}
	}()
	for i, r := range regions {
		mp, err := mapFile(fds[i], r.offset, r.size)
		if err != nil {
			return nil, fmt.Errorf("map region %d at guest address %#x: %w", i, r.guest, err)
		}
		maps = append(maps, mp)
	}
	return newMemory(regions, maps)
}

// with is m and one region more.
func (m *memory) with(r memRegion, fd int) (*memory, error) {
	regions := append(slices.Clone(m.regions), r)
	if err := checkTotal(regions); err != nil {
		return nil, err
	}
	mp, err := mapFile(fd, r.offset, r.size)
	if err != nil {
		return nil, fmt.Errorf("map region at guest address %#x: %w", r.guest, err)
	}
	bigger, err := newMemory(regions, append(slices.Clone(m.maps), mp))
	if err != nil {
		mp.unmap()
		return nil, err
	}
	return bigger, nil
}

// without is m and one region less, and that region's mapping, which is the
// caller's to unmap. A region is known by its addresses and its size.
func (m *memory) without(r memRegion) (*memory, mapping, error) {
	i := slices.IndexFunc(m.regions, r.same)
	if i < 0 {
		return nil, mapping{}, fmt.Errorf("no region of %#x bytes at guest address %#x and user address %#x", r.size, r.guest, r.user)
	}
	smaller, err := newMemory(slices.Delete(slices.Clone(m.regions), i, i+1), slices.Delete(slices.Clone(m.maps), i, i+1))
	return smaller, m.maps[i], err
}

// same reports that two regions are one to REM_MEM_REG, whatever offset it gives.
func (r memRegion) same(have memRegion) bool { return have.key() == r.key() }

// key is what a region is known by: its addresses and its size.
func (r memRegion) key() memRegion {
	r.offset = 0
	return r
}

func unmapAll(maps []mapping) {
	for i := range maps {
		maps[i].unmap()
	}
}
