package trial

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestForecastLearnsThePaceOfTheMachine(t *testing.T) {
	f := forecast{total: 100 * time.Second}
	for _, tc := range []struct {
		begin      time.Duration // a part of that length begins, if it is not 0
		done, of   int
		elapsed    time.Duration
		want       string
		atLeast    time.Duration
		noMoreThan time.Duration
	}{
		{10 * time.Second, 0, 4, 0, "0 %", 100 * time.Second, 100 * time.Second},
		{0, 2, 4, 5 * time.Second, "5 %", 95 * time.Second, 95 * time.Second},
		// From here on it takes twice as long as expected: soon that is believed.
		{70 * time.Second, 0, 7, 20 * time.Second, "10 %", 91 * time.Second, 179 * time.Second},
		{0, 7, 7, 160 * time.Second, "80 %", 30 * time.Second, 40 * time.Second},
		{20 * time.Second, 0, 0, 160 * time.Second, "80 %", 30 * time.Second, 40 * time.Second}, // without steps
		{0, 9, 8, 200 * time.Second, "100 %", 0, 0},                                             // never more than all
	} {
		if tc.begin > 0 {
			f.begin(tc.begin)
		}
		f.part(tc.done, tc.of)
		left := f.left(tc.elapsed)
		if text := f.after(tc.elapsed); !strings.HasPrefix(text, tc.want+", ") || left < tc.atLeast || left > tc.noMoreThan {
			t.Errorf("after %v: %q, %v left; want %s, %v–%v", tc.elapsed, text, left, tc.want, tc.atLeast, tc.noMoreThan)
		}
	}
}

func TestTheProgressLineTellsShareAndTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := NewProgress(&out)
		p.Step("looking around")
		p.Expect(10 * time.Minute)
		p.Begin(6 * time.Minute)
		time.Sleep(3 * time.Minute)
		p.Part(1, 2)
		p.Step("round %d", 1)
		time.Sleep(seldom / 2)
		p.Step("too soon for another line")
		p.Note("a remark")
		const want = "   0 s  looking around\n 180 s, 30 %, 7 min left  round 1\na remark\n"
		if out.String() != want {
			t.Errorf("it says\n%swant\n%s", out.String(), want)
		}
	})
}

func TestTheLiveLineFitsAndIsTakenAway(t *testing.T) {
	var out strings.Builder
	p := NewProgress(&out)
	p.live, p.columns = true, 20
	p.Step("a step that is longer than the terminal is wide")
	p.Note("a remark")
	if want := "\r\x1b[K   0 s  a step that\r\x1b[Ka remark\n"; out.String() != want {
		t.Errorf("it says %q, want %q", out.String(), want)
	}
}
