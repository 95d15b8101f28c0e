package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/bench/stats"
)

// Aim is something that kvswitch is meant to reach, and what this run says
// about it. Unlike the ratios of a Series, an aim may compare any two
// contenders, or two cases of one.
type Aim struct {
	Text    string  `json:"aim"`             // for people
	Bound   float64 `json:"bound"`           // what the figure must reach
	AtMost  bool    `json:"at_most"`         // or must not exceed
	Of      Point   `json:"of"`              //
	To      *Point  `json:"to,omitempty"`    // nil: the figure itself is judged
	Ratio   *Ratio  `json:"ratio,omitempty"` // of / to by round, or the figure itself
	Verdict string  `json:"verdict"`         // "met", "just met", "just missed", "missed", "not judged"
	Why     string  `json:"why,omitempty"`   // not judged
}

// Point is one series: a metric of a contender in a case.
type Point struct {
	Test      string `json:"test"`
	Name      string `json:"name"`
	Case      Case   `json:"case"`
	Contender string `json:"contender"`
}

const notJudged = "not judged"

// aims are those of a path, not yet judged. They were set before the first run
// was made: the bench's issue has those for veth, the one about vhost-user the
// rest.
func aims(path string) []Aim {
	var out []Aim
	add := func(what, sign string, bound float64, of Point, to *Point) {
		a := Aim{Bound: bound, AtMost: sign == "≤", Of: of, To: to, Verdict: notJudged}
		switch {
		case to == nil:
			a.Text = fmt.Sprintf("%s: %s %s %s", what, of.Contender, sign, Format(bound, "frame/s"))
		case to.Contender == of.Contender:
			a.Text = fmt.Sprintf("%s: %s %s %v × itself with %s", what, of.Contender, sign, bound, flows(to.Case.Flows))
		default:
			a.Text = fmt.Sprintf("%s: %s %s %v × %s", what, of.Contender, sign, bound, to.Contender)
		}
		out = append(out, a)
	}
	// race compares two contenders in one case.
	race := func(what, sign string, bound float64, of Point, to string) {
		other := of
		other.Contender = to
		add(what, sign, bound, of, &other)
	}
	rate := func(contender, size, source string, flows int) Point {
		return Point{"throughput", "received", Case{Size: size, Flows: flows, Source: source, Load: "full"}, contender}
	}
	ping := func(contender string) Point {
		return Point{"latency", "p50", Case{Source: "icmp", Load: "1 kHz"}, contender}
	}
	const what = "receive rate, %s bytes"
	sizes := []string{"64", "1518"}
	switch path {
	case "veth":
		for _, other := range []struct {
			name  string
			bound float64
		}{{"kernel", 1.4}, {"kernel-rps", 0.95}, {"ovs", 2}, {"ovs-afxdp", 1.15}} {
			for _, size := range sizes {
				race(fmt.Sprintf(what, size), "≥", other.bound, rate("kvswitch-spin", size, "af_packet", 1), other.name)
			}
		}
		race("ping, p50", "≤", 1.3, ping("kvswitch-spin"), "kernel")
		for _, size := range sizes {
			race(fmt.Sprintf(what, size), "≥", 1.25, rate("kvswitch", size, "af_packet", 1), "kernel")
		}
		race("ping at 1 kHz, p50", "≤", 3, ping("kvswitch"), "kernel")
		race("one TCP stream", "≥", 0.6, Point{"bulk", "received", Case{Source: "tcp"}, "kvswitch"}, "kernel")
		one := rate("kvswitch", "64", "af_packet", 1)
		add("receive rate, 64 bytes, "+flows(100_000), "≥", 0.9, rate("kvswitch", "64", "af_packet", 100_000), &one)
		add("forwarding loop alone, frames/s", "≥", 20e6,
			Point{"throughput", "memory", Case{Size: "64", Flows: 1, Source: "memory", Load: "full"}, "memory"}, nil)
	case "vhost-user":
		for _, size := range sizes {
			race(fmt.Sprintf(what, size)+", DPDK guests", "≥", 1.25, rate("kvswitch-vlan", size, "dpdk", 1), "testpmd")
		}
	}
	return out
}

