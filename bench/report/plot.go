package report

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours are decided by the page's style sheet, which knows whether the reader
// likes it light or dark. In the drawing stand colours that nobody would choose;
// they are replaced by names: ink by currentColor, grid by var(--grid), and the
// n-th contender's by var(--cN).
var (
	ink  = color.RGBA{1, 1, 1, 255}
	grid = color.RGBA{1, 1, 2, 255}
)

// maxColours is the number of contender colours in the style sheet.
const maxColours = 12

func contenderColour(i int) color.RGBA { return color.RGBA{2, 2, uint8(i % maxColours), 255} }

// palette replaces the colours that stand in.
var palette = func() *strings.Replacer {
	hex := func(c color.RGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }
	pairs := []string{hex(ink), "currentColor", hex(grid), "var(--grid)"}
	for i := range maxColours {
		pairs = append(pairs, hex(contenderColour(i)), fmt.Sprintf("var(--c%d)", i))
	}
	return strings.NewReplacer(pairs...)
}()

const (
	plotWidth  = 640 * vg.Length(1)
	plotHeight = 320 * vg.Length(1)
)

// canvas is an empty plot in the page's style.
func canvas(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.Tick.LineStyle.Color = ink, ink
		for _, s := range []*draw.TextStyle{&a.Label.TextStyle, &a.Tick.Label} {
			s.Color = ink
			s.Font.Variant = "Sans"
			s.Font.Size = font.Length(13)
		}
	}
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal.Color = grid
	p.Add(g)
	return p
}

// svg draws a plot of some height for use within a page. what says to those who
// can't see it what it shows.
func svg(p *plot.Plot, height vg.Length, what string) (template.HTML, error) {
	c := vgsvg.NewWith(vgsvg.UseWH(plotWidth, height))
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw plot: %w", err)
	}
	text := b.String()
	start := strings.Index(text, "<g ")
	if start < 0 {
		return "", fmt.Errorf("draw plot: drawing has an unexpected form")
	}
	text = palette.Replace(text[start:])
	text = strings.ReplaceAll(text, "font-family:Liberation Sans", "font-family:inherit")
	open := fmt.Sprintf(`<svg role="img" aria-label="%s" viewBox="0 0 %.0f %.0f">`,
		html.EscapeString(what), float64(plotWidth), float64(height))
	return template.HTML(open + text), nil
}

// line is one contender's curve.
type line struct {
	contender int
	points    plotter.XYs
}

// addLines draws curves with a point at each value.
func addLines(p *plot.Plot, lines []line, marks bool) error {
	for _, l := range lines {
		curve, err := plotter.NewLine(l.points)
		if err != nil {
			return fmt.Errorf("draw line: %w", err)
		}
		curve.Color, curve.Width = contenderColour(l.contender), vg.Points(1.8)
		p.Add(curve)
		if !marks {
			continue
		}
		dots, err := plotter.NewScatter(l.points)
		if err != nil {
			return fmt.Errorf("draw points: %w", err)
		}
		dots.Color, dots.Shape, dots.Radius = contenderColour(l.contender), draw.CircleGlyph{}, vg.Points(3)
		p.Add(dots)
	}
	return nil
}

// headroom is how far an axis goes beyond its highest value.
const headroom = 1.08

// valueAxis makes an axis for values from 0, labelled in a unit.
func valueAxis(a *plot.Axis, highest float64, unit string) {
	a.Min, a.Max = 0, highest*headroom
	a.Tick.Marker = plot.TickerFunc(func(_, hi float64) []plot.Tick {
		var ticks []plot.Tick
		step := tickStep(hi)
		for v := 0.0; v <= hi; v += step {
			ticks = append(ticks, plot.Tick{Value: v, Label: short(v, unit)})
		}
		return ticks
	})
}

// tickStep is a round distance that gives four to nine ticks up to hi.
func tickStep(hi float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(hi)))
	switch m := hi / p; {
	case m < 2:
		return p / 4
	case m < 5:
		return p / 2
	}
	return p
}

