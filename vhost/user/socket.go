package vhostuser

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path of a Unix socket, without its final zero.
const maxPath = 107

// backlog is how many front ends may wait to be accepted, or turned away.
const backlog = 16

// socket is a listening Unix socket and the file it is known by.
type socket struct {
	*net.UnixListener
	path string
	file int // O_PATH descriptor: nobody else's file gets its inode number while it is open
}

// listen makes the socket, with its permissions and owner from the moment that
// anybody can connect to it. A stale socket, which nobody listens on, is taken
// over; anything else at the path is refused, a symbolic link first of all.
func listen(o Options) (*socket, error) {
	if err := clearStale(o.Path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), o.Path)
	defer file.Close() // the listener has its own
	// The file is made with the socket's own mode (less the umask), so there is
	// no moment at which it is open to more than it should be.
	if err := unix.Fchmod(fd, uint32(o.Perm)); err != nil {
		return nil, fmt.Errorf("set mode of socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: o.Path}); err != nil {
		return nil, fmt.Errorf("bind socket to %s: %w", o.Path, err)
	}
	s := &socket{path: o.Path}
	if s.file, err = unix.Open(o.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		os.Remove(o.Path) // it was ours a moment ago, and the next start would take it for somebody else's
		return nil, fmt.Errorf("open socket %s: %w", o.Path, err)
	}
	l, err := s.open(fd, file, o)
	if err != nil {
		s.unlink()
		return nil, err
	}
	s.UnixListener = l.(*net.UnixListener)
	s.SetUnlinkOnClose(false) // unlink looks first whose file it is
	return s, nil
}

// open gives the socket file its owner, and its mode in spite of the umask, and
// then lets front ends connect.
func (s *socket) open(fd int, file *os.File, o Options) (net.Listener, error) {
	if err := s.claim(o); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Path, err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Path, err)
	}
	return l, nil
}

func (s *socket) claim(o Options) error {
	var st unix.Stat_t
	if err := unix.Fstat(s.file, &st); err != nil {
		return fmt.Errorf("fstat socket %s: %w", o.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s was exchanged for something else", o.Path)
	}
	self := "/proc/self/fd/" + strconv.Itoa(s.file) // an O_PATH descriptor takes no fchmod
	if o.UID > 0 || o.GID > 0 {
		uid, gid := -1, -1
		if o.UID > 0 {
			uid = o.UID
		}
		if o.GID > 0 {
			gid = o.GID
		}
		if err := unix.Chown(self, uid, gid); err != nil {
			return fmt.Errorf("set owner of socket %s: %w", o.Path, err)
		}
	}
	if fs.FileMode(st.Mode&0o777) != o.Perm {
		if err := unix.Chmod(self, uint32(o.Perm)); err != nil {
			return fmt.Errorf("set mode of socket %s: %w", o.Path, err)
		}
	}
	return nil
}

// close stops listening and removes the file, if it is still the same.
func (s *socket) close() error {
	err := s.UnixListener.Close()
	s.unlink()
	return err
}

// unlink removes the socket file, unless somebody else put theirs in its place.
func (s *socket) unlink() {
	var ours, there unix.Stat_t
	if unix.Fstat(s.file, &ours) == nil && unix.Lstat(s.path, &there) == nil && ours.Dev == there.Dev && ours.Ino == there.Ino {
		unix.Unlink(s.path)
	}
	closeFD(&s.file)
}

// clearStale removes a socket file that nobody listens on any more.
func clearStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at socket path: %w", err)
	case st.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("socket path %s is a symbolic link: remove it, or give the path it points to", path)
	case st.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("socket path %s exists and is no socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("socket %s is in use: another process listens on it", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("socket %s can't be told to be stale: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
