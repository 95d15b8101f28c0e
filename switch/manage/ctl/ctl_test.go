package ctl_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// host is a running switch with a control socket, whose ports are in memory.
type host struct {
	t      testing.TB
	dir    string
	sw     *vswitch.Switch
	ports  map[string]*mem.Port
	nics   []qemu.NIC
	guest  string // the port that was made for one
	reload func() ([]string, error)
	stop   func() // ends all of it; only the first call does anything
}

func (h *host) OpenHost(string, frame.MAC) (frame.Port, error) {
	return nil, errors.New("no host interface here")
}

func (h *host) Open(s config.Spec) (frame.Port, error) {
	if strings.HasPrefix(s.Name, "forbidden") {
		return nil, &net.OpError{Op: "open", Err: errPermission}
	}
	h.ports[s.Name] = mem.NewPort()
	return h.ports[s.Name], nil
}

func (h *host) Kinds() config.Kinds {
	return config.Kinds{{Name: "netdev", Netdev: true, Open: h.Open}}
}

func (h *host) AddPort(p config.Port) error { return config.Attach(h.sw, h, p) }

func (h *host) AddGuestPort(s config.Spec) error {
	h.guest = s.Name
	return h.AddPort(config.Port{Spec: s})
}

func (h *host) DelGuestPort(name string) error {
	if name != h.guest {
		return nil
	}
	return h.sw.RemovePort(name)
}

func (h *host) Config() ([]byte, error) {
	c, err := config.Running(h.sw, h.Kinds(), config.Default())
	if err != nil {
		return nil, err
	}
	return c.Dump()
}

// Attach, Detach and List stand for a machine whose QMP socket is /vm.
func (h *host) Attach(_ context.Context, o qemu.AttachOptions) (*qemu.NIC, error) {
	if o.QMP != "/vm" {
		return nil, errors.New("no machine there")
	}
	h.nics = append(h.nics, qemu.NIC{ID: o.ID, Port: "tap-" + o.ID, MAC: o.MAC, Queues: o.Queues, Model: strings.TrimPrefix(config.JoinWords(o.Port.Settings), ","), VHostReason: string(o.VHost)})
	return &h.nics[len(h.nics)-1], nil
}

func (h *host) Detach(_ context.Context, qmp, id string) error {
	if qmp != "/vm" || len(h.nics) == 0 || h.nics[0].ID != id {
		return qemu.ErrNotAttached
	}
	h.nics = nil
	return nil
}

func (h *host) List() (list []qemu.GuestNIC) {
	for _, n := range h.nics {
		list = append(list, qemu.GuestNIC{QMP: "/vm", NIC: n, GuestMACs: []string{}})
	}
	return list
}

func (h *host) Reload() ([]string, error) { return h.reload() }

