package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// fakeVHost stands in for /dev/vhost-net.
func fakeVHost(n int) ([]*os.File, error) {
	var files []*os.File
	for range n {
		f, err := os.Open("/dev/null")
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func noVHost(int) ([]*os.File, error) { return nil, errors.New("no vhost here") }

type learned struct {
	mu   sync.Mutex
	macs map[string][]frame.MAC
}

func (l *learned) learn(port string, mac frame.MAC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.macs == nil {
		l.macs = map[string][]frame.MAC{}
	}
	l.macs[port] = append(l.macs[port], mac)
}

func (l *learned) knows(port string, mac frame.MAC) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.macs[port] {
		if m == mac {
			return true
		}
	}
	return false
}

func newTestGuests(t *testing.T, ports Ports, l *learned) *Guests {
	t.Helper()
	g := NewGuests(ports, GuestsConfig{MTU: func() int { return 1400 }, Learn: l.learn})
	g.openVHost = noVHost
	t.Cleanup(g.Close)
	return g
}

func TestAttachPlugsTapPortAndDevice(t *testing.T) {
	needTaps(t)
	for _, c := range []struct {
		name   string
		opts   AttachOptions
		vhost  func(int) ([]*os.File, error)
		fds    int // that QEMU holds afterwards
		device map[string]any
		reason string
	}{
		{"one queue", AttachOptions{}, noVHost, 1, map[string]any{"driver": "virtio-net-pci"}, "no vhost here"},
		{"two queues", AttachOptions{Queues: 2}, noVHost, 2, map[string]any{"mq": true, "vectors": 6.0}, "no vhost here"},
		{"vhost auto", AttachOptions{Queues: 2}, fakeVHost, 4, map[string]any{"mq": true}, ""},
		{"vhost on", AttachOptions{VHost: VHostOn}, fakeVHost, 2, nil, ""},
		{"vhost off", AttachOptions{VHost: VHostOff}, fakeVHost, 1, nil, "by request"},
		{"no virtio", AttachOptions{Model: "e1000"}, fakeVHost, 1, map[string]any{"driver": "e1000"}, "no virtio-net"},
		{"bus and settings", AttachOptions{Bus: "rp1", Port: config.Spec{Settings: []config.KeyValue{{Key: "vlan", Value: "10"}, {Key: "isolated", Value: "on"}}}}, noVHost, 1, map[string]any{"bus": "rp1"}, "no vhost here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkNothingLeft(t)
			q := startFakeQEMU(t)
			ports := &fakePorts{}
			l := &learned{}
			g := newTestGuests(t, ports, l)
			g.openVHost = c.vhost
			c.opts.QMP, c.opts.MAC = q.path, frame.MAC{0x52, 0x54, 0, 1, 2, 3}
			n, err := g.Attach(t.Context(), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if n.ID != "net1" || n.VHost != (c.reason == "") || !strings.Contains(n.VHostReason, c.reason) {
				t.Errorf("attached %+v", n)
			}
			want := "netdev:" + n.Port + config.JoinWords(c.opts.Port.Settings)
			if got := ports.spec(n.Port); got != want {
				t.Errorf("SPEC %q, want %q", got, want)
			}
			if got := q.holds(); got != c.fds {
				t.Errorf("QEMU holds %d descriptors, want %d", got, c.fds)
			}
			q.with(func() {
				for k, v := range c.device {
					if got := q.devices["net1"][k]; got != v {
						t.Errorf("device_add %s=%v, want %v", k, got, v)
					}
				}
				if vhost, _ := q.netdev["kvs-net1"]["vhost"].(bool); vhost != n.VHost {
					t.Errorf("netdev_add %v", q.netdev["kvs-net1"])
				}
			})
			if !l.knows(n.Port, c.opts.MAC) {
				t.Error("the device's address was not made known")
			}
			checkTap(t, n.Port, max(c.opts.Queues, 1))

			list := g.List()
			if len(list) != 1 || list[0].Guest != "fake" || list[0].QEMU != "7.2.22" || list[0].Port != n.Port ||
				len(list[0].GuestMACs) != 1 || list[0].GuestMACs[0] != "52:54:00:01:02:03" {
				t.Errorf("list %+v", list)
			}
			if err := g.Detach(t.Context(), q.path, "net1"); err != nil {
				t.Fatal(err)
			}
			if len(ports.names()) != 0 || q.holds() != 0 || len(g.List()) != 0 {
				t.Errorf("after detach: ports %v, QEMU holds %d, list %v", ports.names(), q.holds(), g.List())
			}
		})
	}
}

// An id that nobody chose is one that the machine has not: neither as a device
// that it was started with, nor as a backend that lost its device.
func TestAttachChoosesAFreeID(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	q := startFakeQEMU(t)
	q.with(func() {
		q.devices["net1"] = map[string]any{"driver": "virtio-net-pci"}
		q.netdevs["kvs-net2"] = []*os.File{}
	})
	ports := &fakePorts{}
	g := newTestGuests(t, ports, &learned{})
	for _, want := range []string{"net3", "net4"} {
		n, err := g.Attach(t.Context(), AttachOptions{QMP: q.path})
		if err != nil || n.ID != want {
			t.Fatalf("attached %+v, %v; want %s", n, err, want)
		}
	}
	if len(ports.names()) != 2 {
		t.Errorf("ports %v", ports.names())
	}
	// One that was chosen is not exchanged for another.
	for _, id := range []string{"net1", "net2"} {
		if _, err := g.Attach(t.Context(), AttachOptions{QMP: q.path, ID: id}); err == nil || !strings.Contains(err.Error(), "Duplicate") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// checkTap looks at the netdev as the kernel shows it.
func checkTap(t *testing.T, name string, queues int) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a := link.Attrs()
	if a.HardwareAddr[0] != 0xfe {
		t.Errorf("tap address %v, want fe as first octet", a.HardwareAddr)
	}
	if a.MTU != 1400 {
		t.Errorf("tap MTU %d, want 1400", a.MTU)
	}
	if a.Flags&net.FlagUp == 0 {
		t.Error("tap is down")
	}
	tap, ok := link.(*netlink.Tuntap)
	if !ok || tap.Flags&netlink.TUNTAP_VNET_HDR == 0 || tap.NonPersist != true {
		t.Errorf("tap %+v, want one with vnet_hdr that does not persist", link)
	}
	if ok && queues > 1 && tap.Flags&netlink.TUNTAP_MULTI_QUEUE == 0 {
		t.Error("tap has one queue")
	}
}

// Whatever step fails, there is one error that names it, and no tap, port or
// descriptor is left here or in QEMU.
func TestAttachUndoesEverythingWhenAStepFails(t *testing.T) {
	needTaps(t)
	type failure struct {
		name  string
		setup func(q *fakeQEMU, p *fakePorts, g *Guests)
		opts  AttachOptions
		want  string
	}
	cases := []failure{
		{"port refused", func(q *fakeQEMU, p *fakePorts, g *Guests) { p.refuse = errors.New("switch is full") }, AttachOptions{}, "switch is full"},
		{"vhost on without the device", func(q *fakeQEMU, p *fakePorts, g *Guests) { g.openVHost = noVHost }, AttachOptions{VHost: VHostOn}, "vhost on: no vhost here"},
		{"duplicate device", func(q *fakeQEMU, p *fakePorts, g *Guests) { q.devices["net1"] = map[string]any{} }, AttachOptions{}, "Duplicate device ID 'net1'"},
		{"duplicate backend", func(q *fakeQEMU, p *fakePorts, g *Guests) { q.netdevs["kvs-net1"] = []*os.File{} }, AttachOptions{}, "Duplicate ID"},
		{"too many queues", func(q *fakeQEMU, p *fakePorts, g *Guests) {}, AttachOptions{Queues: 257}, "want 1 to 256"},
	}
	for _, step := range []string{"getfd", "netdev_add", "device_add"} {
		cases = append(cases,
			failure{"refused " + step, func(q *fakeQEMU, p *fakePorts, g *Guests) { q.refuse[step] = "no " + step }, AttachOptions{Queues: 2}, step + ": no " + step},
			failure{"death at " + step, func(q *fakeQEMU, p *fakePorts, g *Guests) { q.dieAt = step }, AttachOptions{Queues: 2}, "monitor connection closed"})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			checkNothingLeft(t)
			q := startFakeQEMU(t)
			ports := &fakePorts{}
			g := newTestGuests(t, ports, &learned{})
			g.openVHost = fakeVHost
			c.setup(q, ports, g)
			links, held := netdevs(t), q.holds()
			c.opts.QMP, c.opts.ID = q.path, "net1"
			_, err := g.Attach(t.Context(), c.opts)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v, want one line with %q", err, c.want)
			}
			await(t, "the tap to go", func() bool { return netdevs(t) == links })
			if len(ports.names()) != 0 {
				t.Errorf("ports left: %v", ports.names())
			}
			await(t, "QEMU to hold what it held before", func() bool { return q.dieAt != "" || q.holds() == held })
			await(t, "the guest to be forgotten", func() bool { return len(g.List()) == 0 })
		})
	}
}

