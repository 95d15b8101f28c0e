package vm

import (
	"net"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

// KernelArgs are the kernel's arguments for guests that somebody else starts.
const KernelArgs = kernelArgs

// Files are the kernel and the initial file system that guests boot, for those
// that somebody else starts, as libvirt does. Meet speaks to such a guest.
func Files(tb netns.TB) (kernel, initrd string) {
	tb.Helper()
	img, err := guestImage()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return img.Kernel, img.Initrd
}

// Meet is a guest that somebody else started: its virtio-serial port wire.Port is
// behind a unix socket, and console is the file of its serial line. The caller
// awaits its boot unless it runs already.
func Meet(tb netns.TB, name, socket, console string) *Guest {
	tb.Helper()
	var conn net.Conn
	netns.Await(tb, 10*time.Second, "the socket of "+name+"'s agent", func() (err error) {
		conn, err = net.Dial("unix", socket)
		return err
	})
	tb.Cleanup(func() { conn.Close() })
	g := &Guest{tb: tb, name: name, console: console, conn: wire.NewConn(conn),
		booted: make(chan struct{}, 1), pending: map[uint64]chan wire.Reply{}}
	go g.receive()
	return g
}
