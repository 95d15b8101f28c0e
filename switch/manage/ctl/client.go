package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"

	"golang.org/x/sys/unix"
)

// Client speaks to one switch.
type Client struct {
	name string
	path string
	http http.Client
	warn func(string) // nil = nobody wants to hear
}

// A switch that is there and does not accept, or accepts and does not answer
// within the server's own limits, has stopped or been stopped.
const (
	connectTimeout = 5 * time.Second
	callTimeout    = answerTimeout + connectTimeout
)

// NewClient makes a client of the switch called name. It connects when it is used.
func NewClient(runDir, name string) *Client {
	c := &Client{name: name, path: SocketPath(runDir, name)}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return new(net.Dialer).DialContext(ctx, "unix", c.path)
		},
		DisableCompression: true,
		MaxIdleConns:       1,
	}
	return c
}

// Name is the switch's name.
func (c *Client) Name() string { return c.name }

// OnWarning has each called with what a call that succeeds warns of, a line each.
// It is set before the client is used.
func (c *Client) OnWarning(each func(line string)) { c.warn = each }

// Close ends the connection that the client keeps for its next call.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request with body in, if not nil, and decodes the answer into out,
// if not nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read the answer of switch %s: %w", c.name, err)
	}
	return nil
}

// send returns the answer to a request if it is a good one, else the error that
// the switch gave.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://kvswitch"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		if c.warn != nil {
			for _, line := range warned(resp.Header) {
				c.warn(line)
			}
		}
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("switch %s answers %q", c.name, resp.Status)
	}
	return nil, &refusal{resp.StatusCode, f.Error}
}

// refusal is an error that the switch gave.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// Is makes the errors that callers tell apart what they are in the switch.
func (r *refusal) Is(target error) bool {
	switch target {
	case vswitch.ErrNoPort:
		return r.status == http.StatusNotFound
	case vswitch.ErrPortExists:
		return r.status == http.StatusConflict
	}
	return false
}

// ErrNotRunning is that there is no switch of that name.
var ErrNotRunning = errors.New("not running")

// unreachable says what it means that a request did not get through.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("switch %s does not answer", c.name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("switch %s is %w: there is no %s: start it with `kvswitch run`", c.name, ErrNotRunning, c.path)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("switch %s is %w: it left %s behind: start it with `kvswitch run`", c.name, ErrNotRunning, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not open %s: be root or in the socket's group", c.path)
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF):
		return fmt.Errorf("switch %s closed the connection: it is stopping, or has too many clients: try again", c.name)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("speak to switch %s: %w", c.name, err)
}

// onPort sends a request whose path has a port's name between base and verb. A
// name that no port can have is not sent: it would make another path.
func (c *Client) onPort(ctx context.Context, method, base, name, verb string, in, out any) error {
	if err := config.CheckName(name); err != nil {
		return err
	}
	return c.do(ctx, method, base+url.PathEscape(name)+verb, in, out)
}

