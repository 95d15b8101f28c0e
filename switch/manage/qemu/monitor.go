package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

// Limits of a monitor connection. QEMU answers in microseconds unless it is
// starved of CPU time; whatever takes longer than this is not coming.
const (
	greetingTimeout = 5 * time.Second
	commandTimeout  = 30 * time.Second
	maxMessage      = 1 << 20 // bytes; query-qmp-schema, the longest answer, is some 200 KiB
	eventQueue      = 256
)

// Monitor is a connection to QEMU's control socket. It implements go-qemu's
// qmp.Monitor, whose types and typed commands (qmp/raw) are used above it.
//
// It is not go-qemu's own SocketMonitor, because that one hands out the buffer
// it goes on reading into (an answer followed by an event is overwritten while
// it is parsed: the race detector shows it), waits for ever for a greeting that
// does not come, and is deaf for good after a line of 64 KiB. A switch keeps
// its monitors open for as long as the guests run and cannot afford any of it.
//
// QEMU serves one client on each monitor socket. Whoever attaches guests that
// also have another manager gives them a second `-qmp` for the switch.
type Monitor struct {
	path         string
	conn         *net.UnixConn
	version      qmp.Version
	capabilities []string

	run     sync.Mutex // one command at a time
	answers chan []byte
	events  chan qmp.Event
	missed  atomic.Uint64
	gone    chan struct{} // closed when nothing more can be read
	err     error         // why; valid once gone is closed
}

var _ qmp.Monitor = (*Monitor)(nil)

// ErrMonitorClosed is returned by commands on a monitor whose QEMU has ended or
// that was disconnected.
var ErrMonitorClosed = errors.New("monitor connection closed")

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Command     string
	Class, Desc string
}

func (e *CommandError) Error() string { return fmt.Sprintf("%s: %s", e.Command, e.Desc) }

// Dial connects to the monitor socket at path and agrees on capabilities. It
// gives up after 5 s without a greeting: path is then no QMP socket, or one
// that QEMU serves to somebody else.
func Dial(ctx context.Context, path string) (*Monitor, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to QMP socket: %w", err)
	}
	m := &Monitor{
		path: path, conn: c.(*net.UnixConn),
		answers: make(chan []byte, 1), events: make(chan qmp.Event, eventQueue), gone: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	scan := bufio.NewScanner(c)
	scan.Buffer(make([]byte, 0, 4096), maxMessage)
	err = m.handshake(scan)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("QMP socket %s: %w", path, err)
	}
	c.SetDeadline(time.Time{})
	go m.read(scan)
	return m, nil
}

// handshake reads the greeting and leaves negotiation mode (QMP specification,
// "Capabilities Negotiation").
func (m *Monitor) handshake(scan *bufio.Scanner) error {
	var greeting struct {
		QMP *struct {
			Version      qmp.Version `json:"version"`
			Capabilities []string    `json:"capabilities"`
		} `json:"QMP"`
	}
	switch err := next(scan, &greeting); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no greeting within %v: it is not QMP, or another client (libvirt?) holds it; give QEMU a second -qmp socket", greetingTimeout)
	case err != nil:
		return fmt.Errorf("read greeting: %w: is it a QMP socket (-qmp unix:PATH,server=on,wait=off)?", err)
	case greeting.QMP == nil:
		return errors.New("it does not greet as QMP does: is it a QMP socket (-qmp unix:PATH,server=on,wait=off)?")
	}
	m.version, m.capabilities = greeting.QMP.Version, greeting.QMP.Capabilities
	if _, err := m.conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n")); err != nil {
		return fmt.Errorf("write qmp_capabilities: %w", err)
	}
	var a answer
	if err := next(scan, &a); err != nil {
		return fmt.Errorf("read answer to qmp_capabilities: %w", err)
	}
	return a.refusal("qmp_capabilities")
}

