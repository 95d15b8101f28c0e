package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// awake is how long the processors were not idle, summed, to the microsecond.
// Only differences mean something. Most kernels charge time by looking what a
// processor does at each tick of some milliseconds: what always happens right
// after a tick, or between two, as much of a switch's work does, is charged
// wrongly or not at all. Idle time is measured, by a kernel that stops the tick
// meanwhile (/proc/timer_list) and by cpuidle: the first there is counts. What the
// hypervisor stole is neither.
//
// The kernel adds a stay in idle when it ends, so visit, which makes a processor
// run something, is called for each before it is read.
//
// Where neither is to be had, or not every processor can be visited, awake
// returns errNoResidency.
func awake(proc, sys fs.FS, visit func(cpu int) error) (time.Duration, error) {
	dirs, err := fs.Glob(sys, "devices/system/cpu/cpu[0-9]*")
	if err != nil {
		return 0, err // the pattern is at fault
	}
	var sum time.Duration
	for _, dir := range dirs {
		online, err := fs.ReadFile(sys, dir+"/online")
		if err == nil && strings.TrimSpace(string(online)) == "0" {
			continue // has not been awake
		}
		cpu, err := strconv.Atoi(dir[strings.LastIndex(dir, "cpu")+3:])
		if err != nil {
			continue
		}
		if err := visit(cpu); err != nil {
			return 0, errNoResidency
		}
		idle, err := tickless(proc, cpu)
		if errors.Is(err, errNoResidency) {
			idle, err = residency(sys, dir)
		}
		if err != nil {
			return 0, err
		}
		sum += time.Since(epoch) - idle
	}
	if sum == 0 {
		return 0, errNoResidency
	}
	return sum, nil
}

var errNoResidency = errors.New("idle time is not known")

// epoch is an arbitrary point of the monotonic clock.
var epoch = time.Now()

// tickless is how long a processor was idle as a kernel with CONFIG_NO_HZ
// measures it. Only root may read that.
func tickless(proc fs.FS, cpu int) (time.Duration, error) {
	text, err := fs.ReadFile(proc, "timer_list")
	if err != nil {
		return 0, errNoResidency
	}
	at, sum := -1, time.Duration(0)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		name = strings.TrimSpace(name)
		switch name {
		case "cpu", ".idle_sleeptime", ".iowait_sleeptime":
		default:
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		switch {
		case err != nil:
			return 0, fmt.Errorf("parse /proc/timer_list: %w", err)
		case name == "cpu":
			at = int(n)
		case at == cpu:
			sum += time.Duration(n)
		}
	}
	if sum == 0 {
		return 0, errNoResidency
	}
	return sum, nil
}

// residency is how long the processor whose directory this is has been in its
// idle states, Linux's admin-guide/pm/cpuidle.
func residency(sys fs.FS, dir string) (time.Duration, error) {
	states, err := fs.Glob(sys, dir+"/cpuidle/state*/time")
	if err != nil {
		return 0, err // the pattern is at fault
	}
	if len(states) == 0 {
		return 0, errNoResidency
	}
	var sum time.Duration
	for _, path := range states {
		text, err := fs.ReadFile(sys, path)
		if err != nil {
			return 0, fmt.Errorf("read idle time: %w", err)
		}
		us, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /sys/%s: %w", path, err)
		}
		sum += time.Duration(us) * time.Microsecond
	}
	return sum, nil
}

// onEveryCPU calls do on a thread of its own, which visit moves about.
func onEveryCPU(do func(visit func(cpu int) error)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		do(sysio.SetAffinity)
	}()
	<-done
}
