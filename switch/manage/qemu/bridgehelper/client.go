package bridgehelper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SocketPath is the socket on which the switch called name gives out taps.
func SocketPath(runDir, name string) string { return filepath.Join(runDir, name+".helper.sock") }

// Run is the bridge helper: it asks the switch called a.Bridge for a tap
// and passes the tap's descriptor to QEMU, beside one zero byte, on a.FD. It
// needs no privilege; the switch decides.
func Run(ctx context.Context, runDir string, a Args) error {
	if strings.ContainsRune(a.Bridge, '/') {
		return fmt.Errorf("--br=%s: want the name of a switch", a.Bridge)
	}
	tap, err := requestTap(ctx, SocketPath(runDir, a.Bridge), a)
	if err != nil {
		return fmt.Errorf("get a tap of switch %s: %w", a.Bridge, err)
	}
	defer tap.Close()
	if err := unix.Sendmsg(a.FD, []byte{0}, unix.UnixRights(int(tap.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("pass the tap to QEMU on descriptor %d: %w", a.FD, err)
	}
	return nil
}

// requestTap returns the tap as an open descriptor. When nobody holds a copy of
// it any more, the tap and its port go.
func requestTap(ctx context.Context, path string, a Args) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("it is not running, or not as root: %w", err)
	case err != nil:
		return nil, err
	}
	defer c.Close()
	conn := c.(*net.UnixConn)
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := conn.Write(AppendRequest(nil, a)); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("send request: %w", err)
	} // EPIPE: it refused before it listened; its answer is there to be read
	reply, oob := make([]byte, MaxReply), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(reply, oob)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	files, err := receivedFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if _, err := ParseReply(reply[:n]); err != nil {
		closeAll(files)
		return nil, err
	}
	if len(files) != 1 {
		closeAll(files)
		return nil, fmt.Errorf("%d descriptors in the answer, want 1", len(files))
	}
	return files[0], nil
}

// receivedFiles takes the descriptors out of a control message, all of them.
func receivedFiles(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "tap"))
		}
	}
	return files, nil
}

// helperTimeout bounds each side's wait for the other: QEMU waits for its helper
// without a limit, so the helper must have one.
const helperTimeout = 10 * time.Second

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
