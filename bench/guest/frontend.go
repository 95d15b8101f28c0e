package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Requests of the vhost-user protocol, as QEMU's docs/interop/vhost-user.rst
// numbers them. Only those that a plain driver needs.
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqSetVringEnable      = 18
)

const (
	headerLen   = 12 // request, flags, size
	flagVersion = 1
	flagReply   = 1 << 2

	featMrgRxbuf = 1 << 15
	featProtocol = 1 << 30
	featVersion1 = 1 << 32
)

// answerLimit is how long a back end may take to connect or to answer.
const answerLimit = 5 * time.Second

// frontend is the socket to a vhost-user back end.
type frontend struct{ conn *net.UnixConn }

// dial connects to a back end that listens.
func dial(path string) (*frontend, error) {
	c, err := net.DialTimeout("unix", path, answerLimit)
	if err != nil {
		return nil, fmt.Errorf("connect to vhost-user back end: %w", err)
	}
	return &frontend{c.(*net.UnixConn)}, nil
}

// send sends one request with its descriptors.
func (f *frontend) send(request uint32, payload []byte, fds ...int) error {
	b := make([]byte, headerLen, headerLen+len(payload))
	binary.LittleEndian.PutUint32(b, request)
	binary.LittleEndian.PutUint32(b[4:], flagVersion)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := f.conn.WriteMsgUnix(append(b, payload...), oob, nil); err != nil {
		return fmt.Errorf("send vhost-user request %d: %w", request, err)
	}
	return nil
}

// ask sends a request that is answered with a number.
func (f *frontend) ask(request uint32) (uint64, error) {
	if err := f.send(request, nil); err != nil {
		return 0, err
	}
	if err := f.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return 0, err
	}
	var b [headerLen + 8]byte
	for n := 0; n < len(b); {
		k, err := f.conn.Read(b[n:])
		if err != nil {
			return 0, fmt.Errorf("receive answer to vhost-user request %d: %w", request, err)
		}
		n += k
	}
	if binary.LittleEndian.Uint32(b[:]) != request || binary.LittleEndian.Uint32(b[4:])&flagReply == 0 {
		return 0, fmt.Errorf("receive answer to vhost-user request %d: % x is none", request, b[:headerLen])
	}
	return binary.LittleEndian.Uint64(b[headerLen:]), nil
}

// words is a payload of 64-bit numbers.
func words(ws ...uint64) []byte {
	var b []byte
	for _, w := range ws {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// state is the payload of two 32-bit numbers: a ring and a value.
func state(ring, value int) []byte {
	return words(uint64(uint32(ring)) | uint64(uint32(value))<<32)
}

// negotiate agrees on the little that is needed: modern virtio, one queue pair.
func (f *frontend) negotiate() error {
	offered, err := f.ask(reqGetFeatures)
	if err != nil {
		return err
	}
	const need = featVersion1 | featMrgRxbuf | featProtocol
	if offered&need != need {
		return fmt.Errorf("vhost-user back end offers features %#x, want at least %#x", offered, uint64(need))
	}
	if _, err := f.ask(reqGetProtocolFeatures); err != nil {
		return err
	}
	return errors.Join(
		f.send(reqSetProtocolFeatures, words(0)),
		f.send(reqSetOwner, nil),
		f.send(reqSetFeatures, words(need)),
	)
}

// share tells the back end where guest memory is: one region.
func (f *frontend) share(fd int, size uint64) error {
	return f.send(reqSetMemTable, words(1, guestBase, size, userBase, 0), fd)
}

// ringAddress is where the areas of a ring are, as offsets in guest memory.
type ringAddress struct{ desc, avail, used uint64 }

// start hands over a ring.
func (f *frontend) start(ring, size int, at ringAddress, kick, call int) error {
	return errors.Join(
		f.send(reqSetVringNum, state(ring, size)),
		f.send(reqSetVringBase, state(ring, 0)),
		f.send(reqSetVringAddr, words(uint64(ring), userBase+at.desc, userBase+at.used, userBase+at.avail, 0)),
		f.send(reqSetVringKick, words(uint64(ring)), kick),
		f.send(reqSetVringCall, words(uint64(ring)), call),
		f.send(reqSetVringEnable, state(ring, 1)),
	)
}
