// Package image prepares what test guests boot: Debian's cloud kernel, which it
// downloads and unpacks but never installs, and an initramfs of busybox, the
// kernel's network modules and the agent. Both are kept under build/guest and
// made again only when their sources change.
//
// It may be called by several processes at once; they wait for each other.
package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// Image is a bootable guest.
type Image struct {
	Kernel  string // path of a kernel that QEMU's -kernel takes
	Initrd  string // path of the initramfs
	Release string // uname -r
}

// Ensure returns the guest of this source tree, and makes it first if need be;
// log is told what takes time. Without the packages it needs, and without the
// network, its error says what to install.
func Ensure(ctx context.Context, log func(format string, args ...any)) (Image, error) {
	root, err := Root()
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(root, "build", "guest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()

	kernel, err := ensureKernel(ctx, dir, log)
	if err != nil {
		return Image{}, fmt.Errorf("prepare guest kernel: %w", err)
	}
	initrd, err := ensureInitrd(ctx, root, kernel, log)
	if err != nil {
		return Image{}, fmt.Errorf("prepare guest initramfs: %w", err)
	}
	return Image{Kernel: kernel.boot(), Initrd: initrd, Release: kernel.release}, nil
}

// Root is the top of the source tree: the nearest directory above the current
// one with a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find source tree: no go.mod in %s or above", dir)
		}
	}
}

// lock waits for the other processes that prepare a guest in the same tree.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// newest returns the matches of a pattern, the latest last.
func newest(pattern string) ([]string, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	when := map[string]int64{}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		when[p] = info.ModTime().UnixNano()
	}
	sort.Slice(paths, func(i, j int) bool { return when[paths[i]] < when[paths[j]] })
	return paths, nil
}

// writeFile puts a file in place whole or not at all.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
