package gen

import (
	"math"
	"time"
)

// pace says how many frames are due: the token bucket of one trial. It never
// forgives frames that are late, so that a trial's load is what was asked for.
type pace struct {
	rate  float64 // frames/s; 0 = as many as possible
	total uint64  // frames in the trial
}

// newPace is the pace of a trial that lasts length, or, if frames is not 0, that
// many frames.
func newPace(rate float64, length time.Duration, frames uint64) pace {
	switch {
	case frames > 0:
		return pace{rate, frames}
	case rate > 0:
		return pace{rate, uint64(rate * length.Seconds())}
	}
	return pace{rate, math.MaxUint64}
}

// due is how many of at most limit frames may be sent now, when so much time
// has passed and so many have been sent.
func (p pace) due(passed time.Duration, sent uint64, limit int) int {
	if p.rate == 0 {
		return int(min(p.total-sent, uint64(limit)))
	}
	// The first frame is due at once, the others at even distances.
	owed := min(p.total, uint64(p.rate*passed.Seconds())+1)
	if owed <= sent {
		return 0
	}
	return int(min(owed-sent, uint64(limit)))
}
