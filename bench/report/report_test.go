package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/machine"
)

var (
	rate = Metric{Test: "throughput", Name: "received", Title: "receive rate at full load", Unit: "frame/s"}
	cost = Metric{Test: "throughput", Name: "cpu_ns", Title: "cost", Unit: "ns/frame", Lower: true}
)

// sample is a run with known results: b makes 1.4 times a's rate in every round
// though both drift, c is as noisy as can be, d is faulty, e is absent.
func sample() *Report {
	r := &Report{
		Schema: Schema, Program: "v1.2.3", Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Complete: true,
		Path: "veth", Rounds: 7, TrialMs: 400, Refer: "a",
		Contenders: []Contender{
			{Name: "a", Family: "kernel", About: "the <reference>", Version: "6", Faults: []string{}},
			{Name: "b", Faults: []string{}}, {Name: "c", Faults: []string{}},
			{Name: "d", Faults: []string{"dropped 50 of 5000 frames (1 %) of 64 bytes"}},
			{Name: "e", Absent: "not installed", Faults: []string{}},
		},
		Searches: []Search{
			{Goal: "NDR", Case: Case{Size: "64"}, Contender: "a", Lower: 400_000, Upper: 404_000, Rate: 400_000, Complete: true},
			{Goal: "PDR", Case: Case{Size: "64"}, Contender: "a", Lower: 500_000, Complete: true, Irregular: true},
		},
		Latencies: []Latency{{Case: Case{Source: "icmp", Load: "1 kHz"}, Contender: "a", Frames: 100,
			Quantiles: []Quantile{{0, 5000}, {50, 8000}, {90, 9000}, {99, 12_000}, {99.99, 90_000}}}},
		Trials: Trials{Made: 24, Rejected: 2, Reasons: map[string]int{"stolen by the hypervisor": 2}},
		Notes:  []string{}, Exchanges: []Exchange{{0, 60}, {90, 240}},
		Machine: machine.Facts{
			Kernel: "6.18.44", CPUs: 2,
			Mitigations: map[string]string{"spectre_v2": "Mitigation: Retpolines"}, Settings: map[string]string{"cmdline": "quiet"},
		},
	}
	for _, size := range []string{"64", "1518"} {
		c := Case{Size: size, Flows: 1, Source: "af_packet", Load: "full"}
		for round := range 7 {
			base := 100_000 * float64(round+4)
			r.Add(rate, c, "a", round, base)
			if round != 2 { // rejected
				r.Add(rate, c, "b", round, 1.4*base)
			}
			r.Add(rate, c, "c", round, base*float64(1+round%3))
			r.Add(rate, c, "d", round, 2*base)
			r.Add(cost, c, "a", round, 1000)
			r.Add(cost, c, "b", round, 500)
		}
	}
	r.Summarise()
	return r
}

func series(t *testing.T, r *Report, m Metric, contender string) *Series {
	t.Helper()
	for i := range r.Series {
		if s := &r.Series[i]; s.Metric == m && s.Contender == contender {
			return s
		}
	}
	t.Fatalf("no series of %s", contender)
	return nil
}

func TestRatioIsTheMedianOverCommonRounds(t *testing.T) {
	r := sample()
	b := series(t, r, rate, "b")
	if q := b.Ratio; q == nil || q.Pairs != 6 || q.Median < 1.3999 || q.Median > 1.4001 || q.Withheld != "" {
		t.Errorf("ratio %+v, want 1.4 of 6 pairs in spite of the drift", q)
	}
	if q := series(t, r, rate, "c").Ratio; q.Withheld != "too noisy" {
		t.Errorf("ratio %+v of a noisy contender is not withheld", q)
	}
	b.Values = b.Values[1:]
	r.Summarise()
	if b.Ratio.Withheld != "too few rounds" {
		t.Errorf("ratio %+v of five pairs is not withheld", b.Ratio)
	}
	if q := series(t, r, rate, "d").Ratio; q.Withheld != "faulty" {
		t.Errorf("ratio %+v of a faulty contender is not withheld", q)
	}
	if a := series(t, r, rate, "a"); a.Ratio != nil || a.Median != 700_000 || a.Low != 400_000 || a.High != 1_000_000 {
		t.Errorf("reference is summed up as %+v", a)
	}
}

func TestSummaryIsRepeatable(t *testing.T) {
	r := sample()
	before := *series(t, r, rate, "b").Ratio
	r.Summarise()
	if after := *series(t, r, rate, "b").Ratio; after != before {
		t.Errorf("ratio was %+v and is %+v", before, after)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	r := sample()
	var b bytes.Buffer
	if err := JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), ": null") {
		t.Error("document has null where a list or value belongs")
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*r, back) {
		t.Errorf("read back as\n%+v\nwant\n%+v", back, *r)
	}
}

