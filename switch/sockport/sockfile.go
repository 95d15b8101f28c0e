package sockport

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sockFile is a unix socket's place in the file system, and proof that it is
// ours: the device and inode it had when we made it.
type sockFile struct {
	path string
	dev  uint64
	ino  uint64
}

// modeBeforeBind is a net.ListenConfig.Control: bind(2) gives a socket file the
// mode of the socket's own inode, less the umask, so setting that first leaves
// no moment at which anyone else could connect.
func modeBeforeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}

// adopt notes the socket file just bound at path and gives it the mode and owner
// that opts ask for. Neither call follows a symlink.
func adopt(path string, opts FileOptions) (*sockFile, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("stat socket %s: %w", path, err)
	}
	f := &sockFile{path: path, dev: st.Dev, ino: st.Ino}
	if err := f.setOwner(opts); err != nil {
		f.unlink()
		return nil, err
	}
	return f, nil
}

// setOwner works on an O_PATH descriptor, so that what it changes is the file
// it looked at, whatever happens to the name meanwhile.
func (f *sockFile) setOwner(opts FileOptions) error {
	fd, err := unix.Open(f.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket %s: %w", f.path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat socket %s: %w", f.path, err)
	}
	if st.Dev != f.dev || st.Ino != f.ino || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("socket %s was replaced by something else", f.path)
	}
	if opts.Owner != "" {
		uid, gid, err := opts.ids()
		if err != nil {
			return err
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give socket %s to %s: %w", f.path, opts.Owner, err)
		}
	}
	// The magic link leads to the very inode; fchmod(2) refuses O_PATH.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), opts.perm()); err != nil {
		return fmt.Errorf("set mode %04o of socket %s: %w", opts.perm(), f.path, err)
	}
	return nil
}

// unlink removes the file if it is still the one we made.
func (f *sockFile) unlink() {
	var st unix.Stat_t
	if f != nil && unix.Lstat(f.path, &st) == nil && st.Dev == f.dev && st.Ino == f.ino {
		unix.Unlink(f.path)
	}
}

// clearStale removes the socket that a dead process left at path. It refuses to
// touch anything else: a symlink, a file of another kind, another user's
// socket, or one that somebody still listens on. typ is unix.SOCK_STREAM or
// unix.SOCK_DGRAM.
func clearStale(path string, typ int) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("stat socket %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s exists and is not a socket: remove it or choose another path", path)
	case int(st.Uid) != os.Geteuid() && os.Geteuid() != 0:
		return fmt.Errorf("socket %s belongs to uid %d: choose another path", path, st.Uid)
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open probe socket: %w", err)
	}
	defer unix.Close(fd)
	// Nobody behind it is ECONNREFUSED; every other answer, even a full backlog
	// or a socket of another type, means that somebody lives there.
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED):
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("socket %s is in use by another process: choose another path", path)
	}
	f := sockFile{path: path, dev: st.Dev, ino: st.Ino}
	f.unlink()
	return nil
}
