package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// offspring are the processes below one: id → program.
func offspring(t *testing.T, ancestor int) map[int]string {
	t.Helper()
	type process struct {
		parent int
		name   string
	}
	all := map[int]process{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		line := string(text)
		open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
		pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
		parent, err2 := strconv.Atoi(strings.Fields(line[end+1:])[1])
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		all[pid] = process{parent, line[open+1 : end]}
	}
	found := map[int]string{}
	for grown := true; grown; {
		grown = false
		for pid, p := range all {
			_, there := found[pid]
			_, below := found[p.parent]
			if !there && (below || p.parent == ancestor) {
				found[pid], grown = p.name, true
			}
		}
	}
	return found
}

// benchInTrial is a bench in the middle of its trials.
type benchInTrial struct {
	*netns.Proc
	dir       string
	log       *os.File
	offspring map[int]string
}

// startBench starts one that lasts for minutes, against these others as far as they
// are installed, and waits until it measures.
func startBench(t *testing.T, against string) *benchInTrial {
	t.Helper()
	b := &benchInTrial{dir: filepath.Join(netns.Dir(t), "report")}
	log, err := os.Create(filepath.Join(netns.Dir(t), "bench.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	cmd := exec.Command(program, "bench", "--quick", "--runs", "1000", "--tests", "bulk", "--against", against, "--report", b.dir)
	cmd.Stdout, cmd.Stderr, b.log = log, log, log
	b.Proc = netns.Start(t, cmd)
	netns.Await(t, 90*time.Second, "the bench is in the middle of its trials", func() error {
		if said := b.said(t); !strings.Contains(said, "bulk tcp: round") {
			return fmt.Errorf("it says:\n%s", said)
		}
		return nil
	})
	b.offspring = offspring(t, b.Pid())
	for _, p := range []struct{ name, family, installed string }{
		{"kvswitch", "kernel", program}, {"ovs-vswitchd", "ovs", "ovs-vswitchd"}, {"ovsdb-server", "ovs", "ovs-vswitchd"}, {"vde_switch", "vde", "vde_switch"},
	} {
		_, err := exec.LookPath(p.installed)
		runs := slices.Contains(slices.Collect(maps.Values(b.offspring)), p.name)
		if err == nil && strings.Contains(against, p.family) && !runs {
			t.Errorf("no %s among the contenders that run: %v", p.name, b.offspring)
		}
	}
	if spaces := b.namespaces(t); len(spaces) < 5 {
		t.Errorf("only the namespaces %v", spaces)
	}
	return b
}

func (b *benchInTrial) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (b *benchInTrial) namespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/run/netns/kvs-%d-*", b.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const benchPatience = time.Minute

// gone waits until the bench has ended, and checks that nothing of it is left.
func (b *benchInTrial) gone(t *testing.T) {
	t.Helper()
	select {
	case <-b.Done():
	case <-time.After(benchPatience):
		t.Fatalf("the bench still runs after %v:\n%s", benchPatience, b.said(t))
	}
	netns.Await(t, 10*time.Second, "nothing of it is left", func() error {
		var left []string
		for pid, name := range b.offspring {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			dead := strings.Contains(string(text), ") Z ") // waits for init to bury it
			if err == nil && !dead && strings.Contains(string(text), "("+name+")") {
				left = append(left, fmt.Sprintf("%s (process %d)", name, pid))
			}
		}
		dirs, err := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("kvs-%d-*", b.Pid())))
		if left = slices.Concat(left, b.namespaces(t), dirs); err != nil || len(left) > 0 {
			return fmt.Errorf("left: %v, error %v", left, err)
		}
		return nil
	})
}

func (b *benchInTrial) exitCode() int {
	var exit *exec.ExitError
	if errors.As(b.Err(), &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestInterruptedBenchReportsAndLeavesNothing(t *testing.T) {
	netns.RequirePrivilege(t)
	b := startBench(t, "kernel,ovs,vde")
	b.Signal(unix.SIGINT)
	b.gone(t)
	if code := b.exitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	var errs []string
	for line := range strings.Lines(b.said(t)) {
		if strings.HasPrefix(line, "kvswitch: ") {
			errs = append(errs, strings.TrimSpace(line))
		}
	}
	if len(errs) != 1 || !strings.HasPrefix(errs[0], "kvswitch: stopped by interrupt") {
		t.Errorf("it says %q, want one line", errs)
	}
	r := readBenchReport(t, filepath.Join(b.dir, "report.json"))
	if r.Complete || len(r.Series) == 0 || len(r.Contenders) == 0 {
		t.Errorf("report: complete %t, %d series, want the beginning of one", r.Complete, len(r.Series))
	}
	for name, holds := range map[string]string{"report.html": "was interrupted", "results.md": "INCOMPLETE"} {
		text, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil || !strings.Contains(string(text), holds) {
			t.Errorf("%s: %v, want %q in it", name, err, holds)
		}
	}
}

// One that waited for its tidying up would say that it was stopped by the first.
func TestSecondInterruptEndsTheBenchAtOnce(t *testing.T) {
	netns.RequirePrivilege(t)
	b := startBench(t, "kernel")
	for ended := false; !ended; { // two of a kind at the same time are one
		b.Signal(unix.SIGINT)
		select {
		case <-b.Done():
			ended = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	b.gone(t)
	if said := b.said(t); b.exitCode() != 1 || !strings.Contains(said, "kvswitch: stopped by a second interrupt") {
		t.Errorf("exit code %d:\n%s", b.exitCode(), said)
	}
}

func TestKilledBenchLeavesNothing(t *testing.T) {
	netns.RequirePrivilege(t)
	b := startBench(t, "kernel,vde")
	b.Signal(unix.SIGKILL)
	b.gone(t)
}