func TestAttachToWhatIsNotQMP(t *testing.T) {
	checkNothingLeft(t)
	dir := t.TempDir()
	serve := func(name string, f func(net.Conn)) string {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				f(c)
				c.Close()
			}
		}()
		return l.Addr().String()
	}
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		path string
		want string
	}{
		{"absent", t.Context(), filepath.Join(dir, "absent"), "no such file"},
		{"a file", t.Context(), file, "connection refused"},
		{"text", t.Context(), serve("text", func(c net.Conn) { fmt.Fprintln(c, "220 hello") }), "is it a QMP socket"},
		{"other JSON", t.Context(), serve("json", func(c net.Conn) { fmt.Fprintln(c, `{"hello": 1}`) }), "is it a QMP socket"},
		{"closes", t.Context(), serve("closes", func(net.Conn) {}), "read greeting"},
		{"endless line", t.Context(), serve("endless", func(c net.Conn) {
			for b := make([]byte, 65536); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}), "token too long"},
		{"refuses capabilities", t.Context(), serve("refuses", func(c net.Conn) {
			fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": []}}`)
			fmt.Fprintln(c, `{"error": {"class": "GenericError", "desc": "not today"}}`)
			io.Copy(io.Discard, c)
		}), "not today"},
		{"silent", short, serve("silent", func(c net.Conn) { io.Copy(io.Discard, c) }), "no greeting"},
	} {
		g := newTestGuests(t, &fakePorts{}, &learned{})
		_, err := g.Attach(c.ctx, AttachOptions{QMP: c.path})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", c.name, err, c.want)
		}
	}
}

