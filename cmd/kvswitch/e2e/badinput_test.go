package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// unharmed checks that a switch still forwards and still has just these ports.
func (o *office) unharmed(t *testing.T, what string, ports ...string) {
	t.Helper()
	if err := o.computers[0].Ping(computerIP(1)); err != nil {
		t.Errorf("%s: the switch doesn't forward any more: %v", what, err)
	}
	var have []string
	for _, p := range o.kvs.status().Ports {
		have = append(have, p.Name)
	}
	if strings.Join(have, " ") != strings.Join(ports, " ") {
		t.Errorf("%s: the switch has the ports %v, want %v", what, have, ports)
	}
}

func TestBadRequestsAreRefusedInOneLineAndChangeNothing(t *testing.T) {
	o := newOffice(t, 2)
	o.computers[0].Reaches(computerIP(1))
	spare := o.lab.Host("spare")
	o.lab.Cable(o.host, "spare0", spare, "eth0")
	o.lab.Cable(o.host, "bridged0", spare, "eth1")
	o.host.Bridge("br0", "bridged0")
	before := o.state()
	for _, tc := range []struct {
		name  string
		code  int
		words []string // what the error speaks of
		args  []string
	}{
		{"unknown interface", 1, []string{"nosuch0"}, []string{"port", "add", "netdev:nosuch0"}},
		{"unknown interface, brctl's way", 1, []string{"nosuch0"}, []string{"addif", "nosuch0"}},
		{"a port twice", 1, []string{"p0"}, []string{"port", "add", "netdev:p0"}},
		{"a port twice by another kind", 1, []string{"p0"}, []string{"port", "add", "tap:p0"}},
		{"name too long", 2, []string{"bytes"}, []string{"port", "add", "netdev:" + strings.Repeat("a", 128)}},
		{"name with a slash", 2, []string{"a/b"}, []string{"port", "add", "netdev:a/b"}},
		{"name of a tap too long", 2, []string{"abcdefghijklmnop"}, []string{"port", "add", "tap:abcdefghijklmnop"}},
		{"empty name", 2, nil, []string{"port", "add", "netdev:"}},
		{"unknown kind", 2, []string{"wire"}, []string{"port", "add", "wire:x"}},
		{"unknown key", 2, []string{"colour"}, []string{"port", "add", "netdev:spare0,colour=red"}},
		{"value out of range", 2, []string{"4095"}, []string{"port", "add", "netdev:spare0,vlan=4095"}},
		{"one bad key among good ones", 2, []string{"cost"}, []string{"port", "set", "p0", "isolated=on", "cost=0x"}},
		{"in a kernel bridge", 1, []string{"bridged0", "br0"}, []string{"port", "add", "netdev:bridged0"}},
		{"a kernel bridge itself", 1, []string{"br0"}, []string{"port", "add", "netdev:br0"}},
		{"the host interface", 1, []string{"kvs0"}, []string{"port", "add", "netdev:kvs0"}},
		{"the loopback", 1, []string{"lo"}, []string{"port", "add", "netdev:lo"}},
		{"a port that isn't there", 1, []string{"nosuch"}, []string{"port", "del", "nosuch"}},
		{"settings of a port that isn't there", 1, []string{"nosuch"}, []string{"port", "set", "nosuch", "isolated=on"}},
		{"an address on a port that isn't there", 1, []string{"nosuch"}, []string{"fdb", "add", "02:00:00:00:00:01", "--port", "nosuch"}},
		{"a group address", 2, []string{"01:00:5e:00:00:01"}, []string{"fdb", "add", "01:00:5e:00:00:01", "--port", "p0", "--static"}},
		{"no address", 2, []string{"02:00"}, []string{"fdb", "add", "02:00", "--port", "p0"}},
		{"an address that isn't there", 1, []string{"02:00:00:00:00:09"}, []string{"fdb", "del", "02:00:00:00:00:09"}},
		{"a VLAN that can't be", 2, []string{"4095"}, []string{"vlan", "add", "p0", "4095"}},
		{"no time", 2, []string{"soon"}, []string{"setageing", "soon"}},
		{"unknown verb", 2, []string{"frobnicate"}, []string{"frobnicate"}},
		{"unknown flag", 2, []string{"--nosuch"}, []string{"show", "--nosuch"}},
		{"an argument too many", 2, nil, []string{"stats", "p0", "p1"}},
		{"a switch that isn't running", 1, []string{"kvs9"}, []string{"show", "-s", "kvs9"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := *o.kvs
			k.t = t
			_, stderr, code := k.try(tc.args...)
			if code != tc.code {
				t.Errorf("exit status %d, want %d", code, tc.code)
			}
			checkLine(t, strings.Join(tc.args, " "), stderr, tc.words)
		})
	}
	o.unharmed(t, "after all of them", "p0", "p1")
	if now := o.state(); now != before {
		t.Errorf("devices before:\n%s\nand after:\n%s", before, now)
	}
	for _, p := range []string{"p0", "p1"} {
		if out := o.kvs.do("port", "show", p, "--json"); strings.Contains(out, `"isolated"`) {
			t.Errorf("a refused request changed %s: %s", p, out)
		}
	}
}

