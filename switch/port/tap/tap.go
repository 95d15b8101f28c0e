// Package tap makes tap devices: persistent ones that QEMU opens (Create,
// Delete), and the switch's own, by which the host's IP stack is on the segment
// (Open).
//
// A tap has two ends. Whoever holds its file descriptor is one: QEMU for a
// guest's tap, this package for the host's. The network device is the other:
// the host's IP stack for the host's tap; for a guest's, the switch, which
// attaches it with package netdev and not with this one.
//
// Functions may be called from any goroutine. Devices are made in the network
// namespace of the Watcher that is handed in.
package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
)

// MaxQueues is the most queues a tap can have (MAX_TAP_QUEUES).
const MaxQueues = 256

// Options say how a tap is set up. What is zero is left to the kernel.
type Options struct {
	MAC    frame.MAC
	MTU    int     // bytes, 68–65521; 0 = 1500
	Queues int     // more than 1 makes it multi-queue. Create: as QEMU's queues= needs it; Open: so many for workers
	Owner  *uint32 // Create: the user who may open it besides root
	Group  *uint32 // Create: the group that may
	Alias  string  // Open: marks the device as ours; "" = it is not marked
	Keep   bool    // Open: the device stays when the port is closed, and is found again by its mark
}

// Create makes a persistent tap, down, for QEMU to open by name
// (`-netdev tap,ifname=NAME,script=no`). An existing device of that name is an
// error.
func Create(w *link.Watcher, name string, o Options) error {
	if err := link.CheckName(name); err != nil {
		return fmt.Errorf("create tap: %w", err)
	}
	if err := o.checkQueues(); err != nil {
		return fmt.Errorf("create tap %s: %w", name, err)
	}
	return within(w, func() error {
		if _, err := w.ByName(name); err == nil {
			return fmt.Errorf("create tap %s: a device of that name exists; `ip link del %s` if it is a leftover", name, name)
		}
		cfg := water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{
			Name: name, Persist: true, MultiQueue: o.Queues > 1}}
		dev, err := water.New(cfg)
		if err != nil {
			return fmt.Errorf("create tap %s: %w", name, mend(err))
		}
		if err = permit(dev, o); err == nil {
			err = configure(w, name, o, false)
		}
		if closeErr := dev.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = remove(w, name)
			return fmt.Errorf("create tap %s: %w", name, err)
		}
		return nil
	})
}

func (o Options) checkQueues() error {
	if o.Queues < 0 || o.Queues > MaxQueues {
		return fmt.Errorf("%d queues; want 1 to %d", o.Queues, MaxQueues)
	}
	return nil
}

// permit lets others than root open the tap. It does so without water, which sets
// user and group only together, and there is no value for "any".
func permit(dev *water.Interface, o Options) error {
	file, ok := dev.ReadWriteCloser.(*os.File)
	if !ok {
		return errors.New("water holds the tap in something else than a file")
	}
	if o.Owner != nil {
		if err := unix.IoctlSetInt(int(file.Fd()), unix.TUNSETOWNER, int(*o.Owner)); err != nil {
			return fmt.Errorf("set owner %d: %w", *o.Owner, err)
		}
	}
	if o.Group != nil {
		if err := unix.IoctlSetInt(int(file.Fd()), unix.TUNSETGROUP, int(*o.Group)); err != nil {
			return fmt.Errorf("set group %d: %w", *o.Group, err)
		}
	}
	return nil
}

// Delete removes a tap, whoever has it open.
func Delete(w *link.Watcher, name string) error {
	return within(w, func() error {
		if err := remove(w, name); err != nil {
			return fmt.Errorf("delete tap %s: %w", name, err)
		}
		return nil
	})
}

func remove(w *link.Watcher, name string) error {
	link, err := w.Handle().LinkByName(name)
	if err != nil {
		return err
	}
	if link.Type() != "tuntap" && link.Type() != "tun" {
		return fmt.Errorf("it is a %s device, not a tap", link.Type())
	}
	return w.Handle().LinkDel(link)
}

// configure sets a device's address, MTU and state.
func configure(w *link.Watcher, name string, o Options, up bool) error {
	link, err := w.Handle().LinkByName(name)
	if err != nil {
		return err
	}
	if !o.MAC.IsZero() && !slices.Equal(link.Attrs().HardwareAddr, o.MAC[:]) {
		if err := w.Handle().LinkSetHardwareAddr(link, o.MAC[:]); err != nil {
			return fmt.Errorf("set address %v: %w", o.MAC, err)
		}
	}
	if o.MTU != 0 && link.Attrs().MTU != o.MTU {
		if err := w.Handle().LinkSetMTU(link, o.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", o.MTU, err)
		}
	}
	if up {
		if err := w.Handle().LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

// within runs f on the watcher's goroutine, in its namespace.
func within(w *link.Watcher, f func() error) (err error) {
	if !w.Do(func() { err = f() }) {
		return errors.New("the watcher of network devices is closed")
	}
	return err
}

// mend says what to do about the errors of /dev/net/tun that users meet.
func mend(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; load the tun module (`modprobe tun`) or give this container /dev/net/tun", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; it takes CAP_NET_ADMIN and access to /dev/net/tun", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w; another process has it open", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w; a device of that name exists and is no tap, or one with more or fewer queues", err)
	}
	return err
}