func TestGuestsFollowEvents(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	q := startFakeQEMU(t)
	fds := descriptors(t)
	ports, l := &fakePorts{}, &learned{}
	g := newTestGuests(t, ports, l)
	first, err := g.Attach(t.Context(), AttachOptions{QMP: q.path})
	if err != nil {
		t.Fatal(err)
	}
	second, err := g.Attach(t.Context(), AttachOptions{QMP: q.path})
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != "net1" || second.ID != "net2" || first.MAC == second.MAC {
		t.Fatalf("attached %+v and %+v", first, second)
	}

	changed := frame.MAC{2, 0, 0, 0, 0, 9}
	q.with(func() { q.macs["net2"] = changed.String() })
	q.emit("NIC_RX_FILTER_CHANGED", `{"name": "net2", "path": "/machine/peripheral/net2/virtio-backend"}`)
	await(t, "the new address", func() bool { return l.knows(second.Port, changed) })

	up := func(port string) bool {
		link, err := netlink.LinkByName(port)
		return err == nil && link.Attrs().Flags&net.FlagUp != 0
	}
	q.emit("SHUTDOWN", `{"guest": true, "reason": "guest-shutdown"}`)
	await(t, "both links to go down", func() bool { return !up(first.Port) && !up(second.Port) })
	q.emit("RESET", `{"guest": false, "reason": "host-qmp-system-reset"}`)
	await(t, "both links to come up", func() bool { return up(first.Port) && up(second.Port) })

	// Somebody else unplugs the first.
	q.unplug("net1")
	await(t, "the first port to go", func() bool { return ports.spec(first.Port) == "" })
	if ports.spec(second.Port) == "" {
		t.Error("the other port went, too")
	}
	q.kill()
	await(t, "the second port to go", func() bool { return ports.spec(second.Port) == "" && len(g.List()) == 0 })
	await(t, "the monitor to be closed", func() bool { return descriptors(t) < fds }) // QEMU's own socket is gone, too
}

