package stats

import (
	"fmt"
	"time"
)

// Limits above which a trial does not count. Both are shares of all processors'
// time over the trial.
const (
	// MaxSteal is the share that the hypervisor gave to someone else. Beyond
	// it the trial measured the neighbours.
	MaxSteal = 0.02
	// MaxForeign is the share of user-mode time that processes outside the
	// bench and its subject took. It is wider than MaxSteal because the
	// kernel's figure is sampled at the timer tick.
	MaxForeign = 0.05
)

// Disturbance is what happened on the machine, during a trial, that was not the
// trial. All durations are summed over Processors.
type Disturbance struct {
	Wall       time.Duration // length of the trial
	Processors int
	Steal      time.Duration // field 8 of the cpu line of /proc/stat, proc(5)
	Foreign    time.Duration // user time outside the bench and its subject
}

// StealShare is the stolen share of the machine's time, 0–1.
func (d Disturbance) StealShare() float64 { return d.share(d.Steal) }

// ForeignShare is the share that strangers used, 0–1.
func (d Disturbance) ForeignShare() float64 { return d.share(d.Foreign) }

func (d Disturbance) share(t time.Duration) float64 {
	if d.Wall <= 0 || d.Processors <= 0 {
		return 0
	}
	return max(0, t.Seconds()/(d.Wall.Seconds()*float64(d.Processors)))
}

// Reject says why the trial must not count, or "" if it may.
func (d Disturbance) Reject() string {
	switch {
	case d.StealShare() > MaxSteal:
		return fmt.Sprintf("the hypervisor stole %.1f %%", 100*d.StealShare())
	case d.ForeignShare() > MaxForeign:
		return fmt.Sprintf("other programs used %.1f %%", 100*d.ForeignShare())
	}
	return ""
}