// short is Format for labels: without trailing zeros.
func short(v float64, unit string) string {
	number, rest, _ := strings.Cut(Format(v, unit), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return strings.TrimSpace(number + " " + rest)
}

// category is a place on a horizontal axis and its name.
type category struct {
	key  any
	name string
}

// byCategory draws the medians of the series that pick chooses over categories
// at equal distances. nil without error means that there is nothing to draw.
func (r *Report) byCategory(m Metric, xLabel, yLabel string, pick func(Case) (category, bool)) (template.HTML, []int, error) {
	var cats []category
	var lines []line
	highest := 0.0
	for i, c := range r.Contenders {
		l := line{contender: i}
		for j := range r.Series {
			s := &r.Series[j]
			if s.Metric != m || s.Contender != c.Name || len(s.Values) == 0 {
				continue
			}
			cat, ok := pick(s.Case)
			if !ok {
				continue
			}
			x := slices.IndexFunc(cats, func(o category) bool { return o.key == cat.key })
			if x < 0 {
				x = len(cats)
				cats = append(cats, cat)
			}
			l.points = append(l.points, plotter.XY{X: float64(x), Y: s.Median})
			highest = max(highest, s.Median)
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	if len(cats) < 2 || highest == 0 {
		return "", nil, nil
	}
	p := canvas(xLabel, yLabel)
	ticks := make(plot.ConstantTicks, len(cats))
	for x, c := range cats {
		ticks[x] = plot.Tick{Value: float64(x), Label: c.name}
	}
	p.X.Tick.Marker, p.X.Min, p.X.Max = ticks, -0.2, float64(len(cats))-0.8
	valueAxis(&p.Y, highest, m.Unit)
	if err := addLines(p, lines, true); err != nil {
		return "", nil, err
	}
	drawing, err := svg(p, plotHeight, m.Title+" by "+xLabel)
	return drawing, shown(lines), err
}

func shown(lines []line) []int {
	var out []int
	for _, l := range lines {
		out = append(out, l.contender)
	}
	return out
}

// distribution draws latencies over percentiles, the axis stretched towards the
// end as HdrHistogram's are: every nine takes the same room.
func (r *Report) distribution(c Case) (template.HTML, []int, error) {
	var lines []line
	low, high := math.Inf(1), 0.0
	for i, k := range r.Contenders {
		for _, l := range r.Latencies {
			if l.Case != c || l.Contender != k.Name {
				continue
			}
			one := line{contender: i}
			for _, q := range l.Quantiles {
				if q.Percent > 99.99 || q.NS <= 0 {
					continue
				}
				one.points = append(one.points, plotter.XY{X: nines(q.Percent), Y: float64(q.NS)})
				low, high = min(low, float64(q.NS)), max(high, float64(q.NS))
			}
			if len(one.points) > 1 {
				lines = append(lines, one)
			}
		}
	}
	if len(lines) == 0 {
		return "", nil, nil
	}
	p := canvas("percentile of frames", "latency")
	var ticks plot.ConstantTicks
	for _, percent := range []float64{0, 50, 90, 99, 99.9, 99.99} {
		ticks = append(ticks, plot.Tick{Value: nines(percent), Label: strconv.FormatFloat(percent, 'g', -1, 64) + " %"})
	}
	p.X.Tick.Marker, p.X.Min, p.X.Max = ticks, 0, nines(99.99)+0.3
	p.Y.Scale = plot.LogScale{}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), high*1.3
	p.Y.Tick.Marker = plot.TickerFunc(decades)
	if err := addLines(p, lines, false); err != nil {
		return "", nil, err
	}
	drawing, err := svg(p, plotHeight, "latency distribution, "+c.String())
	return drawing, shown(lines), err
}

// nines is 0 for the 0th percentile, 1 for the 90th, 2 for the 99th.
func nines(percent float64) float64 { return -math.Log10(1 - min(percent, 99.9999)/100) }

// decades are ticks at 1, 2 and 5 of every power of ten of nanoseconds.
func decades(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for d := math.Pow(10, math.Floor(math.Log10(lo))); d <= hi; d *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * d; v >= lo*0.999 && v <= hi {
				ticks = append(ticks, plot.Tick{Value: v, Label: short(v, "ns")})
			}
		}
	}
	return ticks
}

// bars draws one metric of one case as a bar for each contender.
func (r *Report) bars(m Metric, c Case) (template.HTML, error) {
	type bar struct {
		contender int
		value     float64
	}
	var all []bar
	highest := 0.0
	for i, k := range r.Contenders {
		for j := range r.Series {
			if s := &r.Series[j]; s.Metric == m && s.Case == c && s.Contender == k.Name && len(s.Values) > 0 {
				all = append(all, bar{i, s.Median})
				highest = max(highest, s.Median)
			}
		}
	}
	if len(all) == 0 || highest == 0 {
		return "", nil
	}
	slices.Reverse(all) // the first contender on top
	p := canvas("", "")
	ticks := make(plot.ConstantTicks, len(all))
	for y, b := range all {
		one, err := plotter.NewBarChart(plotter.Values{b.value}, vg.Points(16))
		if err != nil {
			return "", fmt.Errorf("draw bar: %w", err)
		}
		one.Horizontal, one.XMin = true, float64(y)
		one.Color, one.LineStyle.Width = contenderColour(b.contender), 0
		p.Add(one)
		ticks[y] = plot.Tick{Value: float64(y), Label: r.Contenders[b.contender].Name}
	}
	p.Y.Tick.Marker, p.Y.Min, p.Y.Max = ticks, -0.6, float64(len(all))-0.4
	p.Y.Tick.Length, p.Y.LineStyle.Width = 0, 0
	p.Y.Padding = vg.Points(16) // browsers' letters are wider than those measured here
	valueAxis(&p.X, highest, m.Unit)
	return svg(p, vg.Length(60+26*len(all)), m.Title)
}
