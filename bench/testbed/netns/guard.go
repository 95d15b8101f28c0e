package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named namespaces.
const netnsDir = "/run/netns"

// guardScript waits until the pipe on its standard input closes, which happens
// when this process is gone for whatever reason, and removes what it left.
const guardScript = `trap '' INT TERM HUP
read -r _
for ns in ` + netnsDir + `/"$1"*; do
	[ -e "$ns" ] || continue
	umount -l "$ns"
	rm -f "$ns"
done
rm -rf "$2"/"$1"*
`

// guard starts the process that cleans up after this one, once, and removes
// what earlier runs left that had no time for it.
//
// A signal handler could not do it: a test binary dies by SIGKILL, by its own
// timeout, or by a panic on another goroutine.
var guard = sync.OnceValue(func() error {
	reap()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	r := os.NewFile(uintptr(pipe[0]), "guard") // pipe[1] stays open until the process ends
	defer r.Close()
	cmd := exec.Command("sh", "-c", guardScript, "sh", fmt.Sprintf("%s%d-", prefix, os.Getpid()), os.TempDir())
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of Ctrl-C
	return cmd.Start()
})

// reap removes the namespaces and directories of owners that live no more. It
// is best effort: what it can't remove harms no later run.
func reap() {
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if !abandoned(e.Name()) {
				continue
			}
			if dir == netnsDir {
				_ = netns.DeleteNamed(e.Name())
			} else {
				_ = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// abandoned reports that name is one of ours and its owner is gone.
func abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	pid, _, numbered := strings.Cut(rest, "-")
	if !ours || !numbered {
		return false
	}
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	_, err := os.Stat("/proc/" + pid)
	return errors.Is(err, fs.ErrNotExist)
}