func TestEveryFieldOfTheDocumentIsExplained(t *testing.T) {
	doc, err := os.ReadFile("REPORT.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ.PkgPath() == "time" {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("REPORT.md does not explain %q of %s", name, typ.Name())
			}
			visit(f.Type)
		}
	}
	visit(reflect.TypeFor[Report]())
}

func TestTextNamesWhatMustNotBeOverlooked(t *testing.T) {
	var b strings.Builder
	if err := Text(&b, sample()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"×1.40 [1.40–1.40]", "too noisy", "faulty", "reference",
		"absent: e: not installed", "FAULTY: d: dropped 50", "24 trials, 2 thrown out (2 stolen by the hypervisor)",
		"≥ 500 k", "irregular",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestPageIsSelfContainedAndComplete(t *testing.T) {
	dir := t.TempDir()
	if _, err := Write(dir, sample()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if m := regexp.MustCompile(`(src|href)=|url\(|@import|<script|https?://`).FindString(page); m != "" {
		t.Errorf("page refers to something outside: %q", m)
	}
	if n := strings.Count(page, "<svg"); n < 3 || n != strings.Count(page, "</svg>") {
		t.Errorf("%d drawings, want at least rate, latency and cost", n)
	}
	if m := regexp.MustCompile(`(fill|stroke):#[0-9A-Fa-f]+`).FindString(page); m != "" {
		t.Errorf("drawing has the fixed colour %q, unreadable on one of two backgrounds", m)
	}
	for _, want := range []string{"the &lt;reference&gt;", "×1.40", "too noisy", "is faulty", "not installed", "var(--c1)"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestRoundsWithoutAValueAreShown(t *testing.T) {
	r := sample()
	c := Case{Size: "256", Flows: 1, Source: "af_packet", Load: "full"}
	r.Add(rate, c, "a", 1, 1000)
	r.Reject(rate, c, "a")
	r.Reject(rate, c, "b")
	r.Summarise()
	for _, s := range r.Series {
		if s.Case == c && (s.Rejected != 1 || s.Contender == "b" && (s.Values == nil || s.Ratio != nil)) {
			t.Errorf("%+v: want one rejected round, a list of values and no ratio", s)
		}
	}
	var b strings.Builder
	if err := Text(&b, r); err != nil || !strings.Contains(b.String(), "disturbed") {
		t.Errorf("error %v, or no word of it in\n%s", err, b.String())
	}
}

func TestEmptyReportCanBeWritten(t *testing.T) {
	r := &Report{Schema: Schema, Refer: "a"}
	r.Summarise()
	if _, err := Write(t.TempDir(), r); err != nil {
		t.Error(err)
	}
	if err := Text(new(bytes.Buffer), r); err != nil {
		t.Error(err)
	}
}

func TestFormatKeepsThreeDigits(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		unit string
		want string
	}{
		{643_000, "frame/s", "643 k"}, {34_200_000, "frame/s", "34.2 M"}, {0, "frame/s", "0"}, {999.7, "frame/s", "1.00 k"},
		{8_430, "ns", "8.43 µs"}, {120_000, "ns", "120 µs"}, {512, "ns/frame", "512 ns"},
		{23.14e9, "bit/s", "23.1 Gbit/s"}, {0.0042, "1", "0.42 %"}, {1_048_576, "addresses", "1.05 M"},
	} {
		if got := Format(tc.v, tc.unit); got != tc.want {
			t.Errorf("Format(%v, %q) = %q, want %q", tc.v, tc.unit, got, tc.want)
		}
	}
	if got := short(20_000, "ns"); got != "20 µs" {
		t.Errorf("short label %q, want 20 µs", got)
	}
}

func TestColourSaysBetterOnlyWhenTheIntervalDoes(t *testing.T) {
	for _, tc := range []struct {
		low, high float64
		lower     bool
		want      string
	}{
		{1.1, 1.2, false, "better"}, {0.8, 0.9, false, "worse"}, {0.95, 1.05, false, "even"},
		{1.1, 1.2, true, "worse"}, {0.8, 0.9, true, "better"},
	} {
		s := &Series{Metric: Metric{Lower: tc.lower}, Values: []Value{{0, 1}}, Ratio: &Ratio{Low: tc.low, High: tc.high}}
		if got := class(s, false); got != tc.want {
			t.Errorf("%v–%v, lower is better %v: %q, want %q", tc.low, tc.high, tc.lower, got, tc.want)
		}
	}
}
