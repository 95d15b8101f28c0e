package pump

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pauses tells f of arrivals with these gaps between them and returns the last.
func pauses(f *forecast, gaps ...time.Duration) time.Time {
	now := time.Unix(1000, 0)
	f.arrived(now)
	for _, g := range gaps {
		now = now.Add(g)
		f.arrived(now)
	}
	return now
}

func every(gap time.Duration, n int) (gaps []time.Duration) {
	for range n {
		gaps = append(gaps, gap)
	}
	return gaps
}

func TestForecastOfSteadyTraffic(t *testing.T) {
	for _, gap := range []time.Duration{200 * time.Microsecond, time.Millisecond, 3 * time.Millisecond} {
		var f forecast
		last := pauses(&f, every(gap, steadyAfter+1)...)
		from, to, ok := f.due()
		if !ok {
			t.Errorf("frames every %v are not foreseen", gap)
			continue
		}
		next := last.Add(gap)
		if !from.Before(next.Add(-earlier)) || !to.After(next) {
			t.Errorf("the next frame is due from %v to %v, comes after %v", from.Sub(last), to.Sub(last), gap)
		}
		// Awake for no longer than it must be: what that costs is the point.
		if awake := to.Sub(from); awake > earlier+2*tolerance {
			t.Errorf("awake for %v of %v", awake, gap)
		}
	}
}

// A machine that wakes up late is given more time, and no more than that.
func TestForecastLearnsHowLateItWakesUp(t *testing.T) {
	lead := func(f *forecast) time.Duration {
		pauses(f, every(time.Millisecond, steadyAfter+1)...)
		from, to, ok := f.due()
		if !ok {
			t.Fatal("not foreseen")
		}
		return to.Sub(from)
	}
	var f forecast
	usual := lead(&f)
	for range 10 {
		f.woke(50 * time.Microsecond)
		f.woke(-time.Millisecond)
	}
	if got := lead(&f); got != usual {
		t.Errorf("awake for %v, and for %v after wake-ups in time", usual, got)
	}
	for range 10 {
		f.woke(200 * time.Microsecond)
	}
	if got := lead(&f); got < usual+100*time.Microsecond {
		t.Errorf("awake for %v after wake-ups that were 200 µs late", got)
	}
	for range 10 {
		f.woke(time.Second)
	}
	if got := lead(&f); got > usual+2*latest {
		t.Errorf("awake for %v after one that lasted", got)
	}
	for range 1000 {
		f.woke(20 * time.Microsecond)
	}
	if got := lead(&f); got != usual {
		t.Errorf("awake for %v long after, want %v", got, usual)
	}
}

func TestForecastFollowsJitterAndDrift(t *testing.T) {
	var f forecast
	rng := rand.New(rand.NewPCG(1, 2))
	var gaps []time.Duration
	for i := range 1000 {
		gaps = append(gaps, time.Millisecond+time.Duration(i)*time.Microsecond/10+time.Duration(rng.IntN(20))*time.Microsecond)
	}
	last := pauses(&f, gaps...)
	next := last.Add(gaps[len(gaps)-1])
	if from, to, ok := f.due(); !ok || next.Before(from) || next.After(to) {
		t.Errorf("due %t from %v to %v, comes after %v", ok, from.Sub(last), to.Sub(last), next.Sub(last))
	}
}

func TestForecastOfWhatIsNotSteady(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var wild []time.Duration
	for range 1000 {
		wild = append(wild, time.Duration(rng.ExpFloat64()*float64(time.Millisecond)))
	}
	for name, gaps := range map[string][]time.Duration{
		"nothing":              nil,
		"too few":              every(time.Millisecond, steadyAfter),
		"rare":                 every(10*time.Millisecond, 100),
		"dense":                every(50*time.Microsecond, 100),
		"at random":            wild,
		"steady, then a pause": append(every(time.Millisecond, 100), 2*time.Second),
		"in pairs":             append(every(time.Millisecond, 100), 300*time.Microsecond, 700*time.Microsecond),
	} {
		var f forecast
		pauses(&f, gaps...)
		if from, to, ok := f.due(); ok {
			t.Errorf("%s: foreseen from %v to %v", name, from.Sub(f.last), to.Sub(f.last))
		}
	}
}
