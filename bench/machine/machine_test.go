package machine

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// stat is a line of /proc/PID/stat with the fields that matter.
func stat(comm string, parent, flags, user, system, childUser, childSystem string) *fstest.MapFile {
	return file("7 (" + comm + ") S " + strings.Join([]string{
		parent, "7", "7", "0", "-1", flags, "0", "0", "0", "0", user, system, childUser, childSystem, "20", "0", "1", "0", "77",
	}, " ") + "\n")
}

func TestSampleAddsUpProcessorTimes(t *testing.T) {
	proc := fstest.MapFS{
		"stat": file("cpu  100 20 30 4000 50 6 7 80 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n"),
		// init, a stranger with a nasty name and a child that has ended
		"1/stat":  stat("init", "0", "4194560", "1", "2", "3", "4"),
		"50/stat": stat("a) R (b", "1", "0", "10", "20", "30", "40"),
		// a kernel thread: part of what a contender may use
		"2/stat": stat("ksoftirqd/0", "0", "69238848", "0", "999", "0", "0"),
		// the bench, its contender and the contender's child
		"60/stat": stat("bench", "1", "0", "500", "500", "0", "0"),
		"61/stat": stat("switch", "60", "0", "500", "500", "0", "0"),
		"62/stat": stat("helper", "61", "0", "500", "500", "0", "0"),
		"self":    file(""),
	}
	s, err := take(proc, 60)
	if err != nil {
		t.Fatal(err)
	}
	foreign, most := usedSince(nil, s.foreign)
	if s.CPUs != 2 || s.Busy != 1630*time.Millisecond || s.Steal != 800*time.Millisecond || foreign != 1100*time.Millisecond {
		t.Errorf("%+v, foreign %v; want 2 CPUs, busy 1.63 s, steal 0.8 s, foreign 1.1 s", s, foreign)
	}
	if most != `"a) R (b" (process 50)` {
		t.Errorf("most was used by %s", most)
	}
}

func TestStrangersCountForWhatTheyUseInBetween(t *testing.T) {
	type all = map[identity]process
	const s = time.Second
	shell := identity{pid: 5, begun: 1}
	for _, tc := range []struct {
		name          string
		before, after all
		want          time.Duration
	}{
		{"nobody", nil, nil, 0},
		{"one at work", all{shell: {used: 3 * s}}, all{shell: {used: 5 * s}}, 2 * s},
		{"one that has come", nil, all{shell: {used: s}}, s},
		{"one that ends masks no other", all{shell: {used: 3 * s}, {pid: 6}: {used: 90 * s}}, all{shell: {used: 5 * s}}, 2 * s},
		{
			"a child that ends leaves its parent what it used in between",
			all{shell: {used: 3 * s}, {pid: 6}: {parent: 5, used: 90 * s}}, all{shell: {used: 94 * s}}, s,
		},
		{
			"a child that ends with its parent",
			all{shell: {used: 3 * s}, {pid: 6}: {parent: 5, used: 10 * s}, {pid: 7}: {parent: 6, used: 90 * s}}, all{shell: {used: 104 * s}}, s,
		},
		{
			"a child that nobody waits for",
			all{shell: {used: 3 * s}, {pid: 6}: {parent: 5, used: 90 * s}}, all{shell: {used: 3 * s}}, 0,
		},
		{"a number given again", all{shell: {used: 90 * s}}, all{{pid: 5, begun: 2}: {used: s}}, s},
	} {
		got, most := usedSince(tc.before, tc.after)
		if got != tc.want || tc.want > 0 != strings.Contains(most, "(process 5)") {
			t.Errorf("%s: %v, most by %q; want %v by process 5", tc.name, got, most, tc.want)
		}
	}
}

func TestUsageIsTheDifference(t *testing.T) {
	begin := time.Now()
	a := Sample{At: begin, CPUs: 2, Busy: time.Second, Steal: time.Second}
	b := Sample{At: begin.Add(time.Second), CPUs: 2, Busy: 3 * time.Second, Steal: 1100 * time.Millisecond}
	u := b.Since(a)
	if u.Busy != 2*time.Second || u.StealShare() != 0.05 || u.ForeignShare() != 0 || u.Reject() == "" {
		t.Errorf("%+v", u)
	}
}

func TestUsageIsWhatWasNotIdleWhereThatIsMeasured(t *testing.T) {
	sys := func(idle0, idle1 string) fstest.MapFS {
		return fstest.MapFS{
			"devices/system/cpu/cpu0/cpuidle/state0/time": file("1000000\n"),
			"devices/system/cpu/cpu0/cpuidle/state1/time": file(idle0),
			"devices/system/cpu/cpu1/online":              file("1\n"),
			"devices/system/cpu/cpu1/cpuidle/state0/time": file(idle1),
			"devices/system/cpu/cpu2/online":              file("0\n"),
			"devices/system/cpu/cpufreq/policy":           file("x"),
		}
	}
	var visited []int
	visit := func(cpu int) error { visited = append(visited, cpu); return nil }
	begin := time.Now()
	before, err := awake(fstest.MapFS{}, sys("500\n", "0\n"), visit)
	if err != nil {
		t.Fatal(err)
	}
	after, err := awake(fstest.MapFS{}, sys("250500\n", "1000\n"), visit) // 251 ms idle
	spent := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < -251*time.Millisecond || got > 2*spent-251*time.Millisecond {
		t.Errorf("awake for %v in %v of two processors that were idle for 251 ms", got, spent)
	}
	if want := []int{0, 1, 0, 1}; !slices.Equal(visited, want) {
		t.Errorf("visited %v, want %v", visited, want)
	}
	var a, b Sample
	a.awake.begin, a.awake.end, a.Busy = time.Second, 2*time.Second, time.Minute
	b.awake.begin, b.awake.end, b.Busy = 3*time.Second, 5*time.Second, time.Hour
	if u := b.Since(a); u.Busy != time.Second {
		t.Errorf("busy for %v between two samples, want 1 s: taking them is no part of it", u.Busy)
	}
}

