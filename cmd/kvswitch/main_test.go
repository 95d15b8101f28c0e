package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program, too: with asProgram in the environment it
// does what kvswitch does.
const asProgram = "KVSWITCH_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Unsetenv("KVSWITCH_SWITCH")
	os.Unsetenv("JOURNAL_STREAM")
	os.Exit(m.Run())
}

// program is a kvswitch process with its own run directory.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "KVSWITCH_RUN_DIR="+dir, "KVSWITCH_SWITCH=")
	return cmd
}

// result is how a process ended.
type result struct {
	code        int
	out, errors string
}

func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("start %v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// host is a running switch that needs no privilege: no host interface, ports
// that are sockets.
type host struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log *bytes.Buffer
}

func start(t *testing.T, args ...string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	h.start(args...)
	return h
}

func (h *host) start(args ...string) {
	h.t.Helper()
	h.cmd = program(h.t, h.dir, append([]string{"run", "--no-host"}, args...)...)
	h.cmd.Stderr = h.log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	cmd := h.cmd
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if h.t.Failed() {
			h.t.Logf("log of the switch:\n%s", h.log)
		}
	})
	eventually(h.t, "the control socket answers", func() bool {
		select {
		case <-ended:
			h.t.Fatalf("the switch ended:\n%s", h.log)
		default:
		}
		return h.kvswitch("show").code == 0
	})
}

// stop ends the switch by a signal and waits for it.
func (h *host) stop() {
	h.t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "the switch ends", func() bool { return syscall.Kill(h.cmd.Process.Pid, 0) != nil })
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// kvswitch runs a verb in this process, which is much quicker than in one of
// its own.
func (h *host) kvswitch(args ...string) result {
	var out, errs bytes.Buffer
	code := execute(append([]string{"kvswitch", "--run-dir", h.dir}, args...), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// must runs a verb that has to succeed and returns what it prints.
func (h *host) must(args ...string) string {
	h.t.Helper()
	r := h.kvswitch(args...)
	if r.code != 0 || r.errors != "" {
		h.t.Fatalf("kvswitch %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.errors)
	}
	return r.out
}

// refused runs a verb that has to fail with that exit code and one line that
// holds text.
func (h *host) refused(code int, text string, args ...string) {
	h.t.Helper()
	r := h.kvswitch(args...)
	if r.code != code || !strings.HasPrefix(r.errors, "kvswitch: ") || !strings.Contains(r.errors, text) {
		h.t.Errorf("kvswitch %s: exit %d: %q, want exit %d and %q", strings.Join(args, " "), r.code, r.errors, code, text)
	}
	if strings.Count(r.errors, "\n") != 1 || r.out != "" {
		h.t.Errorf("kvswitch %s: not one line on stderr alone: %q %q", strings.Join(args, " "), r.errors, r.out)
	}
}

// decode reads a document that a verb prints with --json.
func decode[T any](h *host, args ...string) T {
	h.t.Helper()
	var v T
	text := h.must(append(args, "--json")...)
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		h.t.Fatalf("kvswitch %s --json: %v\n%s", strings.Join(args, " "), err, text)
	}
	if d.More() {
		h.t.Errorf("kvswitch %s --json: more than one document", strings.Join(args, " "))
	}
	if strings.Contains(text, "null") {
		h.t.Errorf("kvswitch %s --json: a null:\n%s", strings.Join(args, " "), text)
	}
	return v
}

// socket is a path for a socket port, short enough for sockaddr_un.
func (h *host) socket(name string) string { return filepath.Join(h.dir, name) }

func TestCalledByALinksName(t *testing.T) {
	for _, tc := range []struct{ argv, want []string }{
		{[]string{"/usr/bin/kvswitch", "show"}, []string{"show"}},
		{[]string{"/etc/kvswitch-ifup", "tap0"}, []string{"ifup", "tap0"}},
		{[]string{"kvswitch-ifdown", "tap0"}, []string{"ifdown", "tap0"}},
		{[]string{"kvswitch-static", "show"}, []string{"show"}},
		{[]string{"kvswitch"}, []string{}},
		{nil, nil},
	} {
		if got := arguments(tc.argv); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.argv, got, tc.want)
		}
	}
}

