package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// benchReport is what these tests read of report.json.
type benchReport struct {
	Complete   bool `json:"complete"`
	Contenders []struct {
		Name   string   `json:"name"`
		Family string   `json:"family"`
		Absent string   `json:"absent"`
		Faults []string `json:"faults"`
	} `json:"contenders"`
	Series []struct {
		Test      string     `json:"test"`
		Name      string     `json:"name"`
		Case      benchCase  `json:"case"`
		Contender string     `json:"contender"`
		Values    []struct{} `json:"values"`
		Rejected  int        `json:"rejected"`
	} `json:"series"`
	Searches  []benchSearch `json:"searches"`
	Latencies []struct {
		Case      benchCase `json:"case"`
		Contender string    `json:"contender"`
		Frames    int       `json:"frames"`
	} `json:"latencies"`
	Aims []struct {
		Text string `json:"aim"`
		Why  string `json:"why"`
	} `json:"aims"`
	Trials struct {
		Made     int `json:"made"`
		Rejected int `json:"rejected"`
	} `json:"trials"`
	Notes []string `json:"notes"`
}

type benchSearch struct {
	Goal      string  `json:"goal"`
	Contender string  `json:"contender"`
	Lower     float64 `json:"lower"`
}

type benchCase struct {
	Size      string `json:"size"`
	Flows     int    `json:"flows"`
	Ports     int    `json:"ports"`
	Source    string `json:"source"`
	Load      string `json:"load"`
	Addresses int    `json:"addresses"`
	Workers   int    `json:"workers"`
}

func readBenchReport(t *testing.T, path string) (r benchReport) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r
}

// figure is what a smoke run measures: of whom, and in how many cases.
type figure struct {
	metric string
	cases  int
	of     func(name, family string) bool
}

var figures = []figure{
	{"throughput received", 6, racer}, // two sizes, 1000 flows with one beside, two of XDP
	{"throughput machine_ns", 6, racer},
	{"throughput cpu_ns", 5, switching}, // not of XDP, but once at equal load
	{"throughput memory", 2, func(name, _ string) bool { return name == "memory" }},
	{"latency p50", 4, racer}, // three loads, and pings
	{"latency p90", 4, racer},
	{"latency p99", 4, racer},
	{"latency p99.9", 4, racer},
	{"bulk received", 2, racer},
	{"address capacity", 1, firstOfFamily},
	{"address learning_rate", 1, firstOfFamily},
	{"broadcast delivered", 1, switching},
	{"broadcast meshed", 1, switching},
	{"broadcast blocking", 1, func(name, family string) bool { return switching(name, family) && family != "vde" }},
	{"broadcast hung", 1, func(name, family string) bool { return switching(name, family) && family != "vde" }},
	{"scale ports", 2, switching},
	{"scale addresses", 2, switching},
	{"scale workers", runtime.NumCPU(), func(name, _ string) bool { return name == "kvswitch" }},
}

func racer(name, _ string) bool          { return name != "memory" }
func switching(name, family string) bool { return racer(name, family) && family != "cable" }
func firstOfFamily(name, family string) bool {
	return switching(name, family) && name == family
}

// The smoke run of the bench, as make bench-quick makes it but for one round: every
// contender that is there has a figure in every case of every test, or the report
// says why not. How fast anything is is no matter here, nor how busy the machine
// is: a smoke run counts disturbed trials, too.
func TestBenchQuick(t *testing.T) {
	netns.New(t) // skips without the privilege
	dir := netns.Dir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, program, "bench", "--quick", "--runs", "1", "--report", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kvswitch bench --quick: %v\n%s", err, out)
	}
	t.Logf("took %v", time.Since(begin).Round(time.Second))
	for name, holds := range map[string]string{"report.html": "<svg", "results.md": "kvswitch's own aims"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), holds) {
			t.Errorf("%s: %v, want %q in it", name, err, holds)
		}
	}
	r := readBenchReport(t, filepath.Join(dir, "report.json"))
	if !r.Complete || r.Trials.Made == 0 || r.Trials.Rejected > 0 {
		t.Errorf("complete %t, %d trials, %d of them thrown out", r.Complete, r.Trials.Made, r.Trials.Rejected)
	}
	r.contenders(t)
	r.figures(t)
	r.searchesAndLatencies(t)
	for _, a := range r.Aims {
		if a.Why == "not measured in this run" && !strings.Contains(a.Text, "000 flows") {
			t.Errorf("aim %q: %s", a.Text, a.Why)
		}
	}
	if len(r.Aims) == 0 {
		t.Error("no word of kvswitch's own aims")
	}
}

