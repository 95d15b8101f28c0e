package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// kvs is a running kvswitch.
type kvs struct {
	t    *testing.T
	host *netns.Host
	dir  string // of control sockets
	name string // with several switches in dir; else empty
	proc *netns.Proc
}

const (
	startPatience = 10 * time.Second
	// stopPatience is no limit: a kvswitch that takes longer than the contract's
	// two seconds from SIGTERM ends by itself, and not with exit status 0.
	stopPatience = 20 * time.Second
	// verbPatience is for one verb of the command line.
	verbPatience = 20 * time.Second
)

// run starts kvswitch run on a host and returns when its control socket
// answers. When the test ends it must stop as it should.
func run(t *testing.T, host *netns.Host, args ...string) *kvs {
	t.Helper()
	k := launch(t, host, netns.Dir(t), args...)
	k.awaitReady()
	return k
}

// launch starts kvswitch run in the test's mode and does not wait.
func launch(t *testing.T, host *netns.Host, dir string, args ...string) *kvs {
	t.Helper()
	k := &kvs{t: t, host: host, dir: dir}
	args = append([]string{"run", "--run-dir", dir}, args...)
	if mode := inKernelMode(t); mode != inKernelAuto { // which is the default
		args = append(args, "--in-kernel", mode)
	}
	cmd := exec.Command(program, args...)
	k.proc = host.Start(cmd)
	t.Cleanup(func() {
		select {
		case <-k.proc.Done():
		default:
			k.stop()
		}
		if strings.Contains(k.proc.Log(), "panic") || strings.Contains(k.proc.Log(), "goroutine ") {
			t.Errorf("kvswitch panicked:\n%s", k.proc.Log())
		}
	})
	return k
}

func (k *kvs) awaitReady() {
	k.t.Helper()
	netns.Await(k.t, startPatience, "kvswitch is ready", func() error {
		select {
		case <-k.proc.Done():
			k.t.Fatalf("kvswitch run ended: %v\n%s", k.proc.Err(), k.proc.Log())
		default:
		}
		_, stderr, code := k.try("show", "--json")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	})
}

// stop ends the switch as systemd would, and checks that it goes in peace.
func (k *kvs) stop() {
	k.t.Helper()
	if err := k.proc.Stop(stopPatience); err != nil {
		k.t.Errorf("kvswitch run after SIGTERM: %v\n%s", err, k.proc.Log())
	}
	if left, _ := filepath.Glob(filepath.Join(k.dir, k.name+"*.sock")); len(left) > 0 {
		k.t.Errorf("kvswitch run left %v", left)
	}
}

// try runs a verb and returns what it printed and its exit status.
func (k *kvs) try(args ...string) (stdout, stderr string, code int) {
	k.t.Helper()
	return cli(k.t, []string{"KVSWITCH_RUN_DIR=" + k.dir, "KVSWITCH_SWITCH=" + k.name}, args...)
}

