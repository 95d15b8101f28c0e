package pump

import "time"

// forecast foresees when the next frame of steady traffic comes, such as a call,
// a control loop or a ping, so that a worker that sleeps in between can be awake
// by then: its wake-up takes many times what forwarding the frame does. It knows
// nothing but the times it is told.
type forecast struct {
	last   time.Time     // when the latest pause ended
	gap    time.Duration // between the ends of pauses, smoothed
	miss   time.Duration // by how much they come early or late, smoothed
	steady int           // how many in a row came when they were due
	late   time.Duration // by how much sleeps until a time last longer, smoothed
}

const (
	// Pauses ended less than shortestGap apart are not worth a sleep; beyond
	// longestGap a sleeper is late for too few frames to matter.
	shortestGap = 150 * time.Microsecond
	longestGap  = 4 * time.Millisecond
	// steadyAfter is how many must have come in time.
	steadyAfter = 8
	// tolerance is how late and early a steady frame may be, beside an eighth
	// of the gap: a wake-up by another way makes a difference of some 30 µs.
	tolerance = 40 * time.Microsecond
	// A worker means to wake up this long before the frame: what a timer and the
	// wake-up take in a virtual machine, with room. Where they are seen to take
	// longer it is longer, up to latest.
	earlier = 80 * time.Microsecond
	latest  = 400 * time.Microsecond
)

// arrived is called when a frame ends a pause.
func (f *forecast) arrived(now time.Time) {
	gap := now.Sub(f.last)
	f.last = now
	miss := (gap - f.gap).Abs()
	if gap < shortestGap || gap > longestGap || miss > max(tolerance, f.gap/8) {
		f.gap, f.miss, f.steady = gap, 0, 0
		return
	}
	f.steady++
	f.gap += (gap - f.gap) / 4
	f.miss += (miss - f.miss) / 4
}

// woke is called after a sleep until from with how much later than that it ended.
// Less than nothing is a frame that came early, and says nothing. It rises
// quickly, since who oversleeps has slept in vain.
func (f *forecast) woke(late time.Duration) {
	switch {
	case late < 0:
	case late > f.late:
		f.late += (min(late, latest) - f.late) / 2
	default:
		f.late -= (f.late - late) / 32
	}
}

// due is the time within which the next frame is worth waiting for awake; ok is
// false when nothing is foreseen.
func (f *forecast) due() (from, to time.Time, ok bool) {
	if f.steady < steadyAfter {
		return from, to, false
	}
	at, slack := f.last.Add(f.gap), tolerance/2+2*f.miss
	return at.Add(-slack - max(earlier, f.late+f.late/4)), at.Add(slack), true
}