// contenders checks that those are there that can be.
func (r *benchReport) contenders(t *testing.T) {
	t.Helper()
	var names []string
	for _, c := range r.Contenders {
		names = append(names, c.Name)
		if c.Absent != "" && os.Getenv("CI") == "true" {
			t.Errorf("%s is absent: %s", c.Name, c.Absent)
		}
		if len(c.Faults) > 0 && strings.HasPrefix(c.Name, "kvswitch") {
			t.Errorf("%s is faulty: %q", c.Name, c.Faults)
		}
	}
	for _, want := range []string{
		"cable", "kernel", "kernel-rps", "kvswitch", "kvswitch-spin", "kvswitch-sleep", "ovs", "ovs-afxdp", "vde", "memory",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no word of %s in the report", want)
		}
	}
}

// excused reports that the report says why a contender lacks something.
func (r *benchReport) excused(contender string) bool {
	for _, c := range r.Contenders {
		if c.Name == contender && (c.Absent != "" || len(c.Faults) > 0) {
			return true
		}
	}
	return slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.HasPrefix(n, contender+" ") || strings.HasPrefix(n, contender+":")
	})
}

// unloaded reports a share of a load that the search, says the report, did not
// find.
func (r *benchReport) unloaded(contender string, c benchCase) bool {
	return strings.HasSuffix(c.Load, "of PDR") && slices.ContainsFunc(r.Searches, func(s benchSearch) bool {
		return s.Contender == contender && s.Goal == "PDR" && s.Lower == 0
	})
}

// figures checks every metric and case of every contender.
func (r *benchReport) figures(t *testing.T) {
	t.Helper()
	type place struct {
		metric, contender string
		c                 benchCase
	}
	have := map[place]bool{}
	cases := map[string][]benchCase{}
	for _, s := range r.Series {
		metric := s.Test + " " + s.Name
		if !slices.Contains(cases[metric], s.Case) {
			cases[metric] = append(cases[metric], s.Case)
		}
		// Where a round has no value the report says that it was tried.
		have[place{metric, s.Contender, s.Case}] = len(s.Values) > 0 || s.Rejected > 0
	}
	for _, f := range figures {
		if len(cases[f.metric]) != f.cases {
			t.Errorf("%s: %d cases, want %d: %+v", f.metric, len(cases[f.metric]), f.cases, cases[f.metric])
		}
		for _, c := range r.Contenders {
			if !f.of(c.Name, c.Family) {
				continue
			}
			for _, at := range cases[f.metric] {
				if !have[place{f.metric, c.Name, at}] && !r.excused(c.Name) && !r.unloaded(c.Name, at) {
					t.Errorf("%s has no %s in %+v, and no word why", c.Name, f.metric, at)
				}
			}
		}
	}
	for metric := range cases {
		if !slices.ContainsFunc(figures, func(f figure) bool { return f.metric == metric }) {
			t.Errorf("the test does not know %s", metric)
		}
	}
}

// searchesAndLatencies checks that everybody has both loads of the loss search,
// and the distribution of all latencies that there are figures of.
func (r *benchReport) searchesAndLatencies(t *testing.T) {
	t.Helper()
	found := map[string]bool{}
	for _, s := range r.Searches {
		found[s.Contender+" "+s.Goal] = true
	}
	for _, c := range r.Contenders {
		for _, goal := range []string{"NDR", "PDR"} {
			if racer(c.Name, c.Family) && !r.excused(c.Name) && !found[c.Name+" "+goal] {
				t.Errorf("%s has no %s", c.Name, goal)
			}
		}
	}
	spread := map[string]bool{}
	for _, l := range r.Latencies {
		spread[l.Contender+" "+l.Case.Load] = l.Frames > 0
	}
	for _, s := range r.Series {
		if s.Test == "latency" && s.Name == "p50" && len(s.Values) > 0 && !spread[s.Contender+" "+s.Case.Load] {
			t.Errorf("%s has a median latency at %s and no distribution", s.Contender, s.Case.Load)
		}
	}
}