func TestUsageErrorsExitWith2(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	for _, tc := range []struct {
		text string
		args []string
	}{
		{`unknown verb "shwo" (did you mean show`, []string{"shwo"}},
		{"unknown flag: --colour", []string{"show", "--colour"}},
		{`want "kvswitch stats [NAME] [flags]"`, []string{"stats", "a", "b"}},
		{`unknown verb "ad" (did you mean add?): want one of show, add, del, set`, []string{"port", "ad"}},
		{`unknown verb "shwo" (did you mean show?)`, []string{"stp", "shwo"}},
		{`name switches, or give -s`, []string{"show", "kvs0", "-s", "kvs0"}},
		{`setfd: is switch br0 meant, or kvs0 of -s?`, []string{"setfd", "br0", "15", "-s", "kvs0"}},
		{`stp: is switch br0 meant, or kvs0 of -s?`, []string{"stp", "br0", "on", "-s", "kvs0"}},
		{`want "kvswitch setfd [SWITCH] TIME [flags]"`, []string{"setfd", "br0", "15", "16"}},
		{"want", []string{"port", "add"}},
		{`"vlan" is not key=value`, []string{"port", "set", "vm1", "vlan"}},
		{"parse MAC", []string{"fdb", "add", "52:54", "--port", "a"}},
		{"give --port", []string{"fdb", "add", "52:54:00:00:00:01"}},
		{"parse VLAN id", []string{"fdb", "show", "--vlan", "4095"}},
		{"parse VLAN", []string{"vlan", "add", "a", "9-5"}},
		// A script's variable that is not set.
		{"the name is missing", []string{"fdb", "flush", "--port", ""}},
		{"parse VLAN id", []string{"fdb", "flush", "--vlan", ""}},
		{"the name is missing", []string{"fdb", "show", "--port", ""}},
		{"parse VLAN id", []string{"fdb", "show", "--vlan="}},
		{"the name is missing", []string{"fdb", "add", "52:54:00:00:00:01", "--port", ""}},
		{"parse VLAN id", []string{"vm", "attach", "--qmp", "/x", "--vlan", ""}},
		{"port del: the name is missing", []string{"port", "del", ""}},
		{"port show: the name is missing", []string{"port", "show", ""}},
		{"port set: the name is missing", []string{"port", "set", "", "cost=1"}},
		{"stats: the name is missing", []string{"stats", ""}},
		{"delif: the name is missing", []string{"delif", ""}},
		{"ifdown: the name is missing", []string{"ifdown", ""}},
		{"stp port: the name is missing", []string{"stp", "port", "", "recover=now"}},
		{"vlan add: the name is missing", []string{"vlan", "add", "", "5"}},
		{"setpathcost: the name is missing", []string{"setpathcost", "", "5"}},
		{`port show: name ".." is not allowed`, []string{"port", "show", ".."}},
		{`port del: name "a/b": it can't hold the character '/'`, []string{"port", "del", "a/b"}},
		{`unknown key "vlan"`, []string{"stp", "port", "a", "vlan=5", "-s", "kvs0"}},
		{`unknown key "vlan"`, []string{"stp", "port", "a", "vlan=5"}},
		{"set cost=now: ", []string{"stp", "port", "a", "cost=now"}},
		{"want mcheck=now", []string{"stp", "port", "a", "mcheck=on"}},
		{"recover=now is done once and the rest is kept", []string{"stp", "port", "a", "cost=5", "recover=now"}},
		{"mcheck=now is done once", []string{"stp", "port", "a", "mcheck=now", "cost=5"}},
		{"vlan is given twice", []string{"port", "set", "a", "vlan=10", "vlan=20"}},
		{"hello is given twice", []string{"stp", "set", "hello=1", "hello=2"}},
		{"recover is given twice", []string{"stp", "port", "a", "recover=now", "recover=5s"}},
		{"set cost=-1", []string{"port", "set", "a", "cost=-1"}},
		{`no such key; known: vlan`, []string{"port", "set", "a", "colour=red"}},
		{`unknown key "colour"`, []string{"stp", "set", "colour=red"}},
		{"want 1s to 10s", []string{"stp", "set", "hello=11"}},
		{"setfd: forward-delay", []string{"setfd", "99"}},
		{"sethello: hello", []string{"sethello", "x"}},
		{"setmaxage: max-age", []string{"setmaxage", "5"}},
		{"setbridgeprio: priority", []string{"setbridgeprio", "65536"}},
		{"set cost=many", []string{"setpathcost", "a", "many"}},
		{"set hairpin=maybe", []string{"hairpin", "a", "maybe"}},
		{"multiple of 4", []string{"setportprio", "a", "33"}},
		{"want KIND:NAME", []string{"port", "add", "tap0"}},
		{`unknown kind of port "wire"`, []string{"port", "add", "wire:x"}},
		{`unknown key "colour" for a netdev port`, []string{"port", "add", "netdev:eth0,colour=red"}},
		{"set vlan=4095", []string{"port", "add", "netdev:eth0,vlan=4095"}},
		{"the name is missing", []string{"port", "add", "netdev:"}},
		{"addif: name", []string{"addif", "a/b"}},
		{"at most 15 bytes", []string{"addif", strings.Repeat("x", 128)}},
		{"ifup: name", []string{"ifup", "a/b"}},
		{"it is no station's address", []string{"fdb", "add", "01:00:5e:00:00:01", "--port", "a"}},
		{"a port has one PVID", []string{"vlan", "add", "a", "5-9", "--pvid"}},
		{"vm attach: id", []string{"vm", "attach", "--qmp", "/x", "--id", "1x"}},
		{"vm attach: 1000 queues", []string{"vm", "attach", "--qmp", "/x", "--queues", "1000"}},
		{`vm attach: vhost "maybe"`, []string{"vm", "attach", "--qmp", "/x", "--vhost", "maybe"}},
		{`unknown key "colour"`, []string{"vm", "attach", "--qmp", "/x", "--set", "colour=red"}},
		{"is no station's address", []string{"vm", "attach", "--qmp", "/x", "--mac", "01:00:5e:00:00:01"}},
		{`help: unknown verb "nosuch"`, []string{"help", "nosuch"}},
		{`help: unknown verb "shwo" (did you mean show`, []string{"help", "shwo"}},
		{`help: unknown verb "port ad" (did you mean add?)`, []string{"help", "port", "ad"}},
		{`help: unknown verb "port nosuch"`, []string{"help", "port", "nosuch"}},
		{`unknown verb "nosuch": want one of bash, fish, powershell, zsh`, []string{"completion", "nosuch"}},
		{"want one of bash", []string{"completion"}},
		{"want", []string{"completion", "bash", "junk"}},
		{`-s: name "../x": it can't hold the character '/'`, []string{"show", "-s", "../x"}},
		{"want 1s to 1000000s", []string{"setageing", "soon"}},
		{"or 0 to learn nothing", []string{"setageing", "0.5"}},
		{"unknown kind of event", []string{"monitor", "weather"}},
		{`--workers "0": want a number from 1 to 64`, []string{"run", "--workers", "0"}},
		{`--stp "maybe": want rstp, stp or off`, []string{"run", "--stp", "maybe"}},
		{`--mac "ff:ff:ff:ff:ff:ff"`, []string{"run", "--mac", "ff:ff:ff:ff:ff:ff"}},
		{`--name "a/b"`, []string{"run", "--name", "a/b"}},
		{`parse port "tap0": want KIND:NAME`, []string{"run", "--port", "tap0"}},
		{"too long", []string{"run", "--uplink", strings.Repeat("x", 128)}},
		{"port eth0 is given twice", []string{"run", "--uplink", "eth0", "--port", "netdev:eth0"}},
		{"has the name of the host interface", []string{"run", "--port", "netdev:kvs0"}},
		{`--log-format "xml"`, []string{"run", "--log-format", "xml"}},
		{"give one of them", []string{"run", "--host", "br0", "--no-host"}},
	} {
		h.refused(2, tc.text, tc.args...)
	}
}

