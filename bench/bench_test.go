package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// kernelOnly are the contenders that need nothing installed.
func kernelOnly() []subject.Kind {
	return slices.DeleteFunc(subject.Kinds("veth"), func(k subject.Kind) bool { return k.Family != "cable" && k.Family != "kernel" })
}

// short are options for a run of a few seconds whose figures nobody reads.
func short(t *testing.T) Options {
	return Options{
		Quick: true, tolerant: true, trialLength: 10 * time.Millisecond, kinds: kernelOnly(),
		Sizes: []string{"64", "1518", "gso"}, Flows: []int{1, 10}, Runs: 3, ReportDir: t.TempDir(),
	}
}

func TestRunFillsTheReport(t *testing.T) {
	netns.RequirePrivilege(t)
	o := short(t)
	var tables strings.Builder
	o.Out = &tables
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Complete || r.Trials.Made == 0 || len(r.Machine.Mitigations) == 0 && r.Machine.Kernel == "" {
		t.Errorf("complete %v, %d trials", r.Complete, r.Trials.Made)
	}
	cases := map[string]int{} // by test and metric
	for _, s := range r.Series {
		if s.Contender == r.Refer && len(s.Values) > 0 {
			cases[s.Test+" "+s.Name]++
		}
	}
	for metric, want := range map[string]int{
		"throughput received":   3 + 2 + 2, // sizes, more flows and one beside, XDP
		"throughput machine_ns": 7,
		"throughput cpu_ns":     5 + 1, // without XDP; and at equal load
		"bulk received":         2,
		"address capacity":      1,
		"address learning_rate": 1,
		"broadcast delivered":   1,
		"broadcast meshed":      1,
		"broadcast blocking":    1,
		"scale ports":           2,
		"scale addresses":       2,
	} {
		if cases[metric] != want {
			t.Errorf("%s: %d cases, want %d", metric, cases[metric], want)
		}
	}
	raced := len(kernelOnly())                      // the loop in memory is no contender in a race
	if want := 2 * raced; len(r.Searches) != want { // NDR and PDR
		t.Errorf("%d searches, want %d", len(r.Searches), want)
	}
	if want := 4 * raced; len(r.Latencies) != want {
		t.Errorf("%d latency distributions, want %d", len(r.Latencies), want)
	}
	for _, c := range r.Contenders {
		if len(c.Faults) > 0 || c.Absent != "" {
			t.Errorf("%s: faults %q, absent %q", c.Name, c.Faults, c.Absent)
		}
		if c.Family == "kernel" && c.Settings["bridge-nf-call-iptables"] == "1" {
			t.Errorf("%s ran with br_netfilter on", c.Name)
		}
	}
	const taught = 1 << 14
	for _, s := range r.Series {
		if s.Name == "capacity" && s.Contender == r.Refer && s.Median != taught {
			t.Errorf("the kernel's bridge holds %v addresses, want all %d that it was taught", s.Median, taught)
		}
	}
	if !strings.Contains(tables.String(), "receive rate at full load") {
		t.Errorf("no table in\n%s", tables.String())
	}
	for _, f := range []string{"report.json", "report.html", "results.md"} {
		if st, err := os.Stat(filepath.Join(o.ReportDir, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	leftovers(t, os.Getpid())
}

// leftovers waits until nothing is left of a process's topologies.
func leftovers(t *testing.T, pid int) {
	t.Helper()
	netns.Await(t, 10*time.Second, "namespaces and directories are gone", func() error {
		var left []string
		for _, dir := range []string{"/run/netns", os.TempDir()} {
			found, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("kvs-%d-*", pid)))
			if err != nil {
				return err
			}
			left = append(left, found...)
		}
		if len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}

func TestInterruptedRunReportsWhatItHas(t *testing.T) {
	netns.RequirePrivilege(t)
	o := short(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Progress = writerFunc(func(b []byte) {
		if strings.Contains(string(b), "attaching") {
			cancel()
		}
	})
	r, err := Run(ctx, o)
	if !errors.Is(err, context.Canceled) || r == nil || r.Complete {
		t.Errorf("report %v, error %v; want an incomplete report and the context's error", r, err)
	}
	leftovers(t, os.Getpid())
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// TestMain runs a bench instead of the tests when TestSignals asks for one.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_VICTIM") == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	o := Options{Quick: true, tolerant: true, trialLength: time.Minute, kinds: kernelOnly(), Tests: []string{"bulk"}, Progress: os.Stdout}
	_, err := Run(ctx, o)
	fmt.Println(err)
	os.Exit(1)
}

func TestNothingIsLeftWhenTheProcessDies(t *testing.T) {
	netns.RequirePrivilege(t)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "BENCH_VICTIM=1")
			p := netns.Start(t, cmd)
			netns.Await(t, 20*time.Second, "the bench has begun", func() error {
				found, err := filepath.Glob(fmt.Sprintf("/run/netns/kvs-%d-*", p.Pid()))
				if err != nil || len(found) < 3 {
					return fmt.Errorf("namespaces %v, error %v: %s", found, err, p.Log())
				}
				return nil
			})
			p.Signal(sig)
			<-p.Done()
			leftovers(t, p.Pid())
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Against: []string{"cisco"}}, {Tests: []string{"speed"}}, {Path: "wet-string"},
		{Sizes: []string{"63"}}, {Flows: []int{0}}, {Runs: -1},
	} {
		if err := o.Validate(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	var o Options
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if o.Runs != 10 || len(o.Sizes) != 9 || len(o.Flows) != 3 || len(o.Tests) != len(Tests) || !o.enters("ovs") {
		t.Errorf("defaults %+v", o)
	}
	o.Against = []string{"kernel"}
	if o.enters("ovs") || o.enters("vde") || !o.enters("kvswitch") || !o.enters("cable") {
		t.Error("--against kernel must leave out ovs and vde, and nothing else")
	}
}
