package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

func (h *host) status() vswitch.Status { return decode[vswitch.Status](h, "show") }

func (h *host) port(name string) vswitch.PortStatus {
	h.t.Helper()
	return decode[vswitch.PortStatus](h, "port", "show", name)
}

// decode refuses a null anywhere.
func TestListsAreNeverNull(t *testing.T) {
	h := start(t, "--vlan-filtering")
	for _, args := range [][]string{{"port", "show"}, {"fdb", "show"}, {"showmacs"}, {"vlan", "show"}, {"stats"}, {"vm", "list"}} {
		if list := decode[[]any](h, args...); len(list) != 0 {
			t.Errorf("%v of a switch without ports: %v", args, list)
		}
	}
	for _, args := range [][]string{{"show"}, {"stp", "show"}, {"showstp"}} {
		decode[map[string]any](h, args...)
	}
	h.must("port", "add", "stream:s,path="+h.socket("s"))
	h.must("port", "add", "vhost-user:v,path="+h.socket("v"))
	for _, args := range [][]string{{"port", "show"}, {"stats"}, {"vlan", "show"}} {
		decode[[]any](h, args...)
	}
	h.must("port", "set", "s", "trunk=")
	decode[map[string]any](h, "port", "show", "s")
}

func TestPortsComeChangeAndGo(t *testing.T) {
	h := start(t, "--vlan-filtering")
	h.must("port", "add", "stream:vm1,path="+h.socket("vm1")+",vlan=10")
	h.must("port", "add", "stream:up,path="+h.socket("up"), "--uplink")
	if p := h.port("vm1"); p.VLAN.PVID != 10 || p.Kind != "stream" || p.ID != 1 || p.Uplink {
		t.Errorf("vm1: %+v", p)
	}
	if !h.port("up").Uplink {
		t.Error("up is no uplink")
	}
	h.must("port", "set", "vm1", "isolated=on", "cost=77")
	if p := h.port("vm1"); p.Settings["isolated"] != "on" || p.STP.Cost != 77 || p.VLAN.PVID != 10 {
		t.Errorf("after set: %+v", p)
	}
	h.refused(2, "set vlan=9999", "port", "set", "vm1", "isolated=off", "vlan=9999")
	if p := h.port("vm1"); p.Settings["isolated"] != "on" {
		t.Errorf("half a change was applied: %+v", p)
	}
	h.must("vlan", "add", "vm1", "20-22")
	h.must("vlan", "del", "vm1", "21")
	if p := h.port("vm1"); strings.Join(p.VLAN.Tagged, " ") != "20 22" {
		t.Errorf("vlans: %+v", p.VLAN)
	}
	if vlans := decode[[]ctl.PortVLANs](h, "vlan", "show"); len(vlans) != 2 || vlans[0].Port != "vm1" {
		t.Errorf("vlan show: %+v", vlans)
	}
	h.refused(1, "there is a port of that name already", "port", "add", "stream:vm1,path="+h.socket("other"))
	h.refused(1, "no such interface", "addif", "nosuch0")
	// A relative path is the caller's, not the switch's, which runs elsewhere.
	t.Chdir(h.dir)
	h.must("port", "add", "stream:near,path=near")
	if _, err := os.Lstat(h.socket("near")); err != nil {
		t.Error(err)
	}
	h.must("port", "add", "dgram:ends,local=./l,remote=./r")
	h.must("port", "add", "dgram:udp,local=127.0.0.1:0,remote=127.0.0.1:9")
	for _, want := range []string{"local=" + h.socket("l") + ",remote=" + h.socket("r"), "remote=127.0.0.1:9"} {
		if dump := h.must("config", "dump"); !strings.Contains(dump, want) {
			t.Errorf("no %s in\n%s", want, dump)
		}
	}
	for _, name := range []string{"near", "ends", "udp"} {
		h.must("port", "del", name)
	}
	h.refused(1, "no such port; there are vm1 up", "port", "del", "vm2")
	h.refused(1, "no such port", "delif", "vm2")
	if _, err := os.Lstat(h.socket("other")); err == nil {
		t.Error("the refused port left its socket")
	}
	h.must("port", "del", "vm1")
	h.must("delif", "up")
	if st := h.status(); len(st.Ports) != 0 {
		t.Errorf("ports left: %+v", st.Ports)
	}
}