func newHost(t testing.TB, cfg vswitch.Config, ports ...string) *host {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Logger = quiet
	sw, err := vswitch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: t.TempDir(), sw: sw, ports: map[string]*mem.Port{}}
	for _, p := range ports {
		spec, err := h.Kinds().ParseSpec(p)
		if err == nil {
			err = h.AddPort(config.Port{Spec: spec})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := ctl.Listen(h.dir, sw.Config().Name)
	if err != nil {
		t.Fatal(err)
	}
	server := ctl.NewServer(sw, h, h, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- sw.Run(ctx) }()
	go func() { done <- server.Serve(l) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		server.Close()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		l.Close()
	}
	t.Cleanup(h.stop)
	return h
}

func (h *host) path() string { return ctl.SocketPath(h.dir, h.sw.Config().Name) }

func (h *host) dial() net.Conn {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// curl sends one request as text and returns the status and the body.
func (h *host) curl(method, path, body string) (int, string) {
	h.t.Helper()
	conn := h.dial()
	defer conn.Close()
	req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Connection", "close")
	if err := req.Write(conn); err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// want makes a request that must be answered with a status and a body that
// holds text.
func (h *host) want(method, path, body string, status int, text string) {
	h.t.Helper()
	got, answer := h.curl(method, path, body)
	if got != status || !strings.Contains(answer, text) {
		h.t.Errorf("%s %s %s\n got %d %s\nwant %d %s", method, path, body, got, answer, status, text)
	}
	if strings.Count(answer, "\n") != 1 && !strings.HasPrefix(path, "/v1/config") {
		h.t.Errorf("%s %s: not one line: %q", method, path, answer)
	}
}

func TestEveryRouteByPlainHTTP(t *testing.T) {
	h := newHost(t, vswitch.Config{VLANFiltering: true}, "netdev:a", "netdev:b")
	h.reload = func() ([]string, error) { return []string{"add port c"}, nil }
	h.want("GET", "/v1/switch", "", 200, `"name":"kvs0"`)
	h.want("PATCH", "/v1/switch", `{"ageing":"60s"}`, 200, "{}")
	h.want("GET", "/v1/switch", "", 200, `"ageing_s":60`)
	h.want("POST", "/v1/ports", `{"spec":"netdev:c,vlan=10","uplink":true}`, 200, `"name":"c"`)
	h.want("GET", "/v1/ports", "", 200, `"name":"c"`)
	h.want("POST", "/v1/ports", `{"spec":"netdev:g","guest":true}`, 200, `"name":"g"`)
	h.want("DELETE", "/v1/ports/c?guest=true", "", 200, "{}")
	h.want("GET", "/v1/ports/c", "", 200, `"name":"c"`)
	h.want("DELETE", "/v1/ports/g?guest=true", "", 200, "{}")
	h.want("GET", "/v1/ports/g", "", 404, "no such port")
	h.want("GET", "/v1/ports/c", "", 200, `"uplink":true`)
	h.want("PATCH", "/v1/ports/c", `{"vlan":20,"isolated":true}`, 200, "{}")
	h.want("GET", "/v1/ports/c", "", 200, `"settings":{"isolated":"on","vlan":"20"}`)
	h.want("POST", "/v1/fdb", `{"mac":"52:54:00:00:00:01","vlan":20,"port":"c","static":true}`, 200, "{}")
	h.want("GET", "/v1/fdb", "", 200, `[{"mac":"52:54:00:00:00:01","vlan":20,"port":"c","type":"static"`)
	h.want("GET", "/v1/fdb?port=a", "", 200, `[]`)
	h.want("GET", "/v1/fdb?vlan=20&port=c", "", 200, `52:54:00:00:00:01`)
	h.want("DELETE", "/v1/fdb/52:54:00:00:00:01?vlan=20", "", 200, "{}")
	h.want("DELETE", "/v1/fdb", "", 200, `{"flushed":0}`)
	h.want("POST", "/v1/vlans", `{"port":"a","vids":"30-32","untagged":true}`, 200, "{}")
	h.want("GET", "/v1/vlans", "", 200, `{"port":"a","pvid":1,"tagged":[],"untagged":["1","30-32"],"mode":"trunk"}`)
	h.want("DELETE", "/v1/vlans?port=a&vids=31", "", 200, "{}")
	h.want("GET", "/v1/vlans", "", 200, `"untagged":["1","30","32"]`)
	h.want("PATCH", "/v1/stp", `{"mode":"stp","priority":4096}`, 200, "{}")
	h.want("GET", "/v1/stp", "", 200, `"mode":"stp"`)
	h.want("GET", "/v1/stp", "", 200, `"bridge_id":"1000.`)
	h.want("POST", "/v1/stp/ports/a/recover", "", 200, "{}")
	h.want("POST", "/v1/stp/ports/a/mcheck", "", 200, "{}")
	h.want("GET", "/v1/stats", "", 200, `{"name":"a","rx":{"frames":`)
	h.want("GET", "/v1/config", "", 200, "ports:\n")
	h.want("POST", "/v1/reload", "", 200, `{"changes":["add port c"]}`)
	h.want("GET", "/v1/vms", "", 200, "[]")
	h.want("POST", "/v1/vms", `{"qmp":"/vm","id":"n1","mac":"52:54:00:00:00:05","queues":2,"vhost":"on","settings":"vlan=7"}`, 200,
		`{"id":"n1","port":"tap-n1","model":"vlan=7","mac":"52:54:00:00:00:05","queues":2,"vhost":false,"vhost_reason":"on"}`)
	h.want("GET", "/v1/vms", "", 200, `"qmp":"/vm"`)
	h.want("DELETE", "/v1/vms?qmp=/vm&id=n1", "", 200, "{}")
	h.want("DELETE", "/v1/vms?qmp=/vm&id=n1", "", 404, "not attached by this switch")
	h.want("POST", "/v1/vms", `{"qmp":"/elsewhere"}`, 422, "no machine there")
	h.want("DELETE", "/v1/ports/c", "", 200, "{}")
	h.want("GET", "/v1/ports/c", "", 404, `{"error":"find port \"c\": no such port`)
}

func TestRefusalsAreOneLineWithAStatus(t *testing.T) {
	h := newHost(t, vswitch.Config{}, "netdev:a")
	h.reload = func() ([]string, error) { return nil, errors.New("first\nsecond") }
	before := status(t, h)
	for _, tc := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/", "", 404, "no such path /"},
		{"GET", "/v1/nothing", "", 404, "no such path /v1/nothing"},
		{"PUT", "/v1/switch", "", 405, "PUT /v1/switch: want method GET, HEAD, PATCH"},
		{"POST", "/v1/ports", "", 400, "the body is missing"},
		{"POST", "/v1/ports", "{", 400, "read body"},
		{"POST", "/v1/ports", "garbage", 400, "read body"},
		{"POST", "/v1/ports", `{"sepc":"netdev:b"}`, 400, `unknown field \"sepc\"`},
		{"POST", "/v1/ports", `{"spec":"netdev:b"} {}`, 400, "something follows"},
		{"POST", "/v1/ports", `{"spec":"tun:b"}`, 422, "unknown kind of port"},
		{"POST", "/v1/ports", `{"spec":"netdev:a"}`, 409, "there is a port of that name already"},
		{"POST", "/v1/ports", `{"spec":"netdev:a/b"}`, 422, "can't hold the character"},
		{"POST", "/v1/ports", `{"spec":"netdev:forbidden"}`, 403, "permission"},
		{"POST", "/v1/ports", `{"spec":"` + strings.Repeat("x", 70000) + `"}`, 413, "too large"},
		{"DELETE", "/v1/ports/zz", "", 404, "no such port; there are a"},
		{"PATCH", "/v1/ports/a", `{}`, 400, "no key"},
		{"PATCH", "/v1/ports/a", `{"vlan":[1]}`, 400, "not a plain value"},
		{"PATCH", "/v1/ports/a", `{"vlan":null}`, 400, "not a plain value"},
		{"PATCH", "/v1/ports/a", `{"isolated":"on","vlan":"9999"}`, 422, "parse VLAN id"},
		{"PATCH", "/v1/ports/zz", `{"vlan":"1"}`, 404, "no such port"},
		{"PATCH", "/v1/switch", `{"ageing":"x"}`, 400, "want 1s to 1000000s, in whole seconds, or 0"},
		{"PATCH", "/v1/switch", `{"name":"x"}`, 400, `unknown key \"name\"`},
		{"PATCH", "/v1/stp", `{"mode":"mstp"}`, 400, "want rstp, stp or off"},
		{"PATCH", "/v1/stp", `{"stp":"rstp"}`, 400, `unknown key \"stp\"; known: mode priority`},
		{"GET", "/v1/fdb?vlan=x", "", 400, "parse VLAN id"},
		{"GET", "/v1/fdb?port=zz", "", 404, "no such port"},
		{"POST", "/v1/fdb", `{"mac":"x","port":"a"}`, 400, "parse MAC"},
		{"POST", "/v1/fdb", `{"mac":"ff:ff:ff:ff:ff:ff","port":"a"}`, 422, "no station's address"},
		{"DELETE", "/v1/fdb/garbage", "", 400, "parse MAC"},
		{"DELETE", "/v1/fdb/52:54:00:00:00:01", "", 422, "not in the table"},
		{"POST", "/v1/vlans", `{"port":"a","vids":"2-3","pvid":true}`, 400, "a port has one PVID"},
		{"DELETE", "/v1/vlans?port=a&vids=5", "", 422, "the port is not in it"},
		{"POST", "/v1/stp/ports/zz/recover", "", 404, "no such port"},
		{"POST", "/v1/reload", "", 422, "first second"},
	} {
		h.want(tc.method, tc.path, tc.body, tc.status, tc.text)
	}
	if after := status(t, h); after != before {
		t.Errorf("a refused request changed something:\n%s\nwas\n%s", after, before)
	}
}

// status is the switch as JSON without what passes by itself.
func status(t *testing.T, h *host) string {
	t.Helper()
	st := h.sw.Status()
	st.UptimeS = 0
	for i := range st.Ports {
		st.Ports[i].TX = vswitch.Traffic{} // BPDUs
	}
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestClientSpeaksEveryRoute(t *testing.T) {
	h := newHost(t, vswitch.Config{VLANFiltering: true}, "netdev:a")
	h.reload = func() ([]string, error) { return []string{}, nil }
	c := ctl.NewClient(h.dir, "kvs0")
	defer c.Close()
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	port, err := c.AddPort(ctx, ctl.NewPort{Spec: "netdev:b", Uplink: true})
	check("add port", err)
	if port.Name != "b" || !port.Uplink {
		t.Errorf("added %+v", port)
	}
	check("set port", c.SetPort(ctx, "b", []config.KeyValue{{Key: "cost", Value: "7"}}))
	port, err = c.Port(ctx, "b")
	check("port", err)
	if port.STP.Cost != 7 || port.Settings["cost"] != "7" {
		t.Errorf("port b: %+v", port)
	}
	ports, err := c.Ports(ctx)
	check("ports", err)
	if len(ports) != 2 {
		t.Errorf("ports: %+v", ports)
	}
	check("ageing", c.SetAgeing(ctx, 77*time.Second))
	check("stp", c.SetSTP(ctx, []config.KeyValue{{Key: "priority", Value: "0"}}))
	check("add VLANs", c.AddVLANs(ctx, ctl.NewVLANs{Port: "a", VIDs: "5+7"}))
	check("del VLANs", c.DelVLANs(ctx, "a", "5"))
	vlans, err := c.VLANs(ctx)
	check("vlans", err)
	if len(vlans) != 2 || strings.Join(vlans[0].Tagged, " ") != "7" {
		t.Errorf("vlans: %+v", vlans)
	}
	check("add fdb", c.AddFDB(ctx, ctl.NewEntry{MAC: mem.MAC(1), VLAN: 7, Port: "a", Static: true}))
	check("add fdb", c.AddFDB(ctx, ctl.NewEntry{MAC: mem.MAC(2), Port: "a"}))
	entries, err := c.FDB(ctx, "a", 7)
	check("fdb", err)
	if len(entries) != 1 || entries[0].MAC != mem.MAC(1) {
		t.Errorf("fdb: %+v", entries)
	}
	n, err := c.FlushFDB(ctx, "", 0)
	check("flush", err)
	if n != 1 {
		t.Errorf("flushed %d, want 1", n)
	}
	check("del fdb", c.DelFDB(ctx, mem.MAC(1), 7))
	st, err := c.Status(ctx)
	check("status", err)
	if st.AgeingS != 77 || st.BridgeID[:5] != "0000." || len(st.Ports) != 2 || st.FDB.Entries != 0 {
		t.Errorf("status: %+v", st)
	}
	tree, err := c.STP(ctx)
	check("stp", err)
	if tree.BridgeID.Priority != 0 || len(tree.Ports) != 2 || tree.Ports[1].Name != "b" {
		t.Errorf("tree: %+v", tree)
	}
	check("recover", c.RecoverPort(ctx, "a"))
	check("mcheck", c.Mcheck(ctx, "a"))
	stats, err := c.Stats(ctx)
	check("stats", err)
	if len(stats) != 2 || stats[0].Name != "a" || stats[0].Drops == nil {
		t.Errorf("stats: %+v", stats)
	}
	text, err := c.Config(ctx)
	check("config", err)
	if !bytes.Contains(text, []byte("ageing: 77s\n")) {
		t.Errorf("config:\n%s", text)
	}
	changes, err := c.Reload(ctx)
	check("reload", err)
	if changes == nil || len(changes) != 0 {
		t.Errorf("changes: %#v", changes)
	}
	nic, err := c.AttachVM(ctx, ctl.NewNIC{QMP: "/vm", ID: "n1", MAC: mem.MAC(5), Queues: 1})
	check("attach", err)
	if nic.Port != "tap-n1" || nic.MAC != mem.MAC(5) {
		t.Errorf("nic: %+v", nic)
	}
	vms, err := c.VMs(ctx)
	check("vms", err)
	if len(vms) != 1 || vms[0].QMP != "/vm" || vms[0].ID != "n1" {
		t.Errorf("vms: %+v", vms)
	}
	check("detach", c.DetachVM(ctx, "/vm", "n1"))
	check("del port", c.DelPort(ctx, "b"))
	if err := c.DelPort(ctx, "b"); !errors.Is(err, vswitch.ErrNoPort) {
		t.Errorf("delete again: %v, want one that is ErrNoPort", err)
	}
	if _, err := c.AddPort(ctx, ctl.NewPort{Spec: "netdev:a"}); !errors.Is(err, vswitch.ErrPortExists) {
		t.Errorf("add again: %v, want one that is ErrPortExists", err)
	}
}

// Clients that change different words of the tree at the same time all get
// their way.
func TestChangesOfTheTreeBesideEachOtherHold(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16)) // so that they do come between each other
	h := newHost(t, vswitch.Config{})
	var all sync.WaitGroup
	for _, c := range []struct {
		key  string
		from int
		get  func(vswitch.STPConfig) int
	}{
		{"hello", 1, func(c vswitch.STPConfig) int { return int(c.Hello / time.Second) }},
		{"tx-hold", 3, func(c vswitch.STPConfig) int { return c.TxHold }},
		{"priority", 100, func(c vswitch.STPConfig) int { return int(c.Priority) }},
	} {
		all.Go(func() {
			client := ctl.NewClient(h.dir, "kvs0")
			defer client.Close()
			for i := range 1000 {
				want := c.from + i%2
				if err := client.SetSTP(t.Context(), []config.KeyValue{{Key: c.key, Value: fmt.Sprint(want)}}); err != nil {
					t.Errorf("%s=%d: %v", c.key, want, err)
					return
				}
				if got := c.get(h.sw.STP()); got != want {
					t.Errorf("%s is %d, just set to %d", c.key, got, want)
					return
				}
			}
		})
	}
	all.Wait()
}
