package machine

import (
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Facts describe the machine. Every field that could not be read is empty.
type Facts struct {
	Kernel      string            `json:"kernel"`      // release
	Build       string            `json:"build"`       // of the kernel: date, preemption model
	CPU         string            `json:"cpu"`         // model name
	CPUs        int               `json:"cpus"`        // that this process may use
	Hypervisor  bool              `json:"hypervisor"`  // whether it runs in a virtual machine
	MemoryMiB   int               `json:"memory_mib"`  //
	Clock       string            `json:"clock"`       // kernel clock source
	Mitigations map[string]string `json:"mitigations"` // vulnerability → state, those not affected left out
	Settings    map[string]string `json:"settings"`    // kernel parameters that the figures depend on
	Go          string            `json:"go"`          // version that built the bench
	Arch        string            `json:"arch"`
}

// settings are recorded because they change the results of one contender or
// another. bridge-nf-call is recorded per topology, since each namespace has its
// own.
var settings = []string{
	"sys/net/core/netdev_max_backlog",
	"sys/net/core/netdev_budget",
	"sys/net/core/bpf_jit_enable",
	"sys/net/core/rmem_max",
	"sys/net/core/wmem_max",
	"sys/kernel/unprivileged_bpf_disabled",
	"cmdline",
}

// Read gathers the facts.
func Read() Facts { return read(os.DirFS("/")) }

func read(root fs.FS) Facts {
	line := func(path string) string {
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	f := Facts{
		Kernel: line("proc/sys/kernel/osrelease"),
		Build:  line("proc/sys/kernel/version"),
		CPUs:   runtime.NumCPU(),
		Clock:  line("sys/devices/system/clocksource/clocksource0/current_clocksource"),
		Go:     runtime.Version(), Arch: runtime.GOARCH,
		Mitigations: map[string]string{},
		Settings:    map[string]string{},
	}
	for l := range strings.Lines(line("proc/cpuinfo")) {
		key, value, _ := strings.Cut(l, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			f.CPU = strings.TrimSpace(value)
		case "flags":
			f.Hypervisor = strings.Contains(" "+value+" ", " hypervisor ")
		}
	}
	for l := range strings.Lines(line("proc/meminfo")) {
		if v, ok := strings.CutPrefix(l, "MemTotal:"); ok {
			f.MemoryMiB = kibibytes(v) / 1024
		}
	}
	const dir = "sys/devices/system/cpu/vulnerabilities"
	entries, _ := fs.ReadDir(root, dir)
	for _, e := range entries {
		if s := line(dir + "/" + e.Name()); s != "" && s != "Not affected" {
			f.Mitigations[e.Name()] = s
		}
	}
	for _, s := range settings {
		if v := line("proc/" + s); v != "" {
			f.Settings[strings.ReplaceAll(strings.TrimPrefix(s, "sys/"), "/", ".")] = v
		}
	}
	return f
}

// kibibytes reads "  123 kB".
func kibibytes(s string) int {
	n := 0
	for _, c := range strings.TrimSpace(s) {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
