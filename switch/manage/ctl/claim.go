package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kvswitch/kvswitch/switch/host/sockfile"
	"github.com/kvswitch/kvswitch/switch/manage/config"

	"golang.org/x/sys/unix"
)

// DefaultRunDir is where control sockets are unless told otherwise.
const DefaultRunDir = sockfile.RunDir

// socketMode is the control socket's: the owner and its group control the switch.
const socketMode = 0o660

// SocketPath is the control socket of the switch called name.
func SocketPath(runDir, name string) string { return filepath.Join(runDir, name+".sock") }

func pidPath(runDir, name string) string { return filepath.Join(runDir, name+".pid") }

// Listener is a claimed name: a control socket that clients connect to, and a
// pid file that is locked (F_OFD_SETLK, fcntl(2)) for as long as the switch
// lives. The lock, not the socket, says that a switch runs: it ends with the
// process, however that ends. Nobody else may open the pid file: whoever can read
// a file can lock it, too, and so could keep the name from being claimed again.
type Listener struct {
	net.Listener
	socket *sockfile.File
	lock   *os.File
	pid    string // the lock's path
}

// Listen claims name in runDir, which it makes if need be. What a switch that
// is gone left behind is taken over; a live one's name is refused.
func Listen(runDir, name string) (*Listener, error) { return ListenGroup(runDir, name, "") }

// ListenGroup is Listen, and has the members of a group, by name or number, control
// the switch; "" leaves the socket to the process's own group.
func ListenGroup(runDir, name, group string) (*Listener, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w: choose another with --run-dir or KVSWITCH_RUN_DIR", err)
	}
	l := &Listener{pid: pidPath(runDir, name)}
	if err := l.takeLock(name); err != nil {
		return nil, err
	}
	options := sockfile.Options{Perm: socketMode}
	if group != "" {
		options.Owner = ":" + group
	}
	ln, file, err := sockfile.Listen("unix", SocketPath(runDir, name), options)
	if err != nil {
		l.dropLock()
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	l.Listener, l.socket = ln, file
	return l, nil
}

// takeLock makes the pid file ours. A file that its last owner removed while we
// were opening it is no claim, so the lock must be on the file that has the name.
func (l *Listener) takeLock(name string) error {
	for {
		f, err := os.OpenFile(l.pid, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return fmt.Errorf("claim the name %s: %w: choose another --run-dir if this one is not yours", name, err)
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			pid, _ := io.ReadAll(io.LimitReader(f, 32))
			f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return fmt.Errorf("switch %s is running already (pid %s): stop it, or choose another --name", name, strings.TrimSpace(string(pid)))
			}
			return fmt.Errorf("lock %s: %w", l.pid, err)
		}
		if !named(f, l.pid) {
			f.Close()
			continue
		}
		l.lock = f
		if err = f.Chmod(0o600); err == nil { // one that a crash left may have been another's to read
			err = f.Truncate(0)
		}
		if err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if err != nil {
			l.dropLock()
			return fmt.Errorf("claim the name %s: %w", name, err)
		}
		return nil
	}
}

// named reports whether the open file is still the one called path.
func named(f *os.File, path string) bool {
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(held, there)
}

func (l *Listener) dropLock() {
	if named(l.lock, l.pid) {
		os.Remove(l.pid)
	}
	l.lock.Close()
}

// Close stops listening and removes the socket and the pid file, unless
// something else has their names by now.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.socket.Remove()
	l.dropLock()
	return err
}

// Running lists the names of the switches that run in runDir.
func Running(runDir string) ([]string, error) {
	files, err := os.ReadDir(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list running switches: %w", err)
	}
	var names []string
	for _, file := range files {
		name, ok := strings.CutSuffix(file.Name(), ".pid")
		if ok && locked(filepath.Join(runDir, file.Name())) {
			names = append(names, name)
		}
	}
	return names, nil
}

// locked reports whether a pid file's switch lives. It asks without taking the
// lock, which would get in the way of a switch that starts just now. A file that
// may not be opened counts as a live one's: its socket tells whoever connects
// what is wrong.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// Choose is the name of the switch that a command means: name itself if given,
// else the only one that runs.
func Choose(runDir, name string) (string, error) {
	if name != "" {
		return name, config.CheckName(name) // it becomes part of a path
	}
	names, err := Running(runDir)
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("no switch is running in %s: start one with `kvswitch run`", runDir)
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("several switches are running: choose one with -s or KVSWITCH_SWITCH: %s", strings.Join(names, ", "))
}
