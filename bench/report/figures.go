package report

import (
	"html/template"
	"strconv"
)

// figure is a plot with what is written around it.
type figure struct {
	Title   string
	Text    string
	Drawing template.HTML
	Legend  []key // empty when the drawing names its contenders itself
}

// key is a contender's colour and name.
type key struct {
	Index int
	Name  string
}

// figures are the plots that the report has values for.
func (r *Report) figures() ([]figure, error) {
	var out []figure
	add := func(title, text string, drawing template.HTML, shown []int, err error) error {
		if err != nil || drawing == "" {
			return err
		}
		f := figure{Title: title, Text: text, Drawing: drawing}
		for _, i := range shown {
			f.Legend = append(f.Legend, key{i % maxColours, r.Contenders[i].Name})
		}
		out = append(out, f)
		return nil
	}
	for _, draw := range []func(func(string, string, template.HTML, []int, error) error) error{
		r.rateFigures, r.latencyFigures, r.costFigures, r.scaleFigures,
	} {
		if err := draw(add); err != nil {
			return nil, err
		}
	}
	return out, nil
}

type addFigure = func(title, text string, drawing template.HTML, shown []int, err error) error

func (r *Report) rateFigures(add addFigure) error {
	m, ok := r.metric("throughput", "received")
	if !ok {
		return nil
	}
	for _, f := range []struct{ title, source string }{
		{"Receive rate by frame size", ""},
		{"Receive rate by frame size, frames from XDP", "xdp"},
		{"Receive rate by frame size, DPDK guests, both directions", "dpdk"},
	} {
		drawing, shown, err := r.byCategory(m, "frame size, bytes", "frames/s", func(c Case) (category, bool) {
			_, err := strconv.Atoi(c.Size)
			second := ""
			if c.Source == "xdp" || c.Source == "dpdk" {
				second = c.Source
			}
			return category{c.Size, c.Size}, err == nil && second == f.source && c.Flows == 1
		})
		if err := add(f.title, "Full offered load, one flow; median over the rounds.", drawing, shown, err); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) latencyFigures(add addFigure) error {
	seen := map[Case]bool{}
	for _, l := range r.Latencies {
		if seen[l.Case] {
			continue
		}
		seen[l.Case] = true
		title, text := "One-way latency, "+l.Case.Load, "Each contender at its own load; all rounds together."
		if l.Case.Source == "icmp" {
			title, text = "Round trip on an idle switch", "ICMP echoes, "+l.Case.Load+": idle enough to fall asleep in between."
		}
		drawing, shown, err := r.distribution(l.Case)
		if err := add(title, text, drawing, shown, err); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) costFigures(add addFigure) error {
	for _, f := range []struct{ name, title, text string }{
		{"cpu_ns", "Cost of forwarding a frame", "Processor time per frame, wherever it is spent, less that of the plain cable."},
		{"machine_ns", "Processor time per frame at full load", "All processors, generator and sink included: using more cores shows."},
	} {
		m, ok := r.metric("throughput", f.name)
		if !ok {
			continue
		}
		for i := range r.Series {
			if s := &r.Series[i]; s.Metric == m {
				drawing, err := r.bars(m, s.Case)
				if err := add(f.title+", "+s.Case.String(), f.text, drawing, nil, err); err != nil {
					return err
				}
				break // the first case: the smallest frames
			}
		}
	}
	return nil
}

func (r *Report) scaleFigures(add addFigure) error {
	for _, f := range []struct {
		name, title, text, axis string
		at                      func(Case) int
	}{
		{"ports", "Scaling with ports", "Every port sends to the next; all ports together.", "ports", func(c Case) int { return c.Ports }},
		{"addresses", "Scaling with addresses", "Two ports, more and more stations behind them.", "addresses in use", func(c Case) int { return c.Addresses }},
		{"workers", "Scaling with workers", "Four ports, fully meshed. The generator needs a processor, too.", "workers", func(c Case) int { return c.Workers }},
	} {
		m, ok := r.metric("scale", f.name)
		if !ok {
			continue
		}
		drawing, shown, err := r.byCategory(m, f.axis, "frames/s", func(c Case) (category, bool) {
			return category{f.at(c), count(f.at(c))}, true
		})
		if err := add(f.title, f.text, drawing, shown, err); err != nil {
			return err
		}
	}
	return nil
}

// metric finds a metric by its names.
func (r *Report) metric(test, name string) (Metric, bool) {
	for i := range r.Series {
		if s := &r.Series[i]; s.Test == test && s.Name == name {
			return s.Metric, true
		}
	}
	return Metric{}, false
}
