package trial

import (
	"fmt"
	"time"
)

// forecast is how much of a run is done and how long the rest may take, judged by
// what its parts were expected to take.
type forecast struct {
	total   time.Duration // expected of all parts
	past    time.Duration // expected of the parts that are over
	present time.Duration // expected of the part under way
	share   float64       // of the part under way, 0–1
}

// begin says that the next part is under way, and what it is expected to take.
func (f *forecast) begin(expected time.Duration) {
	f.past += f.present
	f.present, f.share = expected, 0
}

// part says how many of the equal steps of the part under way are done.
func (f *forecast) part(done, of int) {
	if of > 0 {
		f.share = min(1, float64(done)/float64(of))
	}
}

func (f *forecast) done() time.Duration {
	return min(f.total, f.past+time.Duration(f.share*float64(f.present)))
}

// trust is how much of the run passes before its own pace says more than what was
// expected.
const trust = 15 * time.Second

// left is how long the rest takes if this machine goes on as much faster or
// slower than expected as it has been so far.
func (f *forecast) left(elapsed time.Duration) time.Duration {
	pace := float64(elapsed+trust) / float64(f.done()+trust)
	return time.Duration(pace * float64(f.total-f.done()))
}

// after is "41 %, 3 min left" when so much time has passed; empty before anything is
// expected.
func (f *forecast) after(elapsed time.Duration) string {
	if f.total <= 0 {
		return ""
	}
	left := f.left(elapsed)
	text := fmt.Sprintf("%.0f s", left.Seconds())
	if left >= 90*time.Second {
		text = fmt.Sprintf("%.0f min", left.Minutes())
	}
	return fmt.Sprintf("%.0f %%, %s left", 100*f.done().Seconds()/f.total.Seconds(), text)
}