func TestFDBVerbs(t *testing.T) {
	h := start(t)
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	h.must("fdb", "add", "52:54:00:00:00:01", "--port", "a", "--static")
	h.must("fdb", "add", "52:54:00:00:00:02", "--port", "a")
	entries := decode[[]vswitch.FDBEntry](h, "fdb", "show", "--port", "a")
	if len(entries) != 2 || entries[0].Type != "static" || entries[1].Type != "dynamic" {
		t.Errorf("%+v", entries)
	}
	if out := h.must("fdb", "show"); !strings.Contains(out, "52:54:00:00:00:01  1     a     static") {
		t.Errorf("fdb show:\n%s", out)
	}
	if out := h.must("showmacs"); !strings.Contains(out, "  1\t52:54:00:00:00:01\tno\t\t   0.00\n") {
		t.Errorf("showmacs:\n%s", out)
	}
	h.must("fdb", "flush")
	h.must("fdb", "del", "52:54:00:00:00:01")
	h.refused(1, "not in the table", "fdb", "del", "52:54:00:00:00:01")
	h.refused(1, "no such port", "fdb", "add", "52:54:00:00:00:01", "--port", "zz")
	if entries := decode[[]vswitch.FDBEntry](h, "fdb", "show"); len(entries) != 0 {
		t.Errorf("left: %+v", entries)
	}
}

func TestTreeVerbsAndBrctlsWords(t *testing.T) {
	h := start(t)
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	h.must("stp", "set", "mode=stp", "priority=4096", "max-age=40s", "forward-delay=30s")
	tree := decode[vswitch.STPStatus](h, "stp", "show")
	if tree.Mode != "stp" || tree.BridgeID.Priority != 4096 || tree.BridgeMaxAge != 40 || tree.BridgeForwardDelay != 30 {
		t.Errorf("stp show: %+v", tree)
	}
	// What the standard doesn't have is taken, as the kernel takes it, and said once.
	if r := h.kvswitch("stp", "set", "forward-delay=4s"); r.code != 0 || strings.Count(r.errors, "\n") != 1 ||
		!strings.Contains(r.errors, "2×(forward-delay−1) ≥ max-age ≥ 2×(hello+1)") || decode[vswitch.STPStatus](h, "stp", "show").BridgeForwardDelay != 4 {
		t.Errorf("stp set forward-delay=4s: %+v", r)
	}
	h.must("stp", "set", "priority=4096", "forward-delay=30s")
	h.must("setmaxage", "20")
	h.must("setfd", "15")
	h.must("sethello", "1")
	h.must("setbridgeprio", "8192")
	h.must("setageing", "60")
	h.must("setpathcost", "a", "500")
	h.must("setportprio", "a", "16")
	h.must("hairpin", "a", "on")
	h.must("stp", "port", "a", "edge=off", "bpdu-guard=off")
	h.must("stp", "port", "a", "mcheck=now", "recover=now")
	st := h.status()
	if st.AgeingS != 60 || !strings.HasPrefix(st.BridgeID, "2000.") {
		t.Errorf("show: %+v", st)
	}
	if p := st.Ports[0]; p.STP.Cost != 500 || p.STP.PortID != "4001" || p.Settings["hairpin"] != "on" || p.Settings["edge"] != "off" {
		t.Errorf("port: %+v", p)
	}
	if out := h.must("showstp"); !strings.Contains(out, "bridge max age\t\t  20.00\n") || !strings.Contains(out, "a (1)\n port id\t\t4001\t") {
		t.Errorf("showstp:\n%s", out)
	}
	h.must("stp", "off")
	h.refused(1, "takes no part in a spanning tree", "stp", "port", "a", "recover=now")
	if out := h.must("show"); !strings.Contains(out, "\tno\t\ta\n") {
		t.Errorf("show:\n%s", out)
	}
	h.must("stp", "on")
	if mode := h.status().STP.Mode; mode != "rstp" {
		t.Errorf("stp on is mode %s", mode)
	}
	h.must("stp", "show")
}

func TestStatsNameEveryDropReasonThatIsNotZero(t *testing.T) {
	h := start(t, "--stp", "off")
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	conn, err := net.Dial("unix", h.socket("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A frame whose source is a group address.
	frame := append([]byte{0, 0, 0, 60}, make([]byte, 60)...)
	frame[4+6] = 1
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the drop is counted", func() bool {
		list := decode[[]ctl.PortStats](h, "stats", "a")
		return len(list) == 1 && list[0].Drops["group-source"] == 1 && list[0].RX.Dropped == 1
	})
	if out := h.must("stats"); !strings.Contains(out, "a     group-source  1\n") {
		t.Errorf("stats:\n%s", out)
	}
	if out := h.must("port", "show", "a"); !strings.Contains(out, "drop group-source") {
		t.Errorf("port show a:\n%s", out)
	}
	h.refused(1, "no such port", "stats", "zz")
}

