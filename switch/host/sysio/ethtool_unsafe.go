package sysio

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linkSettings is struct ethtool_link_settings of linux/ethtool.h with room for
// its three bitmaps.
type linkSettings struct {
	cmd     uint32
	speed   uint32 // Mbit/s; all ones: unknown
	duplex  uint8  // 0 half, 1 full, 255 unknown
	_       [6]uint8
	words   int8 // 32-bit words in each bitmap; negative: how many the kernel wants
	_       [32]uint8
	bitmaps [3 * 127]uint32
}

type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// LinkSpeed asks a network device for its speed in bit/s, 0 if it does not know,
// and whether its link is half duplex (ETHTOOL_GLINKSETTINGS, Linux 4.6). The
// calling thread's network namespace is the one looked in.
func LinkSpeed(name string) (speed uint64, half bool, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, fmt.Errorf("ask speed of %s: %w", name, err)
	}
	defer unix.Close(fd)
	s := linkSettings{cmd: unix.ETHTOOL_GLINKSETTINGS}
	req := ifreqData{data: unsafe.Pointer(&s)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	for range 2 { // the first answer says how long the bitmaps are
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
		if errno != 0 {
			return 0, false, fmt.Errorf("ask speed of %s: %w", name, errno)
		}
		if s.words > 0 {
			break
		}
		s.cmd, s.words = unix.ETHTOOL_GLINKSETTINGS, -s.words
	}
	runtime.KeepAlive(&s)
	if s.speed != ^uint32(0) {
		speed = uint64(s.speed) * 1e6
	}
	return speed, s.duplex == 0, nil
}
