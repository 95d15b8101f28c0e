package sock

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/switch/host/sockfile"
)

// DefaultReconnect is the pause between a client's attempts to connect.
const DefaultReconnect = time.Second

// minReconnect keeps a wrong address from costing a core.
const minReconnect = 10 * time.Millisecond

// StreamOptions say where the peer of a Stream is. Exactly one of Path and Addr
// must be given.
type StreamOptions struct {
	Path string // a unix socket
	Addr string // host:port, TCP
	// Client connects, and connects again for as long as the port lives. A
	// server listens and serves one peer at a time; the next one waits in the
	// kernel's backlog until the first has gone, as with QEMU's own servers. So a
	// guest's successor (a restart, the target of a live migration) can connect
	// before its predecessor has disconnected.
	Client    bool
	Reconnect time.Duration    // 0 is DefaultReconnect; at least 10 ms
	File      sockfile.Options // the socket file of a server with a Path
}

// DgramOptions say where the two ends of a Dgram are: both paths of unix
// sockets (they hold a slash), or both host:port of UDP.
type DgramOptions struct {
	Local     string // bound by the switch; QEMU's remote
	Remote    string // where frames are sent; QEMU's local
	Reconnect time.Duration
	File      sockfile.Options // the socket file Local
}

// StreamKeys are the words that StreamOptions.Set takes.
func StreamKeys() []string {
	return append([]string{"path", "addr", "mode", "reconnect"}, sockfile.Keys()...)
}

// Set applies one word of a port's SPEC, such as mode=client.
func (o *StreamOptions) Set(key, value string) error {
	switch key {
	case "path":
		o.Path = value
	case "addr":
		o.Addr = value
	case "mode":
		if value != "server" && value != "client" {
			return fmt.Errorf("set mode=%s: want server or client", value)
		}
		o.Client = value == "client"
	case "reconnect":
		return setReconnect(&o.Reconnect, value)
	default:
		if slices.Contains(sockfile.Keys(), key) {
			return o.File.Set(key, value)
		}
		return fmt.Errorf("set %s=%s: no such key; known: %s", key, value, strings.Join(StreamKeys(), " "))
	}
	return nil
}

// DgramKeys are the words that DgramOptions.Set takes.
func DgramKeys() []string {
	return append([]string{"local", "remote", "reconnect"}, sockfile.Keys()...)
}

// Set applies one word of a port's SPEC, such as local=/run/vm4.sock.
func (o *DgramOptions) Set(key, value string) error {
	switch key {
	case "local":
		o.Local = value
	case "remote":
		o.Remote = value
	case "reconnect":
		return setReconnect(&o.Reconnect, value)
	default:
		if slices.Contains(sockfile.Keys(), key) {
			return o.File.Set(key, value)
		}
		return fmt.Errorf("set %s=%s: no such key; known: %s", key, value, strings.Join(DgramKeys(), " "))
	}
	return nil
}

func setReconnect(d *time.Duration, value string) error {
	v, err := time.ParseDuration(value)
	if err != nil || v < minReconnect {
		return fmt.Errorf("set reconnect=%s: want a duration of at least %v", value, minReconnect)
	}
	*d = v
	return nil
}

// Check says what is wrong with the options together.
func (o *StreamOptions) Check() error {
	switch {
	case o.Path == "" && o.Addr == "":
		return errors.New("want path=SOCKET or addr=HOST:PORT")
	case o.Path != "" && o.Addr != "":
		return errors.New("want one of path= and addr=, not both")
	case o.Path != "":
		return sockfile.CheckPath(o.Path)
	}
	return checkHostPort(o.Addr)
}

// Check says what is wrong with the options together.
func (o *DgramOptions) Check() error {
	for _, end := range []struct{ name, addr string }{{"local", o.Local}, {"remote", o.Remote}} {
		var err error
		switch {
		case end.addr == "":
			err = errors.New("want both ends: a socket path or HOST:PORT")
		case IsPath(end.addr):
			err = sockfile.CheckPath(end.addr)
		default:
			err = checkHostPort(end.addr)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", end.name, err)
		}
	}
	if IsPath(o.Local) != IsPath(o.Remote) {
		return errors.New("local and remote must both be socket paths or both be HOST:PORT")
	}
	if o.Local == o.Remote {
		return errors.New("local and remote are the same address: frames would come back")
	}
	return nil
}

// IsPath tells a socket's path, as local= and remote= take it, from HOST:PORT.
func IsPath(s string) bool { return strings.Contains(s, "/") }

func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: want HOST:PORT", addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("address %q: port %q is not a number from 0 to 65535", addr, port)
	}
	return nil
}

func reconnectPause(d time.Duration) time.Duration {
	if d == 0 {
		return DefaultReconnect
	}
	return max(d, minReconnect)
}
