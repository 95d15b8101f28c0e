package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
)

// The smoke run of the bench, as make bench-quick makes it: every test has a
// figure for every contender that is there, and the report is whole. How fast
// anything is is no matter here.
func TestBenchQuick(t *testing.T) {
	netlab.New(t) // skips without the privilege
	dir := netlab.Dir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, program, "bench", "--quick", "--report", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kvswitch bench --quick: %v\n%s", err, out)
	}
	t.Logf("took %v", time.Since(begin).Round(time.Second))
	for name, holds := range map[string]string{"report.html": "<svg", "results.md": "### "} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), holds) {
			t.Errorf("%s: %v, want %q in it", name, err, holds)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Complete   bool `json:"complete"`
		Contenders []struct {
			Name   string   `json:"name"`
			Absent string   `json:"absent"`
			Faults []string `json:"faults"`
		} `json:"contenders"`
		Series []struct {
			Test      string     `json:"test"`
			Contender string     `json:"contender"`
			Values    []struct{} `json:"values"`
			Rejected  int        `json:"rejected"`
		} `json:"series"`
		Trials struct {
			Made     int `json:"made"`
			Rejected int `json:"rejected"`
		} `json:"trials"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if !report.Complete || report.Trials.Made == 0 {
		t.Errorf("complete %t, %d trials", report.Complete, report.Trials.Made)
	}
	// A trial that the machine disturbed has no value, but it was tried.
	tried := map[string]bool{}
	for _, s := range report.Series {
		if len(s.Values)+s.Rejected > 0 {
			tried[s.Test+" "+s.Contender] = true
		}
	}
	there := 0
	for _, c := range report.Contenders {
		if c.Absent != "" {
			if os.Getenv("CI") == "true" {
				t.Errorf("%s is absent: %s", c.Name, c.Absent)
			}
			continue
		}
		there++
		if len(c.Faults) > 0 && strings.HasPrefix(c.Name, "kvswitch") {
			t.Errorf("%s is faulty: %q", c.Name, c.Faults)
		}
	}
	for _, test := range []string{"throughput", "latency", "bulk", "address", "broadcast", "scale"} {
		for _, c := range []string{"kernel", "kvswitch"} {
			if !tried[test+" "+c] {
				t.Errorf("test %s has nothing of %s", test, c)
			}
		}
	}
	if there < 3 || report.Trials.Rejected == report.Trials.Made {
		t.Errorf("%d contenders, %d of %d trials thrown out", there, report.Trials.Rejected, report.Trials.Made)
	}
}