func TestIdleTimeWithoutTicksComesFirst(t *testing.T) {
	sys := fstest.MapFS{
		"devices/system/cpu/cpu0/cpuidle/state0/time": file("5\n"),
		"devices/system/cpu/cpu1/online":              file("1\n"),
	}
	proc := func(idle string) fstest.MapFS {
		return fstest.MapFS{"timer_list": file("Timer List Version: v0.10\ncpu: 0\n active timers:\n  .nohz : 1\n" +
			"  .idle_sleeptime : " + idle + " nsecs\n  .iowait_sleeptime: 1000000 nsecs\njiffies: 77\n\n" +
			"cpu: 1\n  .idle_sleeptime : 7000 nsecs\n  .iowait_sleeptime: 0 nsecs\n")}
	}
	visit := func(int) error { return nil }
	begin := time.Now()
	before, err := awake(proc("5000"), sys, visit)
	if err != nil {
		t.Fatal(err)
	}
	after, err := awake(proc("250005000"), sys, visit)
	spent := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < -250*time.Millisecond || got > 2*spent-250*time.Millisecond {
		t.Errorf("awake for %v in %v of two processors of which one was idle for 250 ms", got, spent)
	}
	if _, err := awake(proc("x"), sys, visit); err == nil || errors.Is(err, errNoResidency) {
		t.Errorf("no number: error %v", err)
	}
}

func TestWithoutMeasuredIdleTimeThereIsNone(t *testing.T) {
	none := func(int) error { return nil }
	for name, sys := range map[string]fstest.MapFS{
		"no processors": {},
		"no cpuidle":    {"devices/system/cpu/cpu0/online": file("1")},
	} {
		if got, err := awake(fstest.MapFS{}, sys, none); !errors.Is(err, errNoResidency) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	sys := fstest.MapFS{"devices/system/cpu/cpu0/cpuidle/state0/time": file("1")}
	if got, err := awake(fstest.MapFS{}, sys, func(int) error { return errors.New("not allowed there") }); !errors.Is(err, errNoResidency) {
		t.Errorf("a processor out of reach: %v, %v", got, err)
	}
	sys = fstest.MapFS{"devices/system/cpu/cpu0/cpuidle/state0/time": file("x")}
	if got, err := awake(fstest.MapFS{}, sys, none); err == nil || errors.Is(err, errNoResidency) {
		t.Errorf("no number: %v, %v", got, err)
	}
}

func TestMalformedProcIsAnError(t *testing.T) {
	for name, proc := range map[string]fstest.MapFS{
		"nothing":       {},
		"no processors": {"stat": file("cpu  1 2 3 4 5 6 7 8\n")},
		"too short":     {"stat": file("cpu  1 2 3\ncpu0 1\n")},
		"not a number":  {"stat": file("cpu  1 2 x 4 5 6 7 8\ncpu0 1\n")},
		"process":       {"stat": file("cpu  1 2 3 4 5 6 7 8\ncpu0 1\n"), "1/stat": file("1 (init) S 0")},
	} {
		if s, err := take(proc, 1); err == nil {
			t.Errorf("%s: %+v, want an error", name, s)
		}
	}
}

func TestFactsAreRead(t *testing.T) {
	f := read(fstest.MapFS{
		"proc/sys/kernel/osrelease":  file("6.18.44\n"),
		"proc/cpuinfo":               file("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor lahf_lm\n"),
		"proc/meminfo":               file("MemTotal:       24576000 kB\nMemFree: 1 kB\n"),
		"proc/sys/net/core/rmem_max": file("212992\n"),
		"sys/devices/system/cpu/vulnerabilities/spectre_v2": file("Mitigation: Retpolines\n"),
		"sys/devices/system/cpu/vulnerabilities/meltdown":   file("Not affected\n"),
	})
	if f.Kernel != "6.18.44" || f.CPU != "AMD EPYC" || !f.Hypervisor || f.MemoryMiB != 24000 ||
		f.Settings["net.core.rmem_max"] != "212992" || len(f.Mitigations) != 1 || f.Mitigations["spectre_v2"] == "" {
		t.Errorf("%+v", f)
	}
}

func TestExchangeTakesTime(t *testing.T) {
	d, err := Exchange()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.NumCPU() > 1 && (d <= 0 || d > time.Second) {
		t.Errorf("a cache line takes %v", d)
	}
	t.Log(d)
}

func TestThisMachineCanBeSampled(t *testing.T) {
	s, err := Take()
	if err != nil || s.CPUs == 0 || s.Busy == 0 {
		t.Errorf("%+v, error %v", s, err)
	}
	if f := Read(); f.Kernel == "" || f.CPUs == 0 {
		t.Errorf("%+v", f)
	}
}
