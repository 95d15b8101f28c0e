package machine

import (
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

const (
	exchanges = 2000 // round trips in one measurement
	tries     = 9
)

// Exchange is how long a cache line takes from one of the first two processors
// that this process may use to the other: tens of nanoseconds where they share a
// cache, hundreds where they don't. In a virtual machine it changes while the
// hypervisor moves the processors about, and with it everything that a switch on
// one of them gets from a sender on the other. It takes some milliseconds, for
// which both are busy; 0 without two processors.
func Exchange() (time.Duration, error) {
	cpus, err := sysio.Affinity()
	if err != nil || len(cpus) < 2 || runtime.GOMAXPROCS(0) < 2 {
		return 0, err
	}
	// Each writes its own word, on a cache line of its own, and reads the other's.
	var words [2]struct {
		atomic.Uint32
		_ [124]byte
	}
	took := make([]time.Duration, 0, tries)
	errs := make(chan error, 2)
	for side := range 2 {
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			err := sysio.SetAffinity(cpus[side])
			// Also after an error: the other side waits.
			for try := range uint32(tries) {
				begin := time.Now()
				for i := try*exchanges + 1; i <= (try+1)*exchanges; i++ {
					if side == 0 {
						words[0].Store(i)
					}
					for words[1-side].Load() < i {
					}
					if side == 1 {
						words[1].Store(i)
					}
				}
				if side == 0 {
					took = append(took, time.Since(begin)/(2*exchanges))
				}
			}
			errs <- err
		}()
	}
	if err := errors.Join(<-errs, <-errs); err != nil {
		return 0, err
	}
	slices.Sort(took)
	return took[tries/2], nil
}
