package vhostuser

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A front end has terabytes to share that cost it nothing. They cost the switch
// address space, of which it needs the rest itself.
func TestSharedAddressSpaceIsBounded(t *testing.T) {
	huge := memfd(t, 16<<40)
	_, f := connected(t, Options{}, modern)
	other := bystander(t)
	bytes, maps := shared.bytes.Load(), shared.maps.Load()
	far := func(i int, size uint64) []byte {
		at := uint64(i+1) << 42
		return memRegion{at, size, at, 0}.encode(u64(0))
	}
	f.mustNot(reqAddMemReg, far(0, 16<<40), huge)
	added := 0
	for f.ack(reqAddMemReg, far(added, 600<<30), huge) {
		added++
	}
	if added != 3 {
		t.Errorf("%d regions of 600 GiB were taken, want 3", added)
	}
	r := append(f.regions[:2:2], memRegion{1 << 43, 2 << 40, 1 << 43, 0})
	f.mustNot(reqSetMemTable, tablePayload(r), f.fd, f.fd, huge)
	f.mustNot(reqSetLogBase, append(u64(1<<40), u64(0)...), huge)
	f.works()
	for i := range added {
		f.must(reqRemMemReg, far(i, 600<<30))
	}
	if b, m := shared.bytes.Load(), shared.maps.Load(); b != bytes || m != maps {
		t.Errorf("%d bytes in %d mappings are counted, before %d in %d", b, m, bytes, maps)
	}

	// Many ports together leave room, too.
	var all []*memory
	var err error
	for range 40 {
		var m *memory
		if m, err = mapMemory([]memRegion{{0, 2 << 40, 0, 0}}, []int{huge}); err != nil {
			break
		}
		all = append(all, m)
	}
	if len(all) != 31 || err == nil || !strings.Contains(err.Error(), "64 TiB") {
		t.Errorf("%d times 2 TiB were mapped, then %v", len(all), err)
	}
	other.works()
	for _, m := range all {
		unmapAll(m.maps)
	}

	others := maxSharedMaps() - maps - 1 // as if other ports had all but one
	shared.maps.Add(others)
	defer shared.maps.Add(-others)
	f.must(reqAddMemReg, far(0, 4096), f.fd)
	f.mustNot(reqAddMemReg, far(1, 4096), f.fd)
	f.must(reqRemMemReg, far(0, 4096))
	f.must(reqAddMemReg, far(1, 4096), f.fd)
	other.works()
}

// fuse is a file of a file system in the test's hands (FUSE), which answers what
// it is asked only while it likes to.
type fuse struct {
	dev  int
	file int // opened
	mute atomic.Bool
}

func newFuse(t *testing.T) *fuse {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	f := &fuse{dev: dev, file: -1}
	t.Cleanup(func() { closeFD(&f.file) })
	// This comes first, and ends every request that waits.
	t.Cleanup(func() { unix.Close(dev) })
	data := "rootmode=100644,user_id=0,group_id=0,allow_other,fd=" + strconv.Itoa(dev)
	if err := unix.Mount("kvswitch-test", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		t.Skipf("can't mount FUSE: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	go f.serve()
	if f.file, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// serve answers what opening and closing a file take, and says of the rest that
// it does not know it.
func (f *fuse) serve() {
	const opGetattr, opOpen, opFlush, opInit = 3, 14, 25, 26
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Read(f.dev, b)
		if err != nil || n < 40 {
			return
		}
		if f.mute.Load() {
			continue
		}
		var body []byte
		status := int32(0)
		switch binary.LittleEndian.Uint32(b[4:]) {
		case opInit:
			body = make([]byte, 64)
			binary.LittleEndian.PutUint32(body, 7)
			binary.LittleEndian.PutUint32(body[4:], 31)
			binary.LittleEndian.PutUint32(body[20:], 1<<16) // max_write
		case opGetattr:
			body = make([]byte, 104)
			binary.LittleEndian.PutUint64(body[16:], 1)        // ino
			binary.LittleEndian.PutUint64(body[24:], 1<<20)    // size
			binary.LittleEndian.PutUint32(body[76:], 0o100644) // mode
			binary.LittleEndian.PutUint32(body[80:], 1)        // links
			binary.LittleEndian.PutUint32(body[16+80:], 1<<12) // block size
		case opOpen:
			body = make([]byte, 16)
		case opFlush:
		default:
			status = -int32(unix.ENOSYS)
		}
		out := binary.LittleEndian.AppendUint32(nil, uint32(16+len(body)))
		out = binary.LittleEndian.AppendUint32(out, uint32(status))
		out = append(out, b[8:16]...)
		unix.Write(f.dev, append(out, body...))
	}
}

// A file whose own server may let everybody wait who touches it is no memory: it
// is refused unasked, for whatever it is offered, and costs nobody a wait.
func TestFilesThatCanMakeOthersWaitAreRefused(t *testing.T) {
	file := newFuse(t)
	other := bystander(t)
	p, f := connected(t, Options{}, modern)
	disk, err := os.CreateTemp(".", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(disk.Name())
	defer disk.Close()
	disk.Truncate(1 << 20)
	r := memRegion{1 << 40, 4096, 1 << 40, 0}
	for _, fd := range []int{int(disk.Fd()), file.file} {
		f.mustNot(reqAddMemReg, r.encode(u64(0)), fd)
		if why := p.Detail().(Detail).LastRefusal; !strings.Contains(why, "tmpfs") || !strings.Contains(why, nameOf(fd)) {
			t.Errorf("refused with %q", why)
		}
		f.mustNot(reqSetMemTable, tablePayload(append(f.regions[:2:2], r)), f.fd, f.fd, fd)
		f.mustNot(reqSetLogBase, append(u64(1<<20), u64(0)...), fd)
		f.mustNot(reqSetInflightFD, inflightArea{4096, 0, 2, 64}.append(nil), fd)
		f.mustNot(reqSetVringCall, u64(0), fd)
		f.works()
	}
	// From here on whoever asks the file system anything waits: close(2) does.
	file.mute.Store(true)
	if err := f.write(appendMessage(nil, reqAddMemReg, flagVersion|flagNeedReply, r.encode(u64(0))), file.file); err != nil {
		t.Fatal(err)
	}
	wait(t, "it to be refused", func() bool { return p.Detail().(Detail).Refusals > 10 })
	f.toGuest(0, 60)
	f.fromGuest(0, 60)
	other.works()
	ends(t, "Close of a port that waits", func() { p.Close() })
}
