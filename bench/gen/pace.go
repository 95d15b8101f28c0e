package gen

import (
	"math"
	"time"
)

// Pace says how many frames are due: the token bucket of one trial. It never
// forgives frames that are late, so that a trial's load is what was asked for.
type Pace struct {
	rate  float64 // frames/s; 0 = as many as possible
	Total uint64  // frames in the trial
}

// NewPace is the pace of a trial that lasts length, or, if frames is not 0, that
// many frames.
func NewPace(rate float64, length time.Duration, frames uint64) Pace {
	switch {
	case frames > 0:
		return Pace{rate, frames}
	case rate > 0:
		return Pace{rate, uint64(rate * length.Seconds())}
	}
	return Pace{rate, math.MaxUint64}
}

// Due is how many of at most limit frames may be sent now, when so much time
// has passed and so many have been sent.
func (p Pace) Due(passed time.Duration, sent uint64, limit int) int {
	if p.rate == 0 {
		return int(min(p.Total-sent, uint64(limit)))
	}
	// The first frame is due at once, the others at even distances.
	owed := min(p.Total, uint64(p.rate*passed.Seconds())+1)
	if owed <= sent {
		return 0
	}
	return int(min(owed-sent, uint64(limit)))
}
