package inkernel

import (
	"time"

	"golang.org/x/sys/unix"
)

// coarse is the clock that programs read (bpf_ktime_get_coarse_ns), in
// nanoseconds. It stands still while the host is suspended.
func coarse() uint64 { return uint64(read(unix.CLOCK_MONOTONIC_COARSE)) }

// suspended is for how long the host has been suspended since it was started.
func suspended() time.Duration { return read(unix.CLOCK_BOOTTIME) - read(unix.CLOCK_MONOTONIC) }

func read(clock int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(clock, &t) // can't fail: Linux has had these clocks since 2.6.39
	return time.Duration(t.Nano())
}
