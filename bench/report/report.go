// Package report is what a run of the bench leaves behind: one document,
// written as JSON, as a table for the terminal, as a page with plots, and as
// the Markdown of bench/RESULTS.md.
//
// The document holds every value that counted, so that each figure in it can be
// recomputed; nothing in the other forms is not in it. REPORT.md in this folder
// explains the fields to those who read the JSON.
//
// A Report is built by one goroutine.
package report

import (
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/machine"
)

// Schema names the layout of the JSON document. Fields may be added under the
// same name; anything else changes the number.
const Schema = "kvswitch-bench/1"

// Report is one run.
type Report struct {
	Schema   string    `json:"schema"`
	Program  string    `json:"program"` // version of the program that ran the bench
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`   // length of the whole run
	Quick    bool      `json:"quick"`     // a smoke run: too short for conclusions
	Complete bool      `json:"complete"`  // false when it was interrupted or failed
	Path     string    `json:"path"`      // "veth", "tap", "vhost-user", "vm"
	Rounds   int       `json:"rounds"`    // trials of each contender in each case, but fewer in tests that take long
	TrialMs  int       `json:"trial_ms"`  // length of a trial
	Refer    string    `json:"reference"` // contender that ratios are taken against

	Machine machine.Facts `json:"machine"`
	// Steal is what the hypervisor says it has taken since boot, in seconds. 0
	// in a virtual machine: it doesn't say, and no trial can be thrown out for it.
	Steal      float64     `json:"steal_seconds"`
	Exchanges  []Exchange  `json:"exchanges"` // along the run
	Contenders []Contender `json:"contenders"`
	Series     []Series    `json:"series"`
	Searches   []Search    `json:"searches"`
	Latencies  []Latency   `json:"latencies"`
	Aims       []Aim       `json:"aims"` // kvswitch's own; empty when the run has nothing to say about them
	Trials     Trials      `json:"trials"`
	Notes      []string    `json:"notes"`
}

// Exchange is how long a cache line took from one processor to another.
type Exchange struct {
	Seconds float64 `json:"seconds"` // since the run began
	NS      float64 `json:"ns"`
}

// Contender is one switch, or one setting of it.
type Contender struct {
	Name    string `json:"name"`
	Family  string `json:"family"`
	About   string `json:"about"`
	Version string `json:"version"`
	// Absent says why it did not take part; empty if it did.
	Absent string `json:"absent,omitempty"`
	// Faults say what it did to frames that no switch may do. A contender with
	// faults gets no ratio.
	Faults []string `json:"faults"`
	// Settings of its namespace and ports that the figures depend on.
	Settings map[string]string `json:"settings,omitempty"`
}

// LoadBesideFlows is full load with few flows, in the same rounds as with many,
// so that the two can be compared.
const LoadBesideFlows = "beside more flows"

// Case is what was done to a contender. Fields that play no part are zero.
type Case struct {
	Size      string `json:"size,omitempty"`      // frame size as on the command line
	Flows     int    `json:"flows,omitempty"`     // address pairs
	Ports     int    `json:"ports,omitempty"`     // ports in use
	Source    string `json:"source,omitempty"`    // generator: "af_packet", "xdp", "dpdk", "tcp", …
	Load      string `json:"load,omitempty"`      // "full", LoadBesideFlows, "10% of PDR", …
	Addresses int    `json:"addresses,omitempty"` // in the address table
	Workers   int    `json:"workers,omitempty"`   // of kvswitch
}

// Metric says what a value is.
type Metric struct {
	Test  string `json:"test"`  // as on the command line: "throughput", "latency", …
	Name  string `json:"name"`  // "received", "p50", …
	Title string `json:"title"` // for people: "receive rate at full load"
	Unit  string `json:"unit"`  // "frame/s", "ns", "bit/s", "ns/frame", "1", "addresses"
	// Lower is set when less is better.
	Lower bool `json:"lower_is_better,omitempty"`
}

// Series are the values of one metric of one contender in one case.
type Series struct {
	Metric
	Case      Case    `json:"case"`
	Contender string  `json:"contender"`
	Values    []Value `json:"values"`   // by round; rejected trials are missing
	Rejected  int     `json:"rejected"` // rounds without a value: every attempt was disturbed, or gave no figure
	Median    float64 `json:"median"`   // 0 when there are no values
	Low       float64 `json:"low"`      // smallest and largest value
	High      float64 `json:"high"`
	// Ratio to the reference in the same case; missing for the reference itself,
	// and where the two have no rounds in common.
	Ratio *Ratio `json:"ratio,omitempty"`
}

// Value is one trial that counted.
type Value struct {
	Round int     `json:"round"`
	Value float64 `json:"value"`
}

// Ratio is the median over rounds of contender / reference, with its bootstrap
// 95 % interval.
type Ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Pairs  int     `json:"pairs"`
	// Withheld says why the ratio must not be quoted: "too few rounds", "too noisy", "faulty", or
	// empty.
	Withheld string `json:"withheld,omitempty"`
}

// Search is the outcome of one search for the highest load within a loss.
type Search struct {
	Goal      string  `json:"goal"` // "NDR" (no loss) or "PDR" (0.5 %)
	Case      Case    `json:"case"`
	Contender string  `json:"contender"`
	Lower     float64 `json:"lower"` // highest good load, frame/s; 0 = none
	Upper     float64 `json:"upper"` // lowest bad load; 0 = none was bad
	Rate      float64 `json:"rate"`  // forwarding rate at Lower
	Complete  bool    `json:"complete"`
	Irregular bool    `json:"irregular"`
	Trials    int     `json:"trials"`
}

// Latency is the distribution over all rounds of a case.
type Latency struct {
	Case      Case       `json:"case"`
	Contender string     `json:"contender"`
	Frames    int64      `json:"frames"`
	Quantiles []Quantile `json:"quantiles"`
}

// Quantile is one point of a distribution.
type Quantile struct {
	Percent float64 `json:"percent"`
	NS      int64   `json:"ns"`
}

// Trials says how many were made and thrown out.
type Trials struct {
	Made     int            `json:"made"`
	Rejected int            `json:"rejected"`
	Reasons  map[string]int `json:"reasons"`
}

// Contender finds one by name; nil if there is none.
func (r *Report) Contender(name string) *Contender {
	i := slices.IndexFunc(r.Contenders, func(c Contender) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Contenders[i]
}

// Add files one value. Rounds of a series come in ascending order.
func (r *Report) Add(m Metric, c Case, contender string, round int, value float64) {
	s := r.series(m, c, contender)
	s.Values = append(s.Values, Value{Round: round, Value: value})
}

// Reject files a round that has no value, so that the report shows that it was
// tried.
func (r *Report) Reject(m Metric, c Case, contender string) { r.series(m, c, contender).Rejected++ }

// series finds a series or begins it.
func (r *Report) series(m Metric, c Case, contender string) *Series {
	for i := range r.Series {
		s := &r.Series[i]
		if s.Metric == m && s.Case == c && s.Contender == contender {
			return s
		}
	}
	r.Series = append(r.Series, Series{Metric: m, Case: c, Contender: contender, Values: []Value{}})
	return &r.Series[len(r.Series)-1]
}
