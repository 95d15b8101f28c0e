// Package initrd writes initramfs archives: cpio in the "newc" format that the
// Linux kernel unpacks, described in its admin guide under "initramfs buffer
// format". The kernel accepts several archives in a row, so that a test can add
// a file to a finished one.
//
// It holds an archive in memory and touches no file system but to read. An
// Archive belongs to one goroutine.
package initrd

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Archive is a set of files under construction. The zero value is empty.
type Archive struct {
	buf  bytes.Buffer
	seen map[string]bool
	err  error
}

// Modes of directory entries, stat(2).
const (
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
)

// trailer is the name that ends an archive.
const trailer = "TRAILER!!!"

// File adds a file, and the directories above it.
func (a *Archive) File(name string, perm fs.FileMode, data []byte) {
	a.parents(name)
	a.entry(name, modeFile|uint32(perm.Perm()), data)
}

// Symlink adds a symbolic link, and the directories above it.
func (a *Archive) Symlink(name, target string) {
	a.parents(name)
	a.entry(name, modeSymlink|0o777, []byte(target))
}

// Dir adds a directory, and those above it.
func (a *Archive) Dir(name string) {
	a.parents(name)
	if a.first(name) {
		a.entry(name, modeDir|0o755, nil)
	}
}

// Copy adds a file of this machine, following symbolic links, with its mode.
func (a *Archive) Copy(name, source string) {
	info, err := os.Stat(source)
	if err != nil {
		a.fail(err)
		return
	}
	data, err := os.ReadFile(source)
	if err != nil {
		a.fail(err)
		return
	}
	a.File(name, info.Mode(), data)
}

// Tree adds a directory of this machine under the same path, with everything
// below it.
func (a *Archive) Tree(dir string) {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			a.Dir(p)
		default:
			a.Copy(p, p)
		}
		return a.err
	})
	a.fail(err)
}

// Program adds an executable of this machine under name, and under their own
// paths the dynamic loader and the shared libraries that ldd(1) finds for it.
func (a *Archive) Program(name, source string) {
	a.Copy(name, source)
	libs, err := libraries(source)
	if err != nil {
		a.fail(err)
		return
	}
	for _, lib := range libs {
		if a.first(lib) {
			a.Copy(lib, lib)
		}
	}
}

// Bytes ends the archive and returns it, or the first error met on the way.
func (a *Archive) Bytes() ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	end := Archive{}
	end.entry(trailer, 0, nil)
	return append(bytes.Clone(a.buf.Bytes()), end.buf.Bytes()...), nil
}

func (a *Archive) fail(err error) {
	if a.err == nil && err != nil {
		a.err = fmt.Errorf("build initramfs: %w", err)
	}
}

// first reports whether name is new, and remembers it.
func (a *Archive) first(name string) bool {
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	name = clean(name)
	known := a.seen[name]
	a.seen[name] = true
	return !known
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *Archive) parents(name string) {
	if dir := path.Dir(clean(name)); dir != "." && dir != "/" {
		a.Dir(dir)
	}
}

// entry writes one header, the name and the data, each padded to four bytes.
func (a *Archive) entry(name string, mode uint32, data []byte) {
	name = clean(name)
	const (
		ino, uid, gid, nlink, mtime = 0, 0, 0, 1, 0
		major, minor                = 0, 0
		check                       = 0
	)
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, uid, gid, nlink, mtime, len(data), major, minor, major, minor, len(name)+1, check, name)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *Archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// libraries are the shared objects, loader included, that a program needs.
func libraries(program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", program, err)
	}
	defer f.Close()
	interp := f.Section(".interp")
	if interp == nil {
		return nil, nil // static
	}
	loader, err := io.ReadAll(interp.Open())
	if err != nil {
		return nil, fmt.Errorf("read loader of %s: %w", program, err)
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	libs, err := parseLdd(string(out))
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	return append(libs, strings.TrimRight(string(loader), "\x00")), nil
}

// parseLdd takes the paths out of lines such as
// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)".
func parseLdd(out string) ([]string, error) {
	var libs []string
	for line := range strings.Lines(out) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			continue // the vdso and the loader itself
		}
		file, _, _ := strings.Cut(rest, " (")
		if !path.IsAbs(file) {
			return nil, errors.New(name + " not found")
		}
		libs = append(libs, file)
	}
	return libs, nil
}
