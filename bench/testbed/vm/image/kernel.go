package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// kernelPackage is the metapackage that names Debian's present cloud kernel:
// small, and with every driver a virtual machine needs.
const kernelPackage = "linux-image-cloud-amd64"

// kernel is one unpacked kernel package.
type kernel struct {
	dir     string // holds the package's files as they would be installed
	release string
}

// boot is the kernel to give to QEMU: the unpacked one if we could unpack it,
// which saves the guest from doing so, else the package's own.
func (k kernel) boot() string {
	if p := filepath.Join(k.dir, "vmlinux"); exists(p) {
		return p
	}
	return k.packed()
}

func (k kernel) packed() string { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.release) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ensureKernel finds the kernel of an earlier run or downloads the present one.
func ensureKernel(ctx context.Context, dir string, log func(string, ...any)) (kernel, error) {
	const done = "complete"
	stamps, err := newest(filepath.Join(dir, "linux-*", done))
	if err != nil {
		return kernel{}, err
	}
	if len(stamps) == 0 {
		d, err := fetchKernel(ctx, dir, log)
		if err != nil {
			return kernel{}, err
		}
		if err := unpackBoot(d); err != nil {
			return kernel{}, err
		}
		stamps = []string{filepath.Join(d, done)}
		if err := os.WriteFile(stamps[0], nil, 0o644); err != nil {
			return kernel{}, err
		}
	}
	return openKernel(filepath.Dir(stamps[len(stamps)-1]))
}

// openKernel reads the release off the name of the boot image.
func openKernel(dir string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return kernel{}, err
	}
	if len(images) != 1 {
		return kernel{}, fmt.Errorf("%s holds %d kernels; remove it and try again", dir, len(images))
	}
	return kernel{dir: dir, release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}, nil
}

// unpackBoot writes the kernel's ELF image beside its boot image. A compression
// that we don't know is no error: then the guest unpacks it.
func unpackBoot(dir string) error {
	k, err := openKernel(dir)
	if err != nil {
		return err
	}
	packed, err := os.ReadFile(k.packed())
	if err != nil {
		return err
	}
	elf, err := unpackKernel(packed)
	if errors.Is(err, errCompression) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", k.packed(), err)
	}
	return writeFile(filepath.Join(dir, "vmlinux"), elf)
}

// dependency finds the versioned package in the output of apt-cache depends.
var dependency = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-\S+)$`)

// fetchKernel downloads the package, without any privilege, and unpacks it. A
// package file that somebody put into dir is taken instead.
func fetchKernel(ctx context.Context, dir string, log func(string, ...any)) (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("test guests need an amd64 machine, this is %s", runtime.GOARCH)
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return "", fmt.Errorf("%w: the guest kernel comes as a Debian package", err)
	}
	const packages = "linux-image-*-cloud-amd64_*.deb"
	debs, err := newest(filepath.Join(dir, packages))
	if err != nil {
		return "", err
	}
	if len(debs) == 0 {
		tmp, err := os.MkdirTemp(dir, "fetch-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(tmp)
		if err := download(ctx, tmp, log); err != nil {
			return "", fmt.Errorf("%w\nThis needs the network once, and root for: apt-get update\n"+
				"Without a network put a %s into %s", err, packages, dir)
		}
		if debs, err = newest(filepath.Join(tmp, packages)); err != nil || len(debs) == 0 {
			return "", fmt.Errorf("apt-get download left no %s (%w)", packages, err)
		}
	}
	deb := debs[len(debs)-1]
	name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(deb), "linux-image-"), "_")
	target := filepath.Join(dir, "linux-"+name)
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	_, err = command(ctx, dir, "dpkg-deb", "-x", deb, target)
	return target, err
}

// download fetches the newest cloud kernel's package into dir.
func download(ctx context.Context, dir string, log func(string, ...any)) error {
	depends, err := command(ctx, dir, "apt-cache", "depends", kernelPackage)
	if err != nil {
		return err
	}
	match := dependency.FindStringSubmatch(depends)
	if match == nil {
		return fmt.Errorf("apt knows no %s", kernelPackage)
	}
	log("downloading %s", match[1])
	_, err = command(ctx, dir, "apt-get", "-q", "download", match[1])
	return err
}

// command runs a program in dir and returns its standard output.
func command(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
