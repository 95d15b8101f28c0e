package report

import (
	"strings"
	"testing"
)

// aimed is a run of seven rounds on path veth that drift by a factor of two, in
// which kvswitch-spin is factor times as fast as the kernel's bridge.
func aimed(factor float64) *Report {
	r := &Report{Path: "veth", Refer: "kernel", Contenders: []Contender{
		{Name: "kernel"}, {Name: "kernel-rps"}, {Name: "kvswitch"}, {Name: "kvswitch-spin"}, {Name: "memory"},
		{Name: "ovs", Absent: "not installed"},
	}}
	c := Case{Size: "64", Flows: 1, Source: "af_packet", Load: "full"}
	crowd := c
	crowd.Flows = 100_000
	loop := Case{Size: "64", Flows: 1, Source: "memory", Load: "full"}
	memory := Metric{Test: "throughput", Name: "memory", Unit: "frame/s"}
	for round := range 7 {
		base := 100_000 * float64(round+7)
		wobble := 1 + 0.01*float64(round%3-1)
		r.Add(rate, c, "kernel", round, base)
		r.Add(rate, c, "kernel-rps", round, base*float64(1+round%3)) // as noisy as can be
		r.Add(rate, c, "kvswitch", round, 1.3*base)
		r.Add(rate, crowd, "kvswitch", round, 1.2*base)
		r.Add(rate, c, "kvswitch-spin", round, factor*wobble*base)
		r.Add(memory, loop, "memory", round, 25e6*wobble)
	}
	r.Summarise()
	return r
}

func aim(t *testing.T, r *Report, text string) Aim {
	t.Helper()
	for _, a := range r.Aims {
		if a.Text == text {
			return a
		}
	}
	t.Fatalf("no aim %q in %+v", text, r.Aims)
	return Aim{}
}

func TestAimsAreJudgedByRoundAndByTheInterval(t *testing.T) {
	const spin = "receive rate, 64 bytes: kvswitch-spin ≥ 1.4 × kernel"
	for _, tc := range []struct {
		factor float64
		want   string
	}{{1.5, "met"}, {1.405, "just met"}, {1.395, "just missed"}, {1.3, "missed"}} {
		a := aim(t, aimed(tc.factor), spin)
		if a.Verdict != tc.want || a.Why != "" || a.Ratio == nil || a.Ratio.Pairs != 7 {
			t.Errorf("factor %v: %+v, want %s", tc.factor, a, tc.want)
		}
	}
	r := aimed(1.5)
	for text, want := range map[string]struct{ reached, verdict string }{
		"receive rate, 64 bytes: kvswitch-spin ≥ 0.95 × kernel-rps":                         {"too noisy", "not judged"},
		"receive rate, 64 bytes: kvswitch-spin ≥ 2 × ovs":                                   {"ovs is absent", "not judged"},
		"receive rate, 64 bytes: kvswitch-spin ≥ 1.15 × ovs-afxdp":                          {"ovs-afxdp took no part", "not judged"},
		"receive rate, 1518 bytes: kvswitch-spin ≥ 1.4 × kernel":                            {"not measured in this run", "not judged"},
		"receive rate, 64 bytes: kvswitch ≥ 1.25 × kernel":                                  {"×1.30 [1.30–1.30]", "met"},
		"receive rate, 64 bytes, 100\u202f000 flows: kvswitch ≥ 0.9 × itself with one flow": {"×0.92 [0.92–0.92]", "met"},
		"forwarding loop alone, frames/s: memory ≥ 20.0 M":                                  {"25.0 M [24.8 M–25.2 M]", "met"},
	} {
		if a := aim(t, r, text); a.Reached() != want.reached || a.Verdict != want.verdict {
			t.Errorf("%s: %s, %s; want %s, %s", text, a.Reached(), a.Verdict, want.reached, want.verdict)
		}
	}
	r.Contender("kvswitch-spin").Faults = []string{"dropped frames"}
	r.Summarise()
	if a := aim(t, r, spin); a.Verdict != notJudged || a.Why != faulty {
		t.Errorf("of a faulty contender: %+v", a)
	}
}

func TestLowerIsReachedToo(t *testing.T) {
	r := &Report{Path: "veth", Contenders: []Contender{{Name: "kernel"}, {Name: "kvswitch-spin"}}}
	m := Metric{Test: "latency", Name: "p50", Unit: "ns", Lower: true}
	for round := range 6 {
		r.Add(m, Case{Source: "icmp", Load: "1 kHz"}, "kernel", round, 10_000)
		r.Add(m, Case{Source: "icmp", Load: "1 kHz"}, "kvswitch-spin", round, 12_000)
	}
	r.Summarise()
	if a := aim(t, r, "ping, p50: kvswitch-spin ≤ 1.3 × kernel"); a.Verdict != "met" {
		t.Errorf("%+v, want met: 1.2 is not above 1.3", a)
	}
}

func TestAimsStandInEveryFormAndOnlyWhereTheyBelong(t *testing.T) {
	r := aimed(1.5)
	for name, write := range map[string]func(*strings.Builder) error{
		"text":     func(b *strings.Builder) error { return Text(b, r) },
		"markdown": func(b *strings.Builder) error { return Markdown(b, r) },
		"page":     func(b *strings.Builder) error { return HTML(b, r) },
	} {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"own aims", "kvswitch-spin ≥ 2 × ovs", "ovs is absent"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
	}
	if r := sample(); len(r.Aims) != 0 || r.Aims == nil {
		t.Errorf("a run without any of the contenders has the aims %+v, want an empty list", r.Aims)
	}
	for _, path := range []string{"tap", "vm"} {
		if got := aims(path); len(got) != 0 {
			t.Errorf("path %s has the aims %+v", path, got)
		}
	}
}
