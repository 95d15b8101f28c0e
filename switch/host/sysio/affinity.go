package sysio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SetAffinity keeps the calling thread on one CPU. The goroutine must have
// called runtime.LockOSThread, and its thread must end with it, or another
// goroutine inherits the affinity.
func SetAffinity(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if !set.IsSet(cpu) {
		return fmt.Errorf("set affinity to CPU %d: no such CPU", cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("set affinity to CPU %d: %w", cpu, err)
	}
	return nil
}

// Affinity lists the CPUs that the calling thread may run on, ascending.
func Affinity() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("get affinity: %w", err)
	}
	cpus := make([]int, 0, set.Count())
	for cpu := 0; len(cpus) < cap(cpus); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// PreciseTimers has the calling thread's sleeps end when they should, instead of
// up to 50 µs later (PR_SET_TIMERSLACK, prctl(2)).
func PreciseTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }
