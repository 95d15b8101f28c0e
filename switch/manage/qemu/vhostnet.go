package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// vhostPath is the kernel's vhost_net. QEMU gets a descriptor of it for each
// queue pair of a guest's; a kernel thread then works the guest's rings, and the
// switch meets the guest at the tap's netdev as always. That the switch drove
// such rings itself did not pay (bench/RESULTS.md).
const vhostPath = "/dev/vhost-net"

// Ioctls of linux/vhost.h, _IOR and _IOW of 0xaf.
const vhostGetFeatures = 0x8008af00 // u64

// Features that a guest's rings need of vhost_net, by their bit numbers in
// virtio 1.2 (2.2, 5.1.3) and linux/vhost.h.
var neededVHost = []struct {
	bit  uint
	name string
}{
	{15, "VIRTIO_NET_F_MRG_RXBUF"},     // Linux 2.6.36
	{27, "VHOST_NET_F_VIRTIO_NET_HDR"}, // always
	{32, "VIRTIO_F_VERSION_1"},         // Linux 4.0
}

// VHostAvailable reports whether vhost_net can be used by this process: nil, or why
// not and what to do about it.
func VHostAvailable() error {
	f, err := openVHost(vhostPath)
	if err != nil {
		return err
	}
	return f.Close()
}

// openVHosts opens the device once for each of n queues, checked. The caller owns
// the files; on error there are none.
func openVHosts(path string, n int) ([]*os.File, error) {
	var files []*os.File
	for range n {
		f, err := openVHost(path)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func openVHost(path string) (*os.File, error) {
	// Not os.OpenFile: the Go runtime would watch the descriptor, which another
	// process is about to use.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explainVHost(&fs.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	features, err := unix.IoctlGetInt(fd, vhostGetFeatures)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is no vhost_net device: get features: %w", path, err)
	}
	if missing := lackingVHost(uint64(features)); len(missing) > 0 {
		f.Close()
		return nil, fmt.Errorf("%s lacks %s: the kernel is too old", path, strings.Join(missing, ", "))
	}
	return f, nil
}

func lackingVHost(features uint64) (missing []string) {
	for _, n := range neededVHost {
		if features&(1<<n.bit) == 0 {
			missing = append(missing, n.name)
		}
	}
	return missing
}

// explainVHost says what an error of open(2) means here.
func explainVHost(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: module vhost_net is not loaded (modprobe vhost_net), or the kernel is built without CONFIG_VHOST_NET", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: give this user access to the device (on Debian: group kvm)", err)
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		// The node is made at boot by kmod's static list; the module is not there.
		return fmt.Errorf("%w: the kernel has no module vhost_net", err)
	}
	return err
}
