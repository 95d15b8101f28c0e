package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Percents are the points of the distributions in the JSON document: dense
// towards the end, which is where latencies hurt.
var Percents = []float64{
	0, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 99,
	99.2, 99.5, 99.7, 99.8, 99.9, 99.95, 99.98, 99.99, 99.999, 100,
}

// table is one metric: what all forms but JSON show.
type table struct {
	Metric
	Rows []row
}

// row is one case of a table.
type row struct {
	Case  Case
	Cells []cell // by contender, in the report's order; only those that took part
}

type cell struct {
	Contender string
	Series    *Series
}

// tables groups the series by metric and case, in the order in which they were
// first filed.
func (r *Report) tables() []table {
	var out []table
	for i := range r.Series {
		s := &r.Series[i]
		t := slices.IndexFunc(out, func(t table) bool { return t.Metric == s.Metric })
		if t < 0 {
			t = len(out)
			out = append(out, table{Metric: s.Metric})
		}
		rows := &out[t].Rows
		n := slices.IndexFunc(*rows, func(w row) bool { return w.Case == s.Case })
		if n < 0 {
			n = len(*rows)
			*rows = append(*rows, row{Case: s.Case})
		}
		(*rows)[n].Cells = append((*rows)[n].Cells, cell{s.Contender, s})
	}
	place := func(name string) int {
		return slices.IndexFunc(r.Contenders, func(c Contender) bool { return c.Name == name })
	}
	for _, t := range out {
		for _, w := range t.Rows {
			slices.SortStableFunc(w.Cells, func(a, b cell) int { return place(a.Contender) - place(b.Contender) })
		}
	}
	return out
}

// Text writes the report for a terminal.
func Text(w io.Writer, r *Report) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, t := range r.tables() {
		fmt.Fprintf(tw, "\n%s: %s\n", t.Test, t.Title)
		for _, row := range t.Rows {
			fmt.Fprintf(tw, "  %s\n", row.Case)
			for _, c := range row.Cells {
				fmt.Fprintf(tw, "    %s\t%s\t%s\t%s\n", c.Contender, c.Series.figure(), r.against(c.Series), span(c.Series, t.Unit))
			}
		}
	}
	if len(r.Searches) > 0 {
		fmt.Fprintf(tw, "\nthroughput: highest load with no loss (NDR) and with 0.5 %% loss (PDR)\n")
		for _, s := range r.Searches {
			fmt.Fprintf(tw, "    %s\t%s, %s\t%s\t%s\n", s.Contender, s.Goal, s.Case, s.found(), r.remark(&s))
		}
	}
	if len(r.Aims) > 0 {
		fmt.Fprintf(tw, "\n%s\n", aimsTitle)
		for _, a := range r.Aims {
			fmt.Fprintf(tw, "    %s\t%s\t%s\n", a.Text, a.Reached(), a.Verdict)
		}
	}
	fmt.Fprintln(tw)
	for _, c := range r.Contenders {
		switch {
		case c.Absent != "":
			fmt.Fprintf(tw, "absent: %s: %s\n", c.Name, c.Absent)
		case len(c.Faults) > 0:
			fmt.Fprintf(tw, "FAULTY: %s: %s\n", c.Name, strings.Join(c.Faults, "; "))
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(tw, "note: %s\n", n)
	}
	fmt.Fprintln(tw, r.Conditions())
	return tw.Flush()
}

// span is how far the values lie apart.
func span(s *Series, unit string) string {
	if len(s.Values) < 2 {
		return ""
	}
	return fmt.Sprintf("(%s – %s)", Format(s.Low, unit), Format(s.High, unit))
}

// found is the answer of a search.
func (s *Search) found() string {
	switch {
	case s.Lower == 0:
		return "none"
	case s.Upper == 0:
		return "≥ " + Format(s.Lower, "frame/s")
	}
	return Format(s.Lower, "frame/s")
}

// ceiling is the share of a contender's receive rate at full load above which a
// load without loss says as much about the generator.
const ceiling = 0.95

func (r *Report) remark(s *Search) string {
	full := s.Case
	full.Load = "full"
	switch most := r.find(Point{"throughput", "received", full, s.Contender}); {
	case !s.Complete:
		return "not narrowed down"
	case s.Irregular:
		return "irregular: a higher load passed"
	case most != nil && s.Lower > 0 && s.Lower >= ceiling*most.Median:
		return "all that the generator offers it"
	}
	return ""
}

// Conditions is a sentence on how the figures came about.
func (r *Report) Conditions() string {
	m := r.Machine
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs (%s)", m.Kernel, m.CPUs, m.CPU)
	if m.Hypervisor {
		b.WriteString(", virtual machine")
	}
	fmt.Fprintf(&b, "; %d rounds of %d ms; %d trials, %d thrown out", r.Rounds, r.TrialMs, r.Trials.Made, r.Trials.Rejected)
	var why []string
	for reason, n := range r.Trials.Reasons {
		why = append(why, fmt.Sprintf("%d %s", n, reason))
	}
	if slices.Sort(why); len(why) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(why, ", "))
	}
	if r.Machine.Hypervisor && r.Steal == 0 {
		b.WriteString("; this hypervisor reports no steal")
	}
	if r.Quick {
		b.WriteString("; a smoke run, no basis for conclusions")
	}
	if !r.Complete {
		b.WriteString("; INCOMPLETE")
	}
	return b.String()
}

// searchLine is a search as tables show it.
type searchLine struct{ Contender, Case, Goal, Found, Forwarded, Remark string }

// searchLines are the searches for the page and for Markdown.
func (r *Report) searchLines() []searchLine {
	var out []searchLine
	for i := range r.Searches {
		s := &r.Searches[i]
		out = append(out, searchLine{
			s.Contender, s.Case.String(), s.Goal, s.found(), Format(s.Rate, "frame/s"), r.remark(s),
		})
	}
	return out
}
