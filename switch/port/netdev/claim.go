package netdev

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Two switches on one device would each forward every frame, so a port marks its
// device as taken. The mark is a packet socket that is bound to the device with a
// protocol that nobody speaks, and receives nothing. That is a mark which
//
//   - only a process with CAP_NET_RAW in the device's network namespace can make,
//     who could do to the device whatever a switch does;
//   - every kernel with packet sockets lists, in /proc/net/packet, to anybody,
//     with nothing but the rights that a port needs anyway. (Of an attached BPF
//     program the kernel tells only CAP_SYS_ADMIN the name, and before Linux 6.6
//     the attachment outlives a crash.)
//   - belongs to the namespace, as device indices do, leaves the device with it,
//     and ends with the process, however that ends.
type mark struct {
	fd    int
	inode uint64 // as /proc/net/packet has it
}

// markProtocol is "kv" as an EtherType, which has no owner.
const markProtocol = 0x6b76

// claim marks a device as used by a switch. The caller's thread must be in the
// device's network namespace. except is a mark of the caller's own on its way out.
// Two who claim one device at the same moment may both be refused.
//
// unsure is why it can't be known whether somebody else has marked the device.
func claim(index int, except uint64) (m *mark, unsure, err error) {
	fd, err := openSocket(index, false, nothingFilter())
	if err != nil {
		return nil, nil, err
	}
	m = &mark{fd: fd}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		m.inode = st.Ino
		err = start(fd, index, markProtocol)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("claim device: %w", err)
	}
	// Looked for only now: of two, one at least sees the other.
	list, err := os.Open("/proc/thread-self/net/packet")
	if err != nil {
		return m, fmt.Errorf("find other switches: %w", err), nil
	}
	defer list.Close()
	others, unsure := marksOn(list, index)
	for _, inode := range others {
		if inode != m.inode && inode != except {
			unix.Close(fd)
			return nil, nil, taken(inode)
		}
	}
	return m, unsure, nil
}

// marked reports whether some switch has device index as a port.
func marked(index int) bool {
	list, err := os.Open("/proc/thread-self/net/packet")
	if err != nil {
		return false
	}
	defer list.Close()
	marks, _ := marksOn(list, index)
	return len(marks) > 0
}

// marksOn reads /proc/net/packet: the inodes of the sockets that mark device
// index. Its columns are sk RefCnt Type Proto Iface R Rmem User Inode.
func marksOn(list io.Reader, index int) (inodes []uint64, err error) {
	protocol, device := fmt.Sprintf("%04x", markProtocol), strconv.Itoa(index)
	s := bufio.NewScanner(list)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 9 || f[3] != protocol || f[4] != device {
			continue
		}
		inode, err := strconv.ParseUint(f[8], 10, 64)
		if err != nil {
			return inodes, fmt.Errorf("find other switches: read %q: %w", s.Text(), err)
		}
		inodes = append(inodes, inode)
	}
	return inodes, s.Err()
}

// taken is that another mark, whose socket it is, is on the device.
type taken uint64

func (taken) Error() string { return "already a port of a kvswitch" }

// holder is the error that also says who that is. It looks through all processes,
// so it is not for the Watcher's goroutine.
func (t taken) holder() error {
	link := fmt.Sprintf("socket:[%d]", uint64(t))
	if holds("/proc/self/fd", link) {
		return errors.New("already a port of this kvswitch")
	}
	tables, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range tables {
		if holds(dir, link) {
			return fmt.Errorf("already a port of another kvswitch (process %s)", filepath.Base(filepath.Dir(dir)))
		}
	}
	return errors.New("already a port of another kvswitch (its process is not to be seen from here)")
}

// holds reports whether a process has a descriptor that leads to link.
func holds(dir, link string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false // another user's, or gone
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if to, err := os.Readlink(filepath.Join(dir, name)); err == nil && to == link {
			return true
		}
	}
	return false
}
