package config

import (
	"strconv"
	"time"

	"github.com/kvswitch/kvswitch/stp"
)

// BrctlForwardDelay is the forward delay, in words, that brctl's setfd means with
// value. What the kernel's bridge takes and 802.1D-2004 (table 17-1) doesn't — 0,
// with which ports of that bridge forward at once, to 3 — is the least that it does:
// less reports it. What is no time is left for others to refuse.
func BrctlForwardDelay(value string) (word string, less bool) {
	d, err := ParseSeconds(value)
	if err != nil || d >= stp.MinForwardDelay*time.Second {
		return value, false
	}
	return strconv.Itoa(stp.MinForwardDelay), true
}
