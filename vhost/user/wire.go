package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// reader takes messages off a connection.
type reader struct {
	conn    *net.UnixConn
	done    <-chan struct{} // closed when the port is: see discard
	header  [headerBytes]byte
	payload [maxPayload]byte
	oob     []byte
}

func newReader(conn *net.UnixConn, done <-chan struct{}) *reader {
	return &reader{conn: conn, done: done, oob: make([]byte, unix.CmsgSpace(4*maxTableFDs))}
}

// next waits for a message. Descriptors travel with a message's first byte. After
// an error no descriptor is left open.
func (r *reader) next() (m *message, err error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.header[:], r.oob)
	if err != nil {
		return nil, endOf(err)
	}
	m = new(message)
	if m.fds, err = parseFDs(r.oob[:oobn]); err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("%w: more than %d descriptors with a message", errProtocol, maxTableFDs)
	}
	if err == nil {
		_, err = io.ReadFull(r.conn, r.header[n:])
	}
	if err == nil {
		m.header, err = parseHeader(r.header[:])
	}
	if err == nil {
		m.payload = r.payload[:m.size]
		_, err = io.ReadFull(r.conn, m.payload)
	}
	if err != nil {
		discard(m.fds, r.done)
		return nil, endOf(err)
	}
	return m, nil
}

// endOf says in what way a connection ended.
func endOf(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("connection closed")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: connection closed within a message", errProtocol)
	}
	return err
}

// parseFDs lists the descriptors in control messages. The caller has to close
// them, also if there is an error.
func parseFDs(oob []byte) (fds []int, err error) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	for i := range list {
		got, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return fds, fmt.Errorf("%w: %w", errProtocol, err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// send replies to a request.
func (r *reply) send(conn *net.UnixConn, request uint32) error {
	var oob []byte
	if r.withFD {
		defer unix.Close(r.fd)
		oob = unix.UnixRights(r.fd)
	}
	if r.payload == nil && !r.always {
		return nil
	}
	if _, _, err := conn.WriteMsgUnix(appendMessage(nil, request, flagVersion|flagReply, r.payload), oob, nil); err != nil {
		return fmt.Errorf("reply to %s: %w", requestName(request), err)
	}
	return nil
}

// peerOf is who is at the other end, or nil.
func peerOf(conn *net.UnixConn) (peer *unix.Ucred) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	raw.Control(func(fd uintptr) {
		peer, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return peer
}

// hungUp reports that the other end is closed, whatever is left to be read.
func hungUp(conn *net.UnixConn) (yes bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true // closed here
	}
	if raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0)
		yes = n == 1 && err == nil
	}) != nil {
		return true
	}
	return yes
}
