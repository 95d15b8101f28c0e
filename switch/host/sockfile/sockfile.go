// Package sockfile makes the files of unix sockets: with the right mode from
// the first moment, replacing what a dead process left and nothing else, and
// removed again only if they are still ours.
//
// It follows no symlink in a path's last element. Any goroutine may call it;
// nothing in it waits.
package sockfile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// RunDir is where a switch's own sockets are unless told otherwise.
const RunDir = "/run/kvswitch"

// Options are the mode and owner of a socket file. The zero value is mode 0600
// and the owner who runs the process.
type Options struct {
	Perm  uint32 // permission bits; 0 is 0600
	Owner string // user, user:group or :group, by name or number; empty leaves it
}

// Keys are the words that Set takes.
func Keys() []string { return []string{"perm", "owner"} }

// Set applies one word of a port's SPEC, such as perm=0660.
func (o *Options) Set(key, value string) error {
	switch key {
	case "perm":
		v, err := strconv.ParseUint(value, 8, 32)
		if err != nil || v == 0 || v > 0o777 {
			return fmt.Errorf("set perm=%s: want octal permissions such as 0660", value)
		}
		o.Perm = uint32(v)
	case "owner":
		o.Owner = value
	default:
		return fmt.Errorf("set %s=%s: no such key; known: %s", key, value, strings.Join(Keys(), " "))
	}
	return nil
}

func (o Options) perm() uint32 {
	if o.Perm == 0 {
		return 0o600
	}
	return o.Perm
}

// ids resolves Owner; -1 leaves that half alone, as in chown(2).
func (o Options) ids() (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, _ := strings.Cut(o.Owner, ":")
	if name != "" {
		if uid, err = strconv.Atoi(name); err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return 0, 0, fmt.Errorf("look up owner %q: %w", name, err)
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return 0, 0, fmt.Errorf("look up group %q: %w", group, err)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}

// CheckPath refuses what sockaddr_un can't hold (unix(7)), rather than let the
// kernel name another file.
func CheckPath(path string) error {
	const most = len(unix.RawSockaddrUnix{}.Path) - 1
	switch {
	case path == "":
		return errors.New("the path of the socket is missing")
	case len(path) > most:
		return fmt.Errorf("path %q: %d bytes; a unix socket's path has at most %d", path, len(path), most)
	case strings.HasPrefix(path, "@") || strings.ContainsRune(path, 0):
		return fmt.Errorf("path %q: abstract sockets have no permissions; want a file", path)
	}
	return nil
}

// File is a socket's place in the file system, and proof that it is ours: a
// descriptor (O_PATH) of what we made. While that is open, nobody else's file gets
// the same inode number.
type File struct {
	path string
	fd   int // -1 once removed
}

// Listen listens at path; network is "unix" or "unixpacket". The caller closes
// the listener and then removes the file. On error there is neither.
func Listen(network, path string, o Options) (*net.UnixListener, *File, error) {
	typ := unix.SOCK_STREAM
	if network == "unixpacket" {
		typ = unix.SOCK_SEQPACKET
	}
	if err := prepare(path, typ); err != nil {
		return nil, nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = closeToOthers(int(fd)) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), network, path)
	if err != nil {
		return nil, nil, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // it would unlink by name alone
	f, err := adopt(path, o)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return ul, f, nil
}

// Bind binds the datagram socket fd to path.
func Bind(fd int, path string, o Options) (*File, error) {
	if err := prepare(path, unix.SOCK_DGRAM); err != nil {
		return nil, err
	}
	if err := closeToOthers(fd); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	return adopt(path, o)
}

// closeToOthers is for a socket that is not bound yet: bind(2) gives the file
// the mode of the socket's own inode, less the umask, so there is no moment at
// which anyone else could connect.
func closeToOthers(fd int) error {
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fmt.Errorf("set mode of socket: %w", err)
	}
	return nil
}

// adopt notes the file just bound and gives it the mode and owner asked for.
func adopt(path string, o Options) (*File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Unlink(path) // it was ours a moment ago, and others would think that it is in use
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		unix.Close(fd)
		return nil, fmt.Errorf("socket %s was replaced by something else", path)
	}
	f := &File{path: path, fd: fd}
	if err := f.setOwner(o); err != nil {
		f.Remove()
		return nil, err
	}
	return f, nil
}

// setOwner works on the descriptor, so that what it changes is the file it looked
// at, whatever happens to the name meanwhile.
func (f *File) setOwner(o Options) error {
	if o.Owner != "" {
		uid, gid, err := o.ids()
		if err != nil {
			return err
		}
		if err := unix.Fchownat(f.fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give socket %s to %s: %w", f.path, o.Owner, err)
		}
	}
	// The magic link leads to the very inode; fchmod(2) refuses O_PATH.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.fd), o.perm()); err != nil {
		return fmt.Errorf("set mode %04o of socket %s: %w", o.perm(), f.path, err)
	}
	return nil
}

// Remove unlinks the file if it is still the one we made. A nil File, or one that
// was removed before, is nothing to remove.
func (f *File) Remove() {
	if f == nil || f.fd < 0 {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) == nil {
		unlink(f.path, &st)
	}
	unix.Close(f.fd)
	f.fd = -1
}

// unlink removes what is at path if it is the file that st was taken of.
func unlink(path string, st *unix.Stat_t) {
	var there unix.Stat_t
	if unix.Lstat(path, &there) == nil && there.Dev == st.Dev && there.Ino == st.Ino {
		unix.Unlink(path)
	}
}

// prepare removes the socket that a dead process left at path. It refuses to
// touch anything else: a symlink, a file of another kind, another user's
// socket, or one that somebody still listens on.
func prepare(path string, typ int) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // the directory may be missing, too: then bind says so
	case err != nil:
		return fmt.Errorf("stat socket %s: %w", path, err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fmt.Errorf("%s is a symbolic link and not a socket: remove it, or give the path it points to", path)
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
	// ECONNREFUSED means that nobody listens; every other answer, even a full
	// backlog or a socket of another type, means that somebody does.
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED):
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("socket %s is in use by another process: choose another path", path)
	}
	unlink(path, &st)
	return nil
}
