package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

// page is what the template sees.
type page struct {
	*Report
	Figures []figure
	Tables  []sheet
	Found   []searchLine
	Took    []Contender // contenders that took part
	Absent  []Contender
	Faulty  []Contender

	AimsTitle, AimsText string
}

// sheet is a table with one column for each contender that has a value.
type sheet struct {
	table
	Columns []string
	Lines   []sheetLine
}

type sheetLine struct {
	Case  string
	Cells []sheetCell // as many as Columns
}

// sheetCell is one figure with its ratio.
type sheetCell struct {
	Value  string
	Ratio  string
	Class  string // "reference", "noisy", "faulty", "better", "worse", "even", or ""
	Values string // all values, for those who ask
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"join": strings.Join,
}).Parse(pageText))

// HTML writes the report as one page that needs nothing else: plots inside,
// light or dark as the reader's system is.
func HTML(w io.Writer, r *Report) error {
	figures, err := r.figures()
	if err != nil {
		return err
	}
	p := page{Report: r, Figures: figures, Tables: r.sheets(), Found: r.searchLines(), AimsTitle: aimsTitle, AimsText: aimsText}
	for _, c := range r.Contenders {
		switch {
		case c.Absent != "":
			p.Absent = append(p.Absent, c)
		default:
			p.Took = append(p.Took, c)
		}
		if len(c.Faults) > 0 {
			p.Faulty = append(p.Faulty, c)
		}
	}
	return pageTemplate.Execute(w, p)
}

// sheets are the tables with contenders across.
func (r *Report) sheets() []sheet {
	var out []sheet
	for _, t := range r.tables() {
		g := sheet{table: t}
		for _, c := range r.Contenders {
			if slices.ContainsFunc(t.Rows, func(w row) bool {
				return slices.ContainsFunc(w.Cells, func(x cell) bool { return x.Contender == c.Name })
			}) {
				g.Columns = append(g.Columns, c.Name)
			}
		}
		for _, w := range t.Rows {
			l := sheetLine{Case: w.Case.String(), Cells: make([]sheetCell, len(g.Columns))}
			for _, x := range w.Cells {
				l.Cells[slices.Index(g.Columns, x.Contender)] = r.sheetCell(x.Series)
			}
			g.Lines = append(g.Lines, l)
		}
		out = append(out, g)
	}
	return out
}

func (r *Report) sheetCell(s *Series) sheetCell {
	c := sheetCell{Value: s.figure(), Ratio: r.against(s)}
	var all []string
	for _, v := range s.Values {
		all = append(all, Format(v.Value, s.Unit))
	}
	c.Values = fmt.Sprintf("%s: %s", s.Contender, strings.Join(all, ", "))
	c.Class = class(s, s.Contender == r.Refer)
	return c
}

// class is how a figure compares, for its colour: only where the whole interval
// lies on one side of 1.
func class(s *Series, reference bool) string {
	q := s.Ratio
	switch {
	case len(s.Values) == 0:
		return "noisy"
	case reference:
		return "reference"
	case q == nil:
		return ""
	case q.Withheld == tooNoisy, q.Withheld == tooFew:
		return "noisy"
	case q.Withheld != "":
		return "faulty"
	}
	more, less := q.Low > 1, q.High < 1
	if s.Lower {
		more, less = less, more
	}
	switch {
	case more:
		return "better"
	case less:
		return "worse"
	}
	return "even"
}