// runRefused starts kvswitch run in a way that can't work, and checks that it
// says so in one line and leaves nothing.
func runRefused(t *testing.T, host *netns.Host, words []string, argv ...string) {
	t.Helper()
	links := strings.Join(host.Links(), " ")
	p := host.Start(exec.Command(argv[0], argv[1:]...))
	select {
	case <-p.Done():
	case <-time.After(startPatience):
		p.Kill()
		t.Fatalf("%s: still running, after:\n%s", strings.Join(argv, " "), p.Log())
	}
	var exit *exec.ExitError
	if err := p.Err(); !errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 2 {
		t.Errorf("%s: ended with %v", strings.Join(argv, " "), err)
	}
	said := ""
	for line := range strings.Lines(p.Log()) {
		if !strings.HasPrefix(line, "{") { // log entries; the error is the last word
			said += line
		}
	}
	checkLine(t, strings.Join(argv, " "), said, words)
	if now := strings.Join(host.Links(), " "); now != links {
		t.Errorf("%s: devices %q before and %q after", strings.Join(argv, " "), links, now)
	}
}

func TestRunRefusesWhatCannotWork(t *testing.T) {
	lab := netns.New(t)
	host, far := lab.Host("host"), lab.Host("far")
	lab.Cable(host, "p0", far, "p0")
	dir := netns.Dir(t)
	run := func(args ...string) []string { return append([]string{program, "run", "--run-dir", dir}, args...) }
	config := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(config, []byte("name: kvs0\nports:\n  - netdev:p0\ncolour: red\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		words []string
		argv  []string
	}{
		{"unknown interface", []string{"nosuch0"}, run("--uplink", "nosuch0")},
		{"the same port twice", []string{"p0"}, run("--port", "netdev:p0", "--port", "netdev:p0")},
		{"uplink and port at once", []string{"p0"}, run("--port", "netdev:p0", "--uplink", "p0")},
		{"name too long", []string{"abcdefghijklmnop"}, run("--name", "abcdefghijklmnop")},
		{"name with a slash", []string{"a/b"}, run("--name", "a/b")},
		{"unknown key in the file, with line and column", []string{"bad.yaml", "colour", "4:1"}, run("--config", config)},
		{"no file", []string{"nosuch.yaml"}, run("--config", "/nosuch.yaml")},
		{"no such mode", []string{"fast"}, run("--stp", "fast")},
		{"no privilege", []string{"p0"}, append([]string{"setpriv", "--bounding-set=-net_admin,-net_raw,-sys_admin", "--inh-caps=-net_admin,-net_raw,-sys_admin"},
			run("--no-host", "--port", "netdev:p0")...)},
		{"no /dev/net/tun", []string{"/dev/net/tun"}, append([]string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0" "$@"`},
			run("--in-kernel", "off")...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runRefused(t, host, tc.words, tc.argv...)
			if left, _ := filepath.Glob(filepath.Join(dir, "*.sock")); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestALiveSocketIsRefusedAndAStaleOneTakenOver(t *testing.T) {
	o := newOffice(t, 2)
	o.computers[0].Reaches(computerIP(1))
	runRefused(t, o.host, []string{"kvs0", "running"}, program, "run", "--run-dir", o.kvs.dir)
	o.unharmed(t, "after a second switch of that name was refused", "p0", "p1")

	o.kvs.proc.Kill()
	if _, err := os.Stat(o.kvs.socket()); err != nil {
		t.Fatalf("a killed switch left no socket to take over: %v", err)
	}
	again := launch(t, o.host, o.kvs.dir, "--port", "netdev:p0", "--port", "netdev:p1")
	again.awaitReady()
	o.kvs = again
	o.computers[0].Reaches(computerIP(1))
}

// socket is the path of the control socket.
func (k *kvs) socket() string { return filepath.Join(k.dir, "kvs0.sock") }

func TestGarbageOnTheControlSocketHarmsNobody(t *testing.T) {
	o := newOffice(t, 2)
	o.computers[0].Reaches(computerIP(1))
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", o.kvs.socket())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, text := range []string{
		"",
		"\x00\xff\xfe\x00garbage\r\n\r\n",
		"GET /v1/switch HTTP/1.1\r\nHost:", // half a request
		"POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"spec\": \"net", // half a body
		"POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
		"GET /v1/switch HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20),
	} {
		if _, err := io.WriteString(dial(), text); err != nil && len(text) < 1000 {
			t.Errorf("%.30q: %v", text, err)
		}
	}
	client := &http.Client{Timeout: verbPatience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", o.kvs.socket())
		},
	}}
	defer client.CloseIdleConnections()
	for _, tc := range []struct{ method, path, body string }{
		{"GET", "/", ""},
		{"GET", "/v1/nosuch", ""},
		{"DELETE", "/v1/switch", ""},
		{"POST", "/v1/ports", ""},
		{"POST", "/v1/ports", "not JSON"},
		{"POST", "/v1/ports", `{"spec": 7}`},
		{"POST", "/v1/ports", `{"spec": "netdev:nosuch0"}`},
		{"POST", "/v1/ports", `{"spec": "netdev:p9", "colour": "red"}`},
		{"POST", "/v1/ports", strings.Repeat("[", 100000)},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://kvswitch"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s %.20q: %v", tc.method, tc.path, tc.body, err)
			continue
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode >= 500 || err != nil || strings.Count(strings.TrimSpace(string(answer)), "\n") > 0 {
			t.Errorf("%s %s %.20q: status %d, %q, %v", tc.method, tc.path, tc.body, resp.StatusCode, answer, err)
		}
	}
	o.unharmed(t, "after garbage", "p0", "p1")
}

func TestABadFileChangesNothingOnReload(t *testing.T) {
	lab := netns.New(t)
	host, far := lab.Host("host"), lab.Host("far")
	for _, p := range []string{"p0", "p1", "p2"} {
		lab.Cable(host, p, far, p)
	}
	file := filepath.Join(netns.Dir(t), "kvs0.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("name: kvs0\nhost: off\nports:\n  - netdev:p0\n  - netdev:p1\n")
	k := run(t, host, "--config", file)
	k.awaitForwarding("p0", "p1")
	before := k.do("config", "dump")
	for name, tc := range map[string]struct {
		text  string
		words []string
	}{
		"unknown key":    {"name: kvs0\nhost: off\nports:\n  - netdev:p0\n  - netdev:p2\ncolour: red\n", []string{"6:1", "colour"}},
		"unknown device": {"name: kvs0\nhost: off\nageing: 77s\nports:\n  - netdev:p0\n  - netdev:p2\n  - netdev:nosuch0\n", []string{"nosuch0"}},
		"no YAML":        {"name: [", []string{"kvs0.yaml"}},
	} {
		write(tc.text)
		k.refuses(1, tc.words, "reload")
		if now := k.do("config", "dump"); now != before {
			t.Errorf("%s: the running configuration was\n%s\nand is\n%s", name, before, now)
		}
	}
	write("name: kvs0\nhost: off\nageing: 77s\nports:\n  - netdev:p0\n  - netdev:p2\n")
	k.do("reload")
	k.awaitForwarding("p0", "p2")
	if st := k.status(); st.AgeingS != 77 || len(st.Ports) != 2 {
		t.Errorf("after a good file: ageing %v s, ports %v", st.AgeingS, st.Ports)
	}
	write(k.do("config", "dump"))
	dumped := k.do("config", "dump")
	k.do("reload")
	if now := k.do("config", "dump"); now != dumped {
		t.Errorf("fed back, the dump changed\n%s\nto\n%s", dumped, now)
	}
}
