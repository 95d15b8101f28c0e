package qemu

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Holder is the process that holds a tap's other end: QEMU, once a guest runs.
type Holder struct {
	PID    int
	Name   string // QEMU's -name; the program's if it is none
	UUID   string // QEMU's -uuid; may be empty
	Queues int    // of the tap
	VHost  VHost  // whether vhost_net works its rings; auto = some of the process's taps have it
}

// Holders finds who holds the taps of this network namespace, by the taps' names.
// It looks at every process: /proc tells which tap a descriptor is for.
// Those of other users take CAP_SYS_PTRACE to look at; what can't be seen is left
// out.
func Holders() map[string]Holder { return holders("/proc") }

func holders(proc string) map[string]Holder {
	found := map[string]Holder{}
	own, err := os.Readlink(filepath.Join(proc, "self/ns/net"))
	if err != nil {
		return found
	}
	dirs, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Names of taps mean something in one namespace only.
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err != nil || ns != own {
			continue
		}
		taps, vhosts := openTaps(dir)
		queues := 0
		for _, n := range taps {
			queues += n
		}
		for tap, n := range taps {
			h := Holder{PID: pid, Queues: n, VHost: VHostAuto}
			switch {
			case vhosts == 0:
				h.VHost = VHostOff
			case vhosts >= queues:
				h.VHost = VHostOn
			}
			h.Name, h.UUID = identify(dir)
			found[tap] = h
		}
	}
	return found
}

// openTaps counts a process's descriptors of each tap, and of /dev/vhost-net.
func openTaps(dir string) (taps map[string]int, vhosts int) {
	fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		switch target, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name())); target {
		case vhostPath:
			vhosts++
		case "/dev/net/tun":
			info, _ := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
			for line := range strings.Lines(string(info)) {
				if name, ok := strings.CutPrefix(line, "iff:"); ok && strings.TrimSpace(name) != "" {
					if taps == nil {
						taps = map[string]int{}
					}
					taps[strings.TrimSpace(name)]++
				}
			}
		}
	}
	return taps, vhosts
}

// identify is what a QEMU was called by those who started it.
func identify(dir string) (name, uuid string) {
	line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	args := strings.Split(string(line), "\x00")
	for i, a := range args[:max(0, len(args)-1)] {
		switch a {
		case "-name", "--name":
			name = guestName(args[i+1])
		case "-uuid", "--uuid":
			uuid = args[i+1]
		}
	}
	if name == "" {
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		name = string(bytes.TrimSpace(comm))
	}
	return name, uuid
}

// guestName is the guest's in QEMU's -name: NAME[,key=value]... or guest=NAME among
// the keys. A comma in it is written twice.
func guestName(option string) string {
	const comma = "\x00"
	for i, part := range strings.Split(strings.ReplaceAll(option, ",,", comma), ",") {
		part = strings.ReplaceAll(part, comma, ",")
		if name, ok := strings.CutPrefix(part, "guest="); ok {
			return name
		}
		if i == 0 && !strings.Contains(part, "=") {
			return part
		}
	}
	return ""
}

// AddHeld adds the guests that hold the taps of ports to those that were plugged
// in: attached by a script, the bridge helper, libvirt or by hand. stations are
// the addresses that were learned on a port.
func AddHeld(list []GuestNIC, ports []string, stations func(port string) []string) []GuestNIC {
	known := map[string]bool{}
	for _, n := range list {
		known[n.Port] = true
	}
	held := Holders()
	for _, port := range ports {
		h, ok := held[port]
		if !ok || known[port] {
			continue
		}
		n := GuestNIC{Guest: h.Name, UUID: h.UUID, PID: h.PID, NIC: NIC{Port: port, Queues: h.Queues, VHost: h.VHost == VHostOn}, GuestMACs: stations(port)}
		if h.VHost == VHostAuto {
			n.VHostReason = "some of the guest's cards have it"
		}
		list = append(list, n)
	}
	return list
}
