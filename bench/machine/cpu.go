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
	At    time.Time
	CPUs  int
	Busy  time.Duration // all but idle, iowait and steal; interrupts included
	Steal time.Duration

	// foreign are the processes that are neither this one nor its descendants.
	foreign map[identity]process

	// awake is a better Busy, but that stolen time is part of it: when taking
	// the sample began, and when it ended. 0: not to be had.
	awake struct{ begin, end time.Duration }
}

// Take reads a sample. Scanning the processes takes some milliseconds, so it is
// done before and after a trial, never within, and is in no Usage's Busy where
// the kernel measures idle time.
func Take() (s Sample, err error) {
	onEveryCPU(func(visit func(int) error) {
		proc, sys := os.DirFS("/proc"), os.DirFS("/sys")
		begin, beginErr := awake(proc, sys, visit)
		if s, err = take(proc, os.Getpid()); err != nil {
			return
		}
		end, endErr := awake(proc, sys, visit)
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
	s.foreign, err = foreign(proc, self)
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

// identity is a process: the kernel gives numbers again.
type identity struct {
	pid   int
	begun int64 // ticks since boot
}

// process is what else /proc/PID/stat says.
type process struct {
	name   string
	begun  int64
	parent int
	kernel bool
	used   time.Duration // by itself and by children it has waited for
}

// kernelThread is PF_KTHREAD, the flag in field 9 of /proc/PID/stat.
const kernelThread = 0x00200000

// foreign finds all user processes that don't descend from self.
func foreign(proc fs.FS, self int) (map[identity]process, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
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
			return nil, err
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
	strangers := make(map[identity]process)
	for pid, p := range all {
		if !p.kernel && !own(pid) {
			strangers[identity{pid, p.begun}] = p
		}
	}
	return strangers, nil
}

// usedSince is what strangers used between two looks at them, and the one that used
// most. Time of children that were waited for is added to their parent's when they
// end, so a compiler that starts and ends in between is not overlooked; what a
// child had used before the first look does not count, and is nobody's gain when
// it ends: neither its parent's, nor that of an ancestor if its parent ends, too.
func usedSince(before, after map[identity]process) (sum time.Duration, foremost string) {
	ended := map[int]process{}
	for id, p := range before {
		if _, there := after[id]; !there {
			ended[id.pid] = p
		}
	}
	inherited := map[int]time.Duration{} // by who is left to inherit it
	for _, p := range ended {
		heir := p.parent
		for range ended { // a chain of parents is no longer than that
			parent, gone := ended[heir]
			if !gone {
				break
			}
			heir = parent.parent
		}
		inherited[heir] += p.used
	}
	var most time.Duration
	for id, p := range after {
		used := max(0, p.used-before[id].used-inherited[id.pid])
		sum += used
		if used > most {
			most, foremost = used, fmt.Sprintf("%q (process %d)", p.name, id.pid) // a name may hold anything
		}
	}
	return sum, foremost
}

// parseProcess reads fields 2 (name), 4 (parent), 9 (flags), 14–17 (times) and 22 (begun).
// The name may hold anything, so they count from its closing bracket.
func parseProcess(text string) (process, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	f := strings.Fields(text[end+1:])
	if len(f) < 20 || open < 0 || end < open {
		return process{}, fmt.Errorf("parse /proc/PID/stat: %q", text)
	}
	var n [7]int64
	for i, field := range []int{1, 6, 11, 12, 13, 14, 19} {
		v, err := strconv.ParseInt(f[field], 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("parse /proc/PID/stat: %w", err)
		}
		n[i] = v
	}
	return process{
		name:   text[open+1 : end],
		begun:  n[6],
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
	// Foremost is the program outside the bench that used most, as `"name"
	// (process 123)`; empty if none used anything.
	Foremost string
}

// Since is the usage from an earlier sample to this one.
func (s Sample) Since(before Sample) Usage {
	used, foremost := usedSince(before.foreign, s.foreign)
	u := Usage{
		Disturbance: stats.Disturbance{
			Wall:       s.At.Sub(before.At),
			Processors: s.CPUs,
			Steal:      s.Steal - before.Steal,
			Foreign:    used,
		},
		Busy:     s.Busy - before.Busy,
		Foremost: foremost,
	}
	if s.awake.begin != 0 && before.awake.end != 0 {
		u.Busy = s.awake.begin - before.awake.end
	}
	return u
}