func flows(n int) string {
	if n == 1 {
		return "one flow"
	}
	return count(n) + " flows"
}

// judge says which aims were reached; none when the run measured nothing of
// them.
func (r *Report) judge() []Aim {
	out := aims(r.Path)
	measured := false
	for i := range out {
		a := &out[i]
		if s := r.find(a.Of); s != nil {
			measured = true
			a.judge(r, s)
		} else {
			a.Why = r.missing(a.Of)
		}
	}
	if !measured {
		return []Aim{}
	}
	return out
}

func (a *Aim) judge(r *Report, of *Series) {
	var to *Series
	if a.To != nil {
		if to = r.find(*a.To); to == nil {
			a.Why = r.missing(*a.To)
			return
		}
	}
	a.Ratio = r.paired(of, to)
	switch {
	case a.Ratio == nil:
		a.Why = "every trial was disturbed"
		return
	case a.Ratio.Withheld != "":
		a.Why = a.Ratio.Withheld
		return
	}
	q := a.Ratio
	a.Verdict = "missed"
	if q.Median >= a.Bound && !a.AtMost || q.Median <= a.Bound && a.AtMost {
		a.Verdict = "met"
	}
	if q.Low <= a.Bound && a.Bound <= q.High { // another run may say the contrary
		a.Verdict = "just " + a.Verdict
	}
}

// Reached is the figure with its interval, or why there is none.
func (a *Aim) Reached() string {
	switch q := a.Ratio; {
	case a.Why != "":
		return a.Why
	case a.To == nil:
		return fmt.Sprintf("%s [%s–%s]", Format(q.Median, "frame/s"), Format(q.Low, "frame/s"), Format(q.High, "frame/s"))
	default:
		return q.String()
	}
}

// find is the series of a point; nil if the run has none.
func (r *Report) find(p Point) *Series {
	i := slices.IndexFunc(r.Series, func(s Series) bool {
		return s.Test == p.Test && s.Name == p.Name && s.Case == p.Case && s.Contender == p.Contender
	})
	if i < 0 {
		return nil
	}
	return &r.Series[i]
}

// missing says why a run has no such series.
func (r *Report) missing(p Point) string {
	switch c := r.Contender(p.Contender); {
	case c == nil && p.Case.Source != "memory": // the loop is no contender until it was measured
		return p.Contender + " took no part"
	case c != nil && c.Absent != "":
		return p.Contender + " is absent"
	}
	return "not measured in this run"
}

// paired is the ratio of two series round by round, or, without a second, the
// figure itself under the same rules; nil where they have no rounds in common.
func (r *Report) paired(s, to *Series) *Ratio {
	sides := []*Series{s}
	if to != nil {
		sides = append(sides, to)
	}
	// Line up the rounds; one that either side lacks becomes NaN, which drops
	// the pair.
	last := 0
	for _, side := range sides {
		for _, v := range side.Values {
			last = max(last, v.Round)
		}
	}
	of := spread(s.Values, last)
	by := slices.Repeat([]float64{1}, len(of))
	if to != nil {
		by = spread(to.Values, last)
	}
	p := stats.Paired(of, by, seed(s))
	if p.Pairs == 0 {
		return nil
	}
	out := &Ratio{Median: p.Median, Low: p.Low, High: p.High, Pairs: p.Pairs}
	isFaulty := func(s *Series) bool {
		c := r.Contender(s.Contender)
		return c != nil && len(c.Faults) > 0
	}
	switch {
	case slices.ContainsFunc(sides, isFaulty):
		out.Withheld = faulty
	case p.Pairs < stats.MinPairs:
		out.Withheld = tooFew
	case p.Noisy():
		out.Withheld = tooNoisy
	}
	return out
}

// aimsTitle heads the table of aims: readers who race their own machine must not
// take them for a standard.
const aimsTitle = "kvswitch's own aims"

// aimsText explains the words of the table.
var aimsText = strings.Join([]string{
	"What this switch is meant to reach, as it was written down before the first run: the median over rounds in which both were measured,",
	"with its bootstrap 95 % interval. An aim within the interval was just met or just missed.",
}, " ")
