package trial

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/report"
)

// Results are what a run has found out so far: its report, whose remarks are also
// said on the terminal.
type Results struct {
	*report.Report
	line *Progress
}

// Note puts a remark into the report and on the terminal.
func (r *Results) Note(format string, args ...any) {
	r.line.Note(format, args...)
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// File puts a trial's value into the report, or that there is none: when it does
// not count, or is not a number.
func (r *Results) File(m report.Metric, c report.Case, contender string, round int, value float64, counts bool) {
	if !counts || math.IsNaN(value) {
		r.Reject(m, c, contender)
		return
	}
	r.Add(m, c, contender, round, value)
}

// Fault enters what a contender did that no switch may do. It gets no ratio.
func (r *Results) Fault(contender, fault string) {
	c := r.Contender(contender)
	if c == nil {
		return
	}
	c.Faults = append(c.Faults, fault)
	r.line.Note("%s is FAULTY: %s", contender, fault)
}

// Blame enters a fault that a trial has found, of which one of a kind is enough:
// its first word says the kind.
func (r *Results) Blame(contender, fault string) {
	c := r.Contender(contender)
	if c == nil {
		return
	}
	kind, _, _ := strings.Cut(fault, " ")
	for _, f := range c.Faults {
		if strings.HasPrefix(f, kind+" ") {
			return
		}
	}
	r.Fault(contender, fault)
}

// Exchange notes how far apart the processors are now.
func (r *Results) Exchange() error {
	d, err := machine.Exchange()
	if err == nil && d > 0 {
		r.Exchanges = append(r.Exchanges, report.Exchange{Seconds: time.Since(r.Started).Seconds(), NS: float64(d.Nanoseconds())})
	}
	return err
}
