package measure

import (
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/report"
)

func TestForwardingLoopForwardsEveryFlow(t *testing.T) {
	for _, flows := range []int{1, 300} {
		rate, err := loop(t.Context(), flows, 20*time.Millisecond)
		if err != nil || rate <= 0 {
			t.Errorf("%d flows: %v frames/s, error %v", flows, rate, err)
		} else {
			t.Logf("%d flows: %s frames/s", flows, report.Format(rate, "frame/s"))
		}
	}
}