// query builds ?port=&vlan= from what is not empty.
func query(port string, vlan uint16) string {
	q := url.Values{}
	if port != "" {
		q.Set("port", port)
	}
	if vlan != 0 {
		q.Set("vlan", strconv.Itoa(int(vlan)))
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// Status is the whole switch at this moment.
func (c *Client) Status(ctx context.Context) (st vswitch.Status, err error) {
	err = c.do(ctx, "GET", "/v1/switch", nil, &st)
	return st, err
}

// SetAgeing sets how long a station is remembered; 0 or vswitch.AgeingOff is not
// at all.
func (c *Client) SetAgeing(ctx context.Context, d time.Duration) error {
	return c.do(ctx, "PATCH", "/v1/switch", map[string]string{"ageing": max(d, 0).String()}, nil)
}

// Port is one port at this moment, the host interface included.
func (c *Client) Port(ctx context.Context, name string) (p vswitch.PortStatus, err error) {
	err = c.onPort(ctx, "GET", "/v1/ports/", name, "", nil, &p)
	return p, err
}

// Ports are all ports, the host interface first.
func (c *Client) Ports(ctx context.Context) (list []vswitch.PortStatus, err error) {
	err = c.do(ctx, "GET", "/v1/ports", nil, &list)
	return list, err
}

// AddPort attaches what a SPEC describes.
func (c *Client) AddPort(ctx context.Context, p NewPort) (st vswitch.PortStatus, err error) {
	err = c.do(ctx, "POST", "/v1/ports", p, &st)
	return st, err
}

// DelPort detaches a port.
func (c *Client) DelPort(ctx context.Context, name string) error {
	return c.onPort(ctx, "DELETE", "/v1/ports/", name, "", nil, nil)
}

// DelGuestPort detaches a port that was made for a guest, and leaves any other
// as its owner has it.
func (c *Client) DelGuestPort(ctx context.Context, name string) error {
	return c.onPort(ctx, "DELETE", "/v1/ports/", name, "?guest=true", nil, nil)
}

// SetPort changes settings of a port, all of them or none.
func (c *Client) SetPort(ctx context.Context, name string, list []config.KeyValue) error {
	return c.onPort(ctx, "PATCH", "/v1/ports/", name, "", object(list), nil)
}

func object(list []config.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, w := range list {
		m[w.Key] = w.Value
	}
	return m
}

// FDB lists the stations known; those of one port or VLAN if port is not "" or
// vlan not 0.
func (c *Client) FDB(ctx context.Context, port string, vlan uint16) (list []vswitch.FDBEntry, err error) {
	err = c.do(ctx, "GET", "/v1/fdb"+query(port, vlan), nil, &list)
	return list, err
}

// AddFDB puts a station on a port.
func (c *Client) AddFDB(ctx context.Context, e NewEntry) error {
	return c.do(ctx, "POST", "/v1/fdb", e, nil)
}

// DelFDB forgets a station.
func (c *Client) DelFDB(ctx context.Context, mac frame.MAC, vlan uint16) error {
	return c.do(ctx, "DELETE", "/v1/fdb/"+mac.String()+query("", vlan), nil, nil)
}

// FlushFDB forgets what was learned, as FDB chooses, and returns how many
// entries that were.
func (c *Client) FlushFDB(ctx context.Context, port string, vlan uint16) (int, error) {
	var f flushed
	err := c.do(ctx, "DELETE", "/v1/fdb"+query(port, vlan), nil, &f)
	return f.Flushed, err
}

// VLANs lists the VLANs of every port.
func (c *Client) VLANs(ctx context.Context) (list []PortVLANs, err error) {
	err = c.do(ctx, "GET", "/v1/vlans", nil, &list)
	return list, err
}

// AddVLANs makes a port a member of VLANs.
func (c *Client) AddVLANs(ctx context.Context, v NewVLANs) error {
	return c.do(ctx, "POST", "/v1/vlans", v, nil)
}

// DelVLANs ends a port's membership of VLANs, all of them or none.
func (c *Client) DelVLANs(ctx context.Context, port, vids string) error {
	q := url.Values{"port": {port}, "vids": {vids}}
	return c.do(ctx, "DELETE", "/v1/vlans?"+q.Encode(), nil, nil)
}

// STP is the spanning tree at this moment.
func (c *Client) STP(ctx context.Context) (st vswitch.STPStatus, err error) {
	err = c.do(ctx, "GET", "/v1/stp", nil, &st)
	return st, err
}

// SetSTP changes parameters of the bridge, all of them or none.
func (c *Client) SetSTP(ctx context.Context, list []config.KeyValue) error {
	return c.do(ctx, "PATCH", "/v1/stp", object(list), nil)
}

// RecoverPort ends what a guard did to a port.
func (c *Client) RecoverPort(ctx context.Context, name string) error {
	return c.onPort(ctx, "POST", "/v1/stp/ports/", name, "/recover", nil, nil)
}

// Mcheck makes a port find out anew which protocol version its neighbours speak.
func (c *Client) Mcheck(ctx context.Context, name string) error {
	return c.onPort(ctx, "POST", "/v1/stp/ports/", name, "/mcheck", nil, nil)
}

// Stats are the counters of every port, the host interface first.
func (c *Client) Stats(ctx context.Context) (list []PortStats, err error) {
	err = c.do(ctx, "GET", "/v1/stats", nil, &list)
	return list, err
}

// Config is the running state as a file.
func (c *Client) Config(ctx context.Context) ([]byte, error) {
	resp, err := c.send(ctx, "GET", "/v1/config", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Reload makes the switch read its file anew; it returns what changed.
func (c *Client) Reload(ctx context.Context) ([]string, error) {
	var r reloaded
	err := c.do(ctx, "POST", "/v1/reload", nil, &r)
	return r.Changes, err
}

// VMs lists the network cards that the switch plugged into running machines.
func (c *Client) VMs(ctx context.Context) (list []qemu.GuestNIC, err error) {
	err = c.do(ctx, "GET", "/v1/vms", nil, &list)
	return list, err
}

// AttachVM plugs a network card into a running machine.
func (c *Client) AttachVM(ctx context.Context, n NewNIC) (nic qemu.NIC, err error) {
	err = c.do(ctx, "POST", "/v1/vms", n, &nic)
	return nic, err
}

// DetachVM unplugs one and returns when the guest has let go of it.
func (c *Client) DetachVM(ctx context.Context, qmp, id string) error {
	return c.do(ctx, "DELETE", "/v1/vms?"+url.Values{"qmp": {qmp}, "id": {id}}.Encode(), nil, nil)
}

// Events calls each with every event until ctx ends, each fails, or the switch
// goes; the first is no error.
func (c *Client) Events(ctx context.Context, each func(vswitch.Event) error) error {
	resp, err := c.send(ctx, "GET", "/v1/events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		var e vswitch.Event
		if err := d.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "connection reset") {
				return fmt.Errorf("switch %s has stopped", c.name)
			}
			return fmt.Errorf("read events of switch %s: %w", c.name, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