// A guest's rings count for themselves, also before there is a guest.
func TestStatsShowTheRingsOfAVhostUserPort(t *testing.T) {
	h := start(t, "--stp", "off")
	h.must("port", "add", "vhost-user:a,queues=2,path="+h.socket("a"))
	if list := decode[[]ctl.PortStats](h, "stats", "a"); len(list) != 1 || len(list[0].Rings) != 4 || list[0].Rings[3].Ring != 3 {
		t.Errorf("stats: %+v", list)
	}
	if out := h.must("stats", "a"); !strings.Contains(out, "KICKS  CALLS  POLLS") || !strings.Contains(out, "\na     3 ") {
		t.Errorf("stats:\n%s", out)
	}
}

// A front end that is refused in the middle of its negotiation is heard of.
func TestMonitorTellsWhatAPortRefused(t *testing.T) {
	h := start(t, "--stp", "off")
	h.must("port", "add", "vhost-user:a,path="+h.socket("a"))
	cmd := program(t, h.dir, "monitor", "--json", "port")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	heard := make(chan struct{})
	defer close(heard)
	go func() { // again and again, until somebody listens
		for {
			if conn, err := net.Dial("unix", h.socket("a")); err == nil {
				// SET_FEATURES, version 1, 8 bytes: VIRTIO_F_RING_PACKED.
				conn.Write([]byte{2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0})
				conn.Read(make([]byte, 1)) // the end
				conn.Close()
			}
			select {
			case <-heard:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	var e vswitch.Event
	if err := json.NewDecoder(out).Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Event != vswitch.EventPortRefuse || e.Port != "a" || e.Count == 0 || !strings.Contains(e.Reason, "0x400000000") {
		t.Errorf("event %+v", e)
	}
}

func TestMonitorPrintsEventsAsTheyHappen(t *testing.T) {
	h := start(t)
	cmd := program(t, h.dir, "monitor", "--json", "port")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	events := make(chan vswitch.Event, 100)
	go func() {
		defer close(events)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e vswitch.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Errorf("%q: %v", lines.Text(), err)
			}
			events <- e
		}
	}()
	// Ports are added until the first one shows: the stream has begun.
	var first vswitch.Event
	for i := 0; first.Event != vswitch.EventPortAdd; i++ {
		h.must("port", "add", fmt.Sprintf("stream:p%d,path=%s", i, h.socket(fmt.Sprint("p", i))))
		select {
		case first = <-events:
		default:
		}
	}
	if !strings.HasPrefix(first.Port, "p") || first.Time.IsZero() {
		t.Errorf("first event %+v", first)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range events {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("monitor after SIGINT: %v", err)
	}
}

func TestSeveralSwitchesNeedANameAndAreShownTogether(t *testing.T) {
	h := start(t, "--name", "left")
	other := &host{t: t, dir: h.dir, log: new(bytes.Buffer)}
	other.cmd = program(t, h.dir, "run", "--no-host", "--name", "right")
	other.cmd.Stderr = other.log
	if err := other.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.cmd.Process.Kill(); other.cmd.Wait() })
	eventually(t, "the second switch answers", func() bool { return h.kvswitch("show", "-s", "right").code == 0 })
	h.refused(1, "several switches are running: choose one with -s or KVSWITCH_SWITCH: left, right", "port", "show")
	if out := h.must("show"); strings.Count(out, "bridge name") != 1 || !strings.Contains(out, "\nleft\t\t") || !strings.Contains(out, "\nright\t\t") {
		t.Errorf("show:\n%s", out)
	}
	if out := h.must("show", "right", "left"); strings.Index(out, "right\t") > strings.Index(out, "left\t") {
		t.Errorf("show right left:\n%s", out)
	}
	if list := decode[[]vswitch.Status](h, "show"); len(list) != 2 || list[0].Name != "left" {
		t.Errorf("show --json: %+v", list)
	}
	if out := h.must("show", "-s", "left"); !strings.Contains(out, "\nleft\t\t") {
		t.Errorf("show -s left:\n%s", out)
	}
	cmd := program(t, h.dir, "show")
	cmd.Env = append(cmd.Env, "KVSWITCH_SWITCH=right")
	if r := run(t, cmd); !strings.Contains(r.out, "\nright\t\t") {
		t.Errorf("KVSWITCH_SWITCH=right: %+v", r)
	}
	if r := h.kvswitch("__complete", "show", "-s", ""); !strings.HasPrefix(r.out, "left\nright\n") {
		t.Errorf("completion of -s: %+v", r)
	}
	h.refused(1, "switch left is running already (pid ", "run", "--no-host", "--name", "left")
	if out := h.must("show", "-s", "left"); out == "" {
		t.Error("the running switch was harmed")
	}
}

