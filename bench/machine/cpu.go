// Package machine reads what the bench has to know about the machine it runs
// on: where the processors' time went during a trial, and the facts that a
// reader needs to judge the figures (kernel, processor, mitigations).
//
// It only reads /proc and /sys, for which a thread of its own goes from processor
// to processor. All functions may be called concurrently.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/stats"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

// Sample is where processor time has gone since boot, summed over processors.
type Sample struct {
	At      time.Time
	CPUs    int
	Busy    time.Duration // all but idle, iowait and steal; interrupts included
	Steal   time.Duration
	Foreign time.Duration // processes that are neither this one nor its descendants

	// awake is a better Busy, but that stolen time is part of it: when taking
	// the sample began, and when it ended. 0: not to be had.
	awake struct{ begin, end time.Duration }
}

// Take reads a sample. Scanning the processes takes some milliseconds, so it is
// done before and after a trial, never within, and is in no Usage's Busy where
// the kernel measures idle time.
func Take() (s Sample, err error) {
	onEveryCPU(func(visit func(int) error) {
		sys := os.DirFS("/sys")
		begin, beginErr := awake(sys, visit)
		if s, err = take(os.DirFS("/proc"), os.Getpid()); err != nil {
			return
		}
		end, endErr := awake(sys, visit)
		if err = errors.Join(beginErr, endErr); err == nil {
			s.awake.begin, s.awake.end = begin, end
		} else if errors.Is(err, errNoResidency) {
			err = nil
		}
	})
	return s, err
}

func take(proc fs.FS, self int) (Sample, error) {
	s := Sample{At: time.Now()}
	stat, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return s, fmt.Errorf("read processor times: %w", err)
	}
	if err := s.parseStat(string(stat)); err != nil {
		return s, err
	}
	s.Foreign, err = foreign(proc, self)
	return s, err
}

// parseStat reads /proc/stat, proc(5): the line "cpu" holds user, nice, system,
// idle, iowait, irq, softirq, steal and two that are contained in the first two.
func (s *Sample) parseStat(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			s.CPUs++
			continue
		}
		if len(f) < 9 {
			return fmt.Errorf("parse /proc/stat: %q has no steal time", strings.TrimSpace(line))
		}
		for i, v := range f[1:9] {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("parse /proc/stat: %w", err)
			}
			switch i {
			case 3, 4: // idle, iowait
			case 7:
				s.Steal = time.Duration(n) * tick
			default:
				s.Busy += time.Duration(n) * tick
			}
		}
	}
	if s.CPUs == 0 {
		return fmt.Errorf("parse /proc/stat: no processors")
	}
	return nil
}

// process is what /proc/PID/stat says.
type process struct {
	parent int
	kernel bool
	used   time.Duration // by itself and by children it has waited for
}

// kernelThread is PF_KTHREAD, the flag in field 9 of /proc/PID/stat.
const kernelThread = 0x00200000

// foreign is the processor time of all user processes that don't descend from
// self. Time of children that were waited for counts with their parent, so a
// compiler that starts and ends between two samples is not overlooked.
func foreign(proc fs.FS, self int) (time.Duration, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]process)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := fs.ReadFile(proc, e.Name()+"/stat")
		if err != nil {
			continue // it has just ended
		}
		p, err := parseProcess(string(text))
		if err != nil {
			return 0, err
		}
		all[pid] = p
	}
	own := func(pid int) bool {
		for range len(all) { // a chain of parents is no longer than that
			if pid == self {
				return true
			}
			p, ok := all[pid]
			if !ok {
				return false
			}
			pid = p.parent
		}
		return false
	}
	var sum time.Duration
	for pid, p := range all {
		if !p.kernel && !own(pid) {
			sum += p.used
		}
	}
	return sum, nil
}

// parseProcess reads fields 4 (parent), 9 (flags) and 14–17 (times). The command
// name before them may hold anything, so they count from its closing bracket.
func parseProcess(text string) (process, error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return process{}, fmt.Errorf("parse /proc/PID/stat: %q", text)
	}
	var n [6]int64
	for i, field := range []int{1, 6, 11, 12, 13, 14} {
		v, err := strconv.ParseInt(f[field], 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("parse /proc/PID/stat: %w", err)
		}
		n[i] = v
	}
	return process{
		parent: int(n[0]),
		kernel: n[1]&kernelThread != 0,
		used:   time.Duration(n[2]+n[3]+n[4]+n[5]) * tick,
	}, nil
}

// Usage is what happened between two samples.
type Usage struct {
	stats.Disturbance
	// Busy is the time of all processors that was not idle. What the hypervisor
	// stole is in it where the kernel measures idle time, and else not.
	Busy time.Duration
}

// Since is the usage from an earlier sample to this one.
func (s Sample) Since(before Sample) Usage {
	u := Usage{
		Disturbance: stats.Disturbance{
			Wall:       s.At.Sub(before.At),
			Processors: s.CPUs,
			Steal:      s.Steal - before.Steal,
			Foreign:    s.Foreign - before.Foreign,
		},
		Busy: s.Busy - before.Busy,
	}
	if s.awake.begin != 0 && before.awake.end != 0 {
		u.Busy = s.awake.begin - before.awake.end
	}
	return u
}