// next decodes the next line.
func next(scan *bufio.Scanner, v any) error {
	if !scan.Scan() {
		if err := scan.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(scan.Bytes(), v)
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

func (a *answer) refusal(command string) error {
	if a.Error == nil {
		return nil
	}
	return &CommandError{Command: command, Class: a.Error.Class, Desc: a.Error.Desc}
}

// read sorts what comes into answers and events until the connection ends.
func (m *Monitor) read(scan *bufio.Scanner) {
	defer close(m.events)
	defer close(m.gone)
	defer m.conn.Close()
	m.err = ErrMonitorClosed
	for scan.Scan() {
		var e qmp.Event
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			m.err = fmt.Errorf("%w: it sent %.60q, which is not QMP", ErrMonitorClosed, scan.Bytes())
			return
		}
		if e.Event == "" {
			select {
			case m.answers <- bytes.Clone(scan.Bytes()):
			default: // an answer that nobody asked for
			}
			continue
		}
		select {
		case m.events <- e:
		default:
			m.missed.Add(1)
		}
	}
	if err := scan.Err(); err != nil && !errors.Is(err, net.ErrClosed) {
		m.err = fmt.Errorf("%w: %w", ErrMonitorClosed, err)
	}
}

// Connect implements qmp.Monitor; Dial has connected.
func (m *Monitor) Connect() error { return nil }

// Disconnect closes the connection. QEMU goes on.
func (m *Monitor) Disconnect() error {
	err := m.conn.Close()
	<-m.gone
	if errors.Is(err, net.ErrClosed) { // QEMU was first
		err = nil
	}
	return err
}

// Events implements qmp.Monitor. The channel is closed when the connection
// ends. Events that find it full are dropped and counted in Missed.
func (m *Monitor) Events(context.Context) (<-chan qmp.Event, error) { return m.events, nil }

// Missed is the number of events that nobody read in time.
func (m *Monitor) Missed() uint64 { return m.missed.Load() }

// Done is closed when the connection has ended, mostly because QEMU has.
func (m *Monitor) Done() <-chan struct{} { return m.gone }

// Version is QEMU's.
func (m *Monitor) Version() qmp.Version { return m.version }

// Run implements qmp.Monitor: one command, as JSON, and QEMU's answer to it.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	var c qmp.Command
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, fmt.Errorf("run command: %w", err)
	}
	return m.exchange(c.Execute, append(command, '\n'), nil)
}

// Do runs one command with its arguments. result may be nil.
func (m *Monitor) Do(command string, args, result any) error { return m.do(command, args, nil, result) }

// SendFile gives QEMU a descriptor under a name that later commands use
// (getfd). QEMU has its own copy when it returns.
func (m *Monitor) SendFile(name string, f *os.File) error {
	return m.do("getfd", map[string]string{"fdname": name}, f, nil)
}

func (m *Monitor) do(command string, args any, f *os.File, result any) error {
	line, err := json.Marshal(qmp.Command{Execute: command, Args: args})
	if err != nil {
		return fmt.Errorf("%s: encode: %w", command, err)
	}
	raw, err := m.exchange(command, append(line, '\n'), f)
	if err != nil || result == nil {
		return err
	}
	var a answer
	if err = json.Unmarshal(raw, &a); err == nil {
		err = json.Unmarshal(a.Return, result)
	}
	if err != nil {
		return fmt.Errorf("%s: decode answer: %w", command, err)
	}
	return nil
}

// exchange sends a line, with f's descriptor beside its first byte, and waits
// for the answer. A QEMU that gives none in time is disconnected: a late answer
// would be taken for the next command's.
func (m *Monitor) exchange(command string, line []byte, f *os.File) ([]byte, error) {
	m.run.Lock()
	defer m.run.Unlock()
	if err := m.write(line, f); err != nil {
		select {
		case <-m.gone:
			err = m.err
		default:
		}
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	t := time.NewTimer(commandTimeout)
	defer t.Stop()
	var raw []byte
	select {
	case raw = <-m.answers:
	case <-m.gone:
		select { // the answer may have been the last thing it said
		case raw = <-m.answers:
		default:
			return nil, fmt.Errorf("%s: %w", command, m.err)
		}
	case <-t.C:
		m.conn.Close()
		return nil, fmt.Errorf("%s: no answer within %v: %w", command, commandTimeout, ErrMonitorClosed)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("%s: decode answer: %w", command, err)
	}
	return raw, a.refusal(command)
}

func (m *Monitor) write(line []byte, f *os.File) error {
	m.conn.SetWriteDeadline(time.Now().Add(commandTimeout))
	if f == nil {
		_, err := m.conn.Write(line)
		return err
	}
	if !slices.Contains(m.capabilities, "oob") {
		// A monitor on a socket has had it since QEMU 4.0; one behind another
		// kind of character device takes no descriptors either.
		return errors.New("this monitor cannot take descriptors; want -qmp unix:PATH,server=on,wait=off of QEMU 4.0 or later")
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	// Not f.Fd(), which would make the descriptor blocking.
	if cerr := rc.Control(func(fd uintptr) {
		n, _, err = m.conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
	}); cerr != nil {
		return cerr
	}
	if err == nil && n < len(line) {
		_, err = m.conn.Write(line[n:])
	}
	return err
}
