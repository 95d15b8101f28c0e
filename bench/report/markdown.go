package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Markdown writes the tables and conditions as bench/RESULTS.md has them.
func Markdown(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Run of %s, kvswitch %s, path %s, %.0f minutes.\n\n", r.Started.Format("2 January 2006"), r.Program, r.Path, r.Seconds/60)
	fmt.Fprintf(&b, "%s.\n", r.Conditions())
	for _, c := range r.Contenders {
		if len(c.Faults) > 0 {
			fmt.Fprintf(&b, "\n**%s is faulty:** %s.\n", c.Name, strings.Join(c.Faults, "; "))
		}
	}
	for _, g := range r.sheets() {
		fmt.Fprintf(&b, "\n### %s: %s\n\n", g.Test, g.Title)
		fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(g.Columns, " | "), strings.Repeat("--:|", len(g.Columns)))
		for _, l := range g.Lines {
			fmt.Fprintf(&b, "| %s |", l.Case)
			for _, c := range l.Cells {
				fmt.Fprintf(&b, " %s |", strings.TrimSuffix(c.Value+"<br>"+c.Ratio, "<br>"))
			}
			b.WriteString("\n")
		}
	}
	if len(r.Searches) > 0 {
		b.WriteString("\n### throughput: highest load without loss (NDR) and with 0.5 % loss (PDR)\n\n")
		b.WriteString("| contender | case | goal | load | forwarded at it | |\n|---|---|---|--:|--:|---|\n")
		for _, s := range r.searchLines() {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", s.Contender, s.Case, s.Goal, s.Found, s.Forwarded, s.Remark)
		}
	}
	if len(r.Aims) > 0 {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| aim | reached | |\n|---|--:|---|\n", aimsTitle, aimsText)
		for _, a := range r.Aims {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", a.Text, a.Reached(), a.Verdict)
		}
	}
	b.WriteString("\n### Contenders\n\n| | what | version | settings |\n|---|---|---|---|\n")
	for _, c := range r.Contenders {
		about := c.About
		if c.Absent != "" {
			about = "absent: " + c.Absent
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.Name, about, c.Version, c.settings())
	}
	b.WriteString("\n### Conditions\n\n")
	m := r.Machine
	fmt.Fprintf(&b, "- kernel %s %s\n- %s, %d CPUs, %d MiB, clock %s, %s\n", m.Kernel, m.Build, m.CPU, m.CPUs, m.MemoryMiB, m.Clock, m.Go)
	fmt.Fprintf(&b, "- from one processor to the other: %s\n", r.ExchangeText())
	fmt.Fprintf(&b, "- %s\n", r.StealText())
	for _, facts := range []map[string]string{m.Mitigations, m.Settings} {
		for _, k := range slices.Sorted(maps.Keys(facts)) {
			fmt.Fprintf(&b, "- %s: %s\n", k, facts[k])
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "- note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
