package bridgehelper

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// atSecure is AT_SECURE of getauxval(3), where the kernel says so.
const atSecure = 23

// GiveUp gives up, for good, what a setuid or setgid bit or capabilities of the
// file have given to the program, and reports whether they have given anything
// (AT_SECURE, getauxval(3)): if so, nothing of the caller's environment is to be
// believed. From then on the process is the user who called it, who must be the
// one whom the switch sees: SO_PEERCRED tells of the effective ids.
//
// The calling goroutine keeps its thread, as capabilities are a thread's.
func GiveUp() (secure bool, err error) {
	runtime.LockOSThread()
	vector, err := unix.Auxv()
	if err != nil {
		return true, fmt.Errorf("give up privileges: read auxiliary vector: %w", err)
	}
	for _, entry := range vector {
		if entry[0] == atSecure {
			secure = entry[1] != 0
		}
	}
	uid, gid := os.Getuid(), os.Getgid()
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return secure, fmt.Errorf("give up privileges: become group %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return secure, fmt.Errorf("give up privileges: become user %d: %w", uid, err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return secure, fmt.Errorf("give up privileges: %w", err)
	}
	if secure && uid != 0 {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return secure, fmt.Errorf("give up capabilities: %w", err)
		}
	}
	return secure, nil
}