func TestConfigDumpFedBackChangesNothing(t *testing.T) {
	h := start(t, "--stp", "stp", "--ageing", "77s", "--vlan-filtering", "--workers", "2", "--busy-poll", "0", "--priority", "0")
	h.must("port", "add", "stream:vm1,path="+h.socket("vm1")+",trunk=10-20+30,native=1,isolated=on")
	h.must("port", "add", "stream:up,path="+h.socket("up"), "--uplink")
	h.must("fdb", "add", "52:54:00:00:00:01", "--port", "vm1", "--vlan", "30", "--static")
	h.refused(1, "not in the table in VLAN 1; name another with --vlan", "fdb", "del", "52:54:00:00:00:01")
	dump := h.must("config", "dump")
	h.stop()

	file := filepath.Join(h.dir, "switch.yaml")
	if err := os.WriteFile(file, []byte(dump), 0o644); err != nil {
		t.Fatal(err)
	}
	h.cmd = nil
	again := &host{t: t, dir: h.dir, log: new(bytes.Buffer)}
	again.start("--config", file)
	if second := again.must("config", "dump"); second != dump {
		t.Errorf("started from its dump:\n%s\nwas:\n%s", second, dump)
	}
	if out := again.must("reload"); out != "nothing to change\n" {
		t.Errorf("reload of what runs changes something: %s", out)
	}
}

func TestReloadIsWholeOrNothing(t *testing.T) {
	h := &host{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	file := filepath.Join(h.dir, "switch.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	port := func(name string) string { return "  - stream:" + name + ",path=" + h.socket(name) + "\n" }
	write("ports:\n" + port("a"))
	h.start("--config", file, "--ageing", "100s")
	before := h.must("config", "dump")

	write("prots: []\n")
	h.refused(1, file+`:1:1: unknown key "prots"`, "reload")
	write("workers: 3\nports:\n" + port("b"))
	h.refused(1, "workers from 1 to 3: not while the switch runs", "reload")
	write("max-age: 30\nports:\n" + port("b") + "  - netdev:nosuch0\n")
	h.refused(1, "no such interface; nothing was changed", "reload")
	if after := h.must("config", "dump"); after != before {
		t.Errorf("a refused reload changed something:\n%s\nwas:\n%s", after, before)
	}

	write("ageing: 10s\nhello: 1s\nports:\n" + port("b"))
	changes := decode[map[string][]string](h, "reload")["changes"]
	if want := []string{"remove port a", "change hello from 2s to 1s", "add port b"}; !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
	if st := h.status(); st.AgeingS != 100 {
		t.Errorf("the flag lost to the file: ageing %v", st.AgeingS)
	}

	// SIGHUP does the same.
	write("ports:\n" + port("c"))
	if err := h.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP reloads", func() bool {
		st := h.status()
		return len(st.Ports) == 1 && st.Ports[0].Name == "c"
	})
}

func TestMetricsAreServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	h := &host{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	// In use: refused in one line, and nothing is left.
	h.refused(1, "address already in use: choose another --metrics", "run", "--no-host", "--metrics", addr)
	if files, _ := os.ReadDir(h.dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	l.Close()
	h.start("--metrics", addr)
	h.must("port", "add", "stream:a,path="+h.socket("a"))
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`kvswitch_workers{switch="kvs0"} 1`,
		`kvswitch_fdb_max_entries{switch="kvs0"} 65536`,
		`kvswitch_stp_is_root{switch="kvs0"} 1`,
		`kvswitch_port_up{port="a",switch="kvs0"} 0`,
		`kvswitch_port_frames_total{direction="rx",port="a",switch="kvs0"} 0`,
		`kvswitch_port_drops_total{port="a",reason="egress-full",switch="kvs0"} 0`,
		`kvswitch_port_stp_state{port="a",state="disabled",switch="kvs0"} 1`,
		"process_open_fds",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in\n%s", want, text.String())
		}
	}
}
