package afpacket

import (
	"fmt"
	"os"
	"strings"
)

// A device that comes up gives itself an IPv6 link-local address, and then the
// host speaks on the segment: duplicate address detection, multicast reports,
// router solicitations. With address generation off ("none") it stays silent.
// Unlike disable_ipv6 that takes no address away, so nothing is lost if the
// process is killed before it can put the setting back.

const addrGenNone = "1" // IN6_ADDR_GEN_MODE_NONE

func addrGenFile(name string) string {
	return "/proc/sys/net/ipv6/conf/" + name + "/addr_gen_mode"
}

// silence turns the generation of IPv6 addresses on the device off, and reports
// the setting that was there, "" if nothing was changed. The caller's thread
// must be in the device's network namespace.
func silence(name string) (before string, err error) {
	file := addrGenFile(name)
	old, err := os.ReadFile(file)
	if err != nil {
		return "", nil // a kernel without IPv6, or a device without it
	}
	before = strings.TrimSpace(string(old))
	if before == addrGenNone {
		return "", nil
	}
	if err := os.WriteFile(file, []byte(addrGenNone), 0); err != nil {
		return "", fmt.Errorf("turn IPv6 address generation off: %w", err)
	}
	return before, nil
}

// unsilence puts the setting back, which makes the kernel generate the address.
func unsilence(name, before string) {
	if before != "" {
		_ = os.WriteFile(addrGenFile(name), []byte(before), 0)
	}
}