func TestNoSwitchIsAClearLine(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	for _, args := range [][]string{{"show"}, {"port", "add", "netdev:tap0"}, {"monitor"}, {"ifdown", "tap0"}, {"config", "dump"}} {
		h.refused(1, "no switch is running in "+h.dir+": start one with `kvswitch run`", args...)
		h.refused(1, "switch kvs9 is not running", append(args, "-s", "kvs9")...)
	}
}

func TestHelpAndVersionNeedNoSwitch(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"run", "--help"}, {"port", "add", "--help"}, {"help", "port", "add"}, {"completion", "bash"}, {"version"}, {"--version"}, {"-V"}, {"doctor"}} {
		if out := h.must(args...); out == "" {
			t.Errorf("kvswitch %s prints nothing", strings.Join(args, " "))
		}
	}
	if v := decode[map[string]string](h, "version"); v["go"] == "" || v["version"] == "" {
		t.Errorf("version: %v", v)
	}
	if len(decode[[]map[string]string](h, "doctor")) < 10 {
		t.Error("doctor --json has few findings")
	}
	if r := h.kvswitch("__complete", "port", ""); !strings.Contains(r.out, "add") {
		t.Errorf("completion of port: %+v", r)
	}
}

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	h := start(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	cmd := program(t, h.dir, "show")
	cmd.Stdout = full
	if r := run(t, cmd); r.code != 1 || !strings.Contains(r.errors, "no space left") {
		t.Errorf("exit %d: %q", r.code, r.errors)
	}
	// A reader that has gone ends the program as it ends any other.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd = program(t, h.dir, "show")
	cmd.Stdout = w
	if r := run(t, cmd); r.code == 0 || r.errors != "" {
		t.Errorf("a closed pipe: exit %d: %q", r.code, r.errors)
	}
	w.Close()
}