func TestDetach(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	q := startFakeQEMU(t)
	ports := &fakePorts{}
	g := newTestGuests(t, ports, &learned{})
	if err := g.Detach(t.Context(), q.path, "net1"); !errors.Is(err, ErrNotAttached) {
		t.Errorf("detach from an unknown guest: %v", err)
	}
	n, err := g.Attach(t.Context(), AttachOptions{QMP: q.path})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Detach(t.Context(), q.path, "net2"); !errors.Is(err, ErrNotAttached) {
		t.Errorf("detach an unknown device: %v", err)
	}

	q.with(func() { q.keep = true })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.Detach(ctx, q.path, "net1"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still attached") {
		t.Errorf("a guest that keeps the device: %v", err)
	}
	if ports.spec(n.Port) == "" {
		t.Error("the port went though the guest kept the device")
	}
	go func() {
		for q.count("device_del") < 2 {
			time.Sleep(time.Millisecond)
		}
		q.emit("DEVICE_UNPLUG_GUEST_ERROR", `{"device": "net1", "path": "/machine/peripheral/net1"}`)
	}()
	if err := g.Detach(t.Context(), q.path, "net1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a guest that refuses: %v", err)
	}
	// A second request while the first is pending is refused by QEMU; the guest's
	// answer to the first still counts.
	q.with(func() { q.refuse["device_del"] = "Device net1 is already in the process of unplug" })
	go func() {
		for q.count("device_del") < 3 {
			time.Sleep(time.Millisecond)
		}
		q.unplug("net1")
	}()
	if err := g.Detach(t.Context(), q.path, "net1"); err != nil {
		t.Error(err)
	}
	// The monitor is free for others now, and for another attachment.
	await(t, "the monitor to be released", func() bool {
		m, err := Dial(t.Context(), q.path)
		if err == nil {
			m.Disconnect()
		}
		return err == nil
	})
	q.with(func() { delete(q.refuse, "device_del") })
	if _, err := g.Attach(t.Context(), AttachOptions{QMP: q.path}); err != nil {
		t.Error(err)
	}
}

func TestGuestsCloseLeavesDevicesAlone(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	q := startFakeQEMU(t)
	ports := &fakePorts{}
	g := newTestGuests(t, ports, &learned{})
	n, err := g.Attach(t.Context(), AttachOptions{QMP: q.path})
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if ports.spec(n.Port) == "" || q.count("device_del") != 0 || q.holds() != 1 {
		t.Errorf("ports %v, QEMU holds %d", ports.names(), q.holds())
	}
	if _, err := g.Attach(t.Context(), AttachOptions{QMP: q.path}); err == nil {
		t.Error("attached after Close")
	}
}

func TestGuestsAttachManyAtOnce(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	q := startFakeQEMU(t)
	ports := &fakePorts{}
	g := newTestGuests(t, ports, &learned{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := g.Attach(context.Background(), AttachOptions{QMP: q.path}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(g.List()); n != 8 || len(ports.names()) != 8 {
		t.Errorf("%d devices, %d ports", n, len(ports.names()))
	}
}
