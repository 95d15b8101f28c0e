package sysio

import "golang.org/x/sys/unix"

// Mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2). Callers keep arrays
// of them whose Hdr fields are set once and reused.
type Mmsghdr struct {
	Hdr unix.Msghdr
	Len uint32 // bytes sent or received, set by the kernel
	_   [4]byte
}

// MaxIovecs is UIO_MAXIOV: the most pieces that one message may have.
const MaxIovecs = 1024

// SetIovecs makes the message consist of iov, which must not be empty and must
// live as long as the header is used.
func (m *Mmsghdr) SetIovecs(iov []unix.Iovec) {
	m.Hdr.Iov = &iov[0]
	m.Hdr.SetIovlen(len(iov))
}

// Piece is the iovec of b. An empty b is an empty piece.
func Piece(b []byte) (v unix.Iovec) {
	if len(b) > 0 {
		v.Base = &b[0]
		v.SetLen(len(b))
	}
	return v
}