// cli runs the program with additions to its environment.
func cli(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), verbPatience)
	defer cancel()
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("kvswitch %s: %v, %v", strings.Join(args, " "), err, ctx.Err())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// do runs a verb that must succeed, silently on standard error.
func (k *kvs) do(args ...string) string {
	k.t.Helper()
	stdout, stderr, code := k.try(args...)
	if code != 0 || stderr != "" {
		k.t.Fatalf("kvswitch %s: exit status %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// refuses runs a verb that must fail with this exit status, print nothing, and
// say one line that contains each of the words.
func (k *kvs) refuses(code int, words []string, args ...string) {
	k.t.Helper()
	stdout, stderr, got := k.try(args...)
	if got != code || stdout != "" {
		k.t.Errorf("kvswitch %s: exit status %d, output %q, want status %d and none", strings.Join(args, " "), got, stdout, code)
	}
	checkLine(k.t, "kvswitch "+strings.Join(args, " "), stderr, words)
}

// checkLine checks that an error is one clear line.
func checkLine(t *testing.T, what, text string, words []string) {
	t.Helper()
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("%s says %q: want one line", what, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s says %q: nothing about %q", what, text, w)
		}
	}
}

// The documents of the contract, as far as tests look at them. They are spelt
// out here, so that a renamed field fails a test.
type (
	statusDoc struct {
		Name     string `json:"name"`
		BridgeID string `json:"bridge_id"`
		STP      struct {
			Mode   string `json:"mode"`
			RootID string `json:"root_id"`
		} `json:"stp"`
		AgeingS       float64 `json:"ageing_s"`
		VLANFiltering bool    `json:"vlan_filtering"`
		Workers       int     `json:"workers"`
		FDB           struct {
			Entries int `json:"entries"`
			Max     int `json:"max"`
		} `json:"fdb"`
		UptimeS float64   `json:"uptime_s"`
		Host    string    `json:"host"`
		Ports   []portDoc `json:"ports"`
	}
	portDoc struct {
		Name    string `json:"name"`
		Kind    string `json:"kind"`
		ID      int    `json:"id"`
		MAC     string `json:"mac"`
		MTU     int    `json:"mtu"`
		Learned int    `json:"learned"`
		Link    string `json:"link"`
		Uplink  bool   `json:"uplink"`
		STP     struct {
			State string `json:"state"`
			Role  string `json:"role"`
		} `json:"stp"`
		InKernel struct {
			Active   bool   `json:"active"`
			Why      string `json:"why"`
			RxFrames uint64 `json:"rx_frames"`
			TxFrames uint64 `json:"tx_frames"`
		} `json:"in_kernel"`
		RX    trafficDoc        `json:"rx"`
		TX    trafficDoc        `json:"tx"`
		Drops map[string]uint64 `json:"drops"`
	}
	trafficDoc struct {
		Frames  uint64 `json:"frames"`
		Bytes   uint64 `json:"bytes"`
		Dropped uint64 `json:"dropped"`
	}
	entryDoc struct {
		MAC  string  `json:"mac"`
		VLAN uint16  `json:"vlan"`
		Port string  `json:"port"`
		Type string  `json:"type"`
		AgeS float64 `json:"age_s"`
	}
)

// status is kvswitch show --json.
func (k *kvs) status() (st statusDoc) {
	k.t.Helper()
	k.decode(&st, "show", "--json")
	return st
}

// table is kvswitch fdb show --json.
func (k *kvs) table() (entries []entryDoc) {
	k.t.Helper()
	k.decode(&entries, "fdb", "show", "--json")
	return entries
}

func (k *kvs) decode(v any, args ...string) {
	k.t.Helper()
	out := k.do(args...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		k.t.Fatalf("kvswitch %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// port is one port of the status.
func (k *kvs) port(name string) portDoc {
	k.t.Helper()
	st := k.status()
	i := slices.IndexFunc(st.Ports, func(p portDoc) bool { return p.Name == name })
	if i < 0 {
		k.t.Fatalf("no port %s in %+v", name, st.Ports)
	}
	return st.Ports[i]
}

// awaitPort waits until a port is as it should be.
func (k *kvs) awaitPort(name, what string, ok func(portDoc) bool) {
	k.t.Helper()
	netns.Await(k.t, startPatience, "port "+name+" "+what, func() error {
		if p := k.port(name); !ok(p) {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
}

// awaitForwarding waits until these ports forward.
func (k *kvs) awaitForwarding(names ...string) {
	k.t.Helper()
	for _, n := range names {
		k.awaitPort(n, "forwards", func(p portDoc) bool { return p.Link == "up" && p.STP.State == "forwarding" })
	}
}

// where is the port on which the table has a station; "" if it has not.
func (k *kvs) where(station fmt.Stringer) string {
	k.t.Helper()
	for _, e := range k.table() {
		if e.MAC == station.String() {
			return e.Port
		}
	}
	return ""
}

// ageing and learned make kvswitch a subject of the differential test.
func (k *kvs) ageing(d time.Duration) {
	k.t.Helper()
	k.do("setageing", fmt.Sprint(d.Seconds()))
}

func (k *kvs) learned() int {
	k.t.Helper()
	return k.status().FDB.Entries
}

// onStar runs kvswitch without spanning tree and host interface on the ports of
// a star: a plain learning switch.
func onStar(s *star, args ...string) *kvs {
	s.t.Helper()
	args = append([]string{"--stp", "off", "--no-host"}, args...)
	for _, p := range s.ports {
		args = append(args, "--port", "netdev:"+p)
	}
	k := run(s.t, s.host, args...)
	k.awaitForwarding(s.ports...)
	return k
}
