// Command agent is the first process of a test guest: it mounts what a system
// needs, loads the drivers of the boot list, and then runs commands for the
// test that started the guest.
//
// It is process 1, so it also reaps the orphans of what it runs, and it never
// returns.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("agent: ")
	if err := boot(); err != nil {
		log.Print(err)
		halt()
	}
	port, err := openPort()
	if err != nil {
		log.Print(err)
		halt()
	}
	log.Print(serve(port))
	halt()
}

// halt stops the guest, which ends QEMU.
func halt() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// mounts are the file systems of a running system.
var mounts = []struct{ kind, dir, options string }{
	{"devtmpfs", "/dev", ""},
	{"proc", "/proc", ""},
	{"sysfs", "/sys", ""},
	{"tmpfs", "/run", ""},
	{"tmpfs", "/tmp", ""},
	{"devpts", "/dev/pts", ""},
	{"tmpfs", "/dev/shm", ""},
	{"bpf", "/sys/fs/bpf", ""},
	{"cgroup2", "/sys/fs/cgroup", ""},
}

func boot() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	for name, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		if err := os.Symlink(target, name); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/", "TERM": "dumb"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return loadDrivers("/etc/boot-modules")
}

// loadDrivers inserts the modules that a file lists, one path a line, each
// after those it needs.
func loadDrivers(list string) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if err := insert(s.Text()); err != nil {
			return fmt.Errorf("load %s: %w", s.Text(), err)
		}
	}
	return nil
}

func insert(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// openPort waits for the virtio-serial port to appear and opens it.
func openPort() (*os.File, error) {
	const patience = 20 * time.Second
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil || strings.TrimSpace(string(b)) != wire.Port {
				continue
			}
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %s after %v", wire.Port, patience)
}
