package netdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// claim marks a device as used by a switch: an abstract unix socket named after
// its index. Such names belong to the network namespace, as device indices do,
// and vanish with the process. The caller's thread must be in that namespace.
//
// Two switches on one device would each forward every frame.
func claim(index int) (fd int, err error) {
	name := &unix.SockaddrUnix{Name: fmt.Sprintf("@kvswitch/netdev/%d", index)}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("claim device: %w", err)
	}
	if err = unix.Bind(fd, name); err == nil {
		if err = unix.Listen(fd, 16); err == nil {
			return fd, nil
		}
	}
	unix.Close(fd)
	if !errors.Is(err, unix.EADDRINUSE) {
		return -1, fmt.Errorf("claim device: %w", err)
	}
	holder, err := peerOf(name)
	switch {
	case err != nil:
		return -1, errors.New("already a port of a kvswitch on this host")
	case holder.Uid != 0 && int(holder.Uid) != os.Geteuid():
		// Anybody may bind the name. Only a user who can open packet sockets
		// gets to keep a device from us with it.
		return -1, nil
	case int(holder.Pid) == os.Getpid():
		return -1, errors.New("already a port of this kvswitch")
	}
	return -1, fmt.Errorf("already a port of another kvswitch (process %d)", holder.Pid)
}

// peerOf says who listens at name.
func peerOf(name *unix.SockaddrUnix) (*unix.Ucred, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, name); err != nil {
		return nil, err
	}
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}
