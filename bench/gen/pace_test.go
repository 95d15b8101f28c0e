package gen

import (
	"testing"
	"time"
)

func TestPaceOffersTheRateEvenly(t *testing.T) {
	p := NewPace(1000, time.Second, 0)
	for _, tc := range []struct {
		passed time.Duration
		sent   uint64
		limit  int
		want   int
	}{
		{0, 0, 64, 1},
		{0, 1, 64, 0},
		{999 * time.Microsecond, 1, 64, 0},
		{1001 * time.Microsecond, 1, 64, 1},
		{500500 * time.Microsecond, 1, 64, 64}, // late: catch up, a batch at a time
		{500500 * time.Microsecond, 499, 64, 2},
		{time.Second, 1000, 64, 0},
		{time.Hour, 999, 64, 1},
		{time.Hour, 1000, 64, 0}, // never more than the trial's total
	} {
		if got := p.Due(tc.passed, tc.sent, tc.limit); got != tc.want {
			t.Errorf("after %v with %d sent %d are due, want %d", tc.passed, tc.sent, got, tc.want)
		}
	}
	if got := NewPace(0, time.Second, 0).Due(0, 1<<40, 64); got != 64 {
		t.Errorf("at full speed %d are due, want a whole batch", got)
	}
	if got := NewPace(0, 0, 100).Due(time.Hour, 90, 64); got != 10 {
		t.Errorf("%d are due of the last 10 of 100", got)
	}
}

func TestPaceSpacesFramesEvenly(t *testing.T) {
	p := NewPace(250_000, 10*time.Millisecond, 0)
	var sent uint64
	for now := time.Duration(0); now < 10*time.Millisecond; now += 500 * time.Nanosecond {
		n := p.Due(now, sent, 64)
		if n > 1 {
			t.Fatalf("at %v %d frames are due at once", now, n)
		}
		sent += uint64(n)
	}
	if sent != 2500 {
		t.Errorf("%d frames in 10 ms, want 2500", sent)
	}
}
