package netdev

import (
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// bigFrames holds frames that were too long for their ring slot and that the
// kernel queued on the socket. They are lent from here until reset.
type bigFrames struct {
	mem  []byte
	used int
}

const (
	// bigArena is room for the longest frame, and for four ordinary GSO frames:
	// a batch small enough to stay in the second-level cache until it is sent.
	bigArena = 4*(64<<10) + frame.MaxLen + vnetLen + 1
	// bigBuffer is how much the kernel may keep queued (SO_RCVBUF), in bytes. A
	// 64 KiB frame counts with its overhead; a TCP sender has megabytes of them
	// under way. No memory is set aside: the frames are in use anyway, and
	// merely stay so until they are read.
	bigBuffer = 8 << 20
)

func newBigFrames() (*bigFrames, error) {
	mem, err := sysio.MapAnonymous(bigArena)
	if err != nil {
		return nil, err
	}
	return &bigFrames{mem: mem}, nil
}

// fits reports room for one more frame of that length. There always is some
// after reset.
func (g *bigFrames) fits(length int) bool {
	return g.used == 0 || g.used+vnetLen+length < len(g.mem)
}

// receive takes the next queued frame off the socket into f. It reports false,
// and lends nothing, if that is not the frame that the slot announced, or one
// longer than frame.MaxLen, as devices with a raised gso_max_size have them.
func (g *bigFrames) receive(fd int, f *frame.Frame, length int) bool {
	end := g.used + vnetLen + length
	b := g.mem[g.used:min(end+1, len(g.mem))] // a byte more, so that a longer frame shows
	n, errno := sysio.Read(fd, b)
	if errno != 0 && errno != unix.EAGAIN {
		n, errno = sysio.Read(fd, b) // that was the socket's pending error: the device went down
	}
	if errno != 0 || n != vnetLen+length || length < frame.HeaderLen || length > frame.MaxLen {
		return false
	}
	f.Hdr = frame.ReadVnetHdr(b)
	f.Data = b[vnetLen:n:n]
	g.used = (end + 7) &^ 7
	return true
}

// reset takes back every frame lent.
func (g *bigFrames) reset() { g.used = 0 }
