package daemon

import (
	"crypto/sha256"
	"os"
	"strings"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

// ownMAC is the address of a switch that has no uplink to take one from. It is
// the same at every start without being stored: made from the machine's id and
// all that tells this switch from others on the same machine — its name, its
// run directory, and its network namespace if that is not the machine's own.
// It has the locally administered bit.
func ownMAC(name, runDir string) frame.MAC {
	seed := []string{"kvswitch own address", machineID(), name}
	if runDir != ctl.DefaultRunDir {
		seed = append(seed, "dir", runDir)
	}
	own, err1 := os.Readlink("/proc/self/ns/net")
	first, err2 := os.Readlink("/proc/1/ns/net")
	if err1 == nil && err2 == nil && own != first {
		seed = append(seed, "netns", own)
	}
	sum := sha256.Sum256([]byte(strings.Join(seed, "\x00")))
	mac := frame.MAC(sum[:6])
	mac[0] = mac[0]&^3 | 2
	return mac
}

// machineID is what tells this machine from others (machine-id(5)); where
// there is none, its host name has to do.
func machineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) > 0 {
			return strings.TrimSpace(string(b))
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
