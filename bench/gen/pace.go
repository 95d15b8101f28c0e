package gen

import (
	"math"
	"time"
)

// pace says how many frames are due: the token bucket of one trial. It never
// forgives frames that are late, so that a trial's load is what was asked for.
type pace struct {
	rate  float64 // frames/s; 0 = as many as possible
	total uint64  // frames in the trial; with rate 0 without limit
}

func newPace(rate float64, length time.Duration) pace {
	p := pace{rate: rate, total: math.MaxUint64}
	if rate > 0 {
		p.total = uint64(rate * length.Seconds())
	}
	return p
}

// due is how many of at most limit frames may be sent now, when so much time
// has passed and so many have been sent.
func (p pace) due(passed time.Duration, sent uint64, limit int) int {
	if p.rate == 0 {
		return limit
	}
	// The first frame is due at once, the others at even distances.
	owed := min(p.total, uint64(p.rate*passed.Seconds())+1)
	if owed <= sent {
		return 0
	}
	return int(min(owed-sent, uint64(limit)))
}
