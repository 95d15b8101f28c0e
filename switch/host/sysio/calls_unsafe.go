package sysio

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Send sends msgs on a socket without blocking (sendmmsg with MSG_DONTWAIT) and
// says how many went. errno is set only when the first was refused: what stopped
// the kernel after that shows when the rest is sent again.
func Send(fd int, msgs []Mmsghdr) (n int, errno syscall.Errno) {
	if len(msgs) == 0 {
		return 0, 0
	}
	r, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Receive fills msgs from a socket without blocking (recvmmsg with MSG_DONTWAIT)
// and says how many it filled. When nothing is there, errno is EAGAIN. With flags
// MSG_TRUNC, a message's Len is its true length even if its buffers were too short.
func Receive(fd int, msgs []Mmsghdr, flags int) (n int, errno syscall.Errno) {
	if len(msgs) == 0 {
		return 0, 0
	}
	r, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), uintptr(flags)|unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Read is read(2) on a non-blocking descriptor.
func Read(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Write is write(2) on a non-blocking descriptor.
func Write(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Writev is writev(2) on a non-blocking descriptor.
func Writev(fd int, iov []unix.Iovec) (n int, errno syscall.Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// SocketError takes the pending error off a socket (SO_ERROR), so that epoll
// does not report it again. 0 is none.
func SocketError(fd int) syscall.Errno {
	var v int32
	size := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	return syscall.Errno(v)
}

// epollWait may sleep, so it tells the scheduler, unless it only looks.
func epollWait(fd int, events []Event, timeoutMs int) (int, syscall.Errno) {
	if len(events) == 0 {
		return 0, unix.EINVAL
	}
	p := uintptr(unsafe.Pointer(&events[0]))
	if timeoutMs == 0 {
		n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), p, uintptr(len(events)), 0, 0, 0)
		return int(n), e
	}
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), p, uintptr(len(events)), uintptr(timeoutMs), 0, 0)
	return int(n), e
}

// epollWaitFor waits at most d.
func epollWaitFor(fd int, events []Event, d time.Duration) (int, syscall.Errno) {
	if len(events) == 0 {
		return 0, unix.EINVAL
	}
	ts := unix.NsecToTimespec(int64(d))
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	return int(n), e
}
