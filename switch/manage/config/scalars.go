package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// scalar is a word of the file that has one value.
type scalar struct {
	name string
	live bool // can change while the switch runs
	set  func(*Config, string) error
	get  func(*Config) string
}

// scalars are in the order in which Dump writes them.
var scalars = []scalar{
	{"name", false, func(c *Config, v string) error {
		c.Switch.Name = v
		return CheckName(v)
	}, func(c *Config) string { return c.Switch.Name }},
	{"mac", false, func(c *Config, v string) (err error) {
		c.Switch.MAC, err = frame.ParseMAC(v)
		if err == nil && !c.Switch.MAC.IsUnicast() {
			err = errors.New("it is no station's address; want one such as 52:54:00:12:34:56")
		}
		return err
	}, func(c *Config) string {
		if c.Switch.MAC.IsZero() {
			return ""
		}
		return c.Switch.MAC.String()
	}},
	{"host", true, (*Config).setHost, func(c *Config) string {
		if n := c.HostName(); n != "" {
			return n + JoinWords(c.HostSet)
		}
		return HostOff
	}},
	number("mtu", false, MinMTU, frame.MaxMTU, func(c *Config) *int { return &c.MTU }),
	{"stp", true, func(c *Config, v string) error {
		for _, m := range []vswitch.STPMode{vswitch.ModeRSTP, vswitch.ModeSTP, vswitch.ModeOff} {
			if m.String() == strings.ToLower(v) {
				c.Switch.STP.Mode = m
				return nil
			}
		}
		// As brctl, ifupdown and netplan have it.
		on, ok := onOff(v)
		if !ok {
			return errors.New("want rstp, stp or off")
		}
		c.Switch.STP.Mode = vswitch.ModeOff
		if on {
			c.Switch.STP.Mode = vswitch.ModeRSTP
		}
		return nil
	}, func(c *Config) string { return c.Switch.STP.Mode.String() }},
	{"priority", true, func(c *Config, v string) error {
		n, err := strconv.ParseUint(v, 0, 16)
		if err != nil {
			return errors.New("want a number from 0 to 65535")
		}
		c.Switch.STP.Priority, c.Switch.STP.PrioritySet = uint16(n), true
		return nil
	}, func(c *Config) string { return strconv.Itoa(int(c.Switch.STP.Priority)) }},
	seconds("hello", stp.MinHello, stp.MaxHello, func(c *Config) *time.Duration { return &c.Switch.STP.Hello }),
	seconds("max-age", stp.MinMaxAge, stp.MaxMaxAge, func(c *Config) *time.Duration { return &c.Switch.STP.MaxAge }),
	forwardDelay(seconds("forward-delay", 0, stp.MaxForwardDelay, func(c *Config) *time.Duration { return &c.Switch.STP.ForwardDelay })),
	number("tx-hold", true, stp.MinTxHold, stp.MaxTxHold, func(c *Config) *int { return &c.Switch.STP.TxHold }),
	{"ageing", true, func(c *Config, v string) (err error) {
		c.Switch.Ageing, err = ParseAgeing(v)
		return err
	}, func(c *Config) string { return strconv.Itoa(int(max(c.Switch.Ageing, 0)/time.Second)) + "s" }},
	number("max-entries", false, 1, fdb.MaxEntries, func(c *Config) *int { return &c.Switch.MaxEntries }),
	{"vlan-filtering", false, func(c *Config, v string) error {
		on, ok := onOff(v)
		if !ok {
			return errors.New("want on or off")
		}
		c.Switch.VLANFiltering = on
		return nil
	}, func(c *Config) string { return onOffText(c.Switch.VLANFiltering) }},
	number("workers", false, 1, vswitch.MaxWorkers, func(c *Config) *int { return &c.Switch.Workers }),
	{"busy-poll", false, func(c *Config, v string) error {
		switch v {
		case "always":
			c.Switch.BusyPoll = vswitch.BusyPollAlways
			return nil
		case "off":
			v = "0"
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > time.Second {
			return errors.New("want a duration up to 1s such as 20us, 0, or always")
		}
		c.Switch.BusyPoll = d
		return nil
	}, func(c *Config) string {
		if c.Switch.BusyPoll < 0 {
			return "always"
		}
		return strings.ReplaceAll(c.Switch.BusyPoll.String(), "µ", "u")
	}},
	{"in-kernel", false, func(c *Config, v string) error {
		if v != InKernelAuto && v != InKernelOff {
			return errors.New("want auto or off")
		}
		c.InKernel = v
		return nil
	}, func(c *Config) string { return c.InKernel }},
	{"group", false, func(c *Config, v string) error {
		c.Group = v
		return CheckName(v)
	}, func(c *Config) string { return c.Group }},
	{"metrics", false, func(c *Config, v string) error {
		c.Metrics = v
		return checkAddr(v)
	}, func(c *Config) string { return c.Metrics }},
}

// lists are the words of the file that have many values.
var lists = []string{"uplinks", "ports", "fdb"}

func findScalar(name string) *scalar {
	for i := range scalars {
		if scalars[i].name == name {
			return &scalars[i]
		}
	}
	return nil
}

func knownKeys() []string {
	var names []string
	for _, k := range scalars {
		names = append(names, k.name)
	}
	return append(names, lists...)
}

// number is a word whose value is a number, written unless it is 0.
func number(name string, live bool, lo, hi int, field func(*Config) *int) scalar {
	return scalar{name, live, func(c *Config, v string) error {
		n, err := Number(v, lo, hi)
		if err != nil {
			return err
		}
		*field(c) = n
		return nil
	}, func(c *Config) string {
		if n := *field(c); n != 0 {
			return strconv.Itoa(n)
		}
		return ""
	}}
}

// seconds is a live duration in whole seconds; a bare number counts as seconds,
// as brctl has it.
func seconds(name string, lo, hi int, field func(*Config) *time.Duration) scalar {
	return scalar{name, true, func(c *Config, v string) error {
		d, err := ParseSeconds(v)
		if err != nil || d < time.Duration(lo)*time.Second || d > time.Duration(hi)*time.Second {
			return fmt.Errorf("want %ds to %ds, in whole seconds", lo, hi)
		}
		*field(c) = d
		return nil
	}, func(c *Config) string { return strconv.Itoa(int(*field(c)/time.Second)) + "s" }}
}

// ParseAgeing reads an ageing time; 0 is that nothing is learned, as brctl has it.
func ParseAgeing(v string) (time.Duration, error) {
	d, err := ParseSeconds(v)
	switch {
	case err != nil || d > fdb.MaxAgeing*time.Second:
		return 0, fmt.Errorf("want 1s to %ds, in whole seconds, or 0 to learn nothing", fdb.MaxAgeing)
	case d == 0:
		return vswitch.AgeingOff, nil
	}
	return d, nil
}

// forwardDelay makes of less than the standard has, which brctl and ifupdown take
// (0 is common where there is no tree), the least that it has.
func forwardDelay(k scalar) scalar {
	set := k.set
	k.set = func(c *Config, v string) error {
		err := set(c, v)
		if err == nil {
			c.Switch.STP.ForwardDelay = max(c.Switch.STP.ForwardDelay, stp.MinForwardDelay*time.Second)
		}
		return err
	}
	return k
}

// checkAddr refuses what can't be listened on.
func checkAddr(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("want ADDR:PORT such as 127.0.0.1:9744")
	}
	return nil
}

// STPKeys are the words of `stp set`.
var STPKeys = []string{"mode", "priority", "hello", "max-age", "forward-delay", "tx-hold"}

// SetSTP applies one word of `stp set`. On error c is unchanged.
func SetSTP(c *vswitch.STPConfig, key, value string) error {
	if !slices.Contains(STPKeys, key) {
		return fmt.Errorf("unknown key %q; known: %s", key, strings.Join(STPKeys, " "))
	}
	word := key
	if key == "mode" {
		word = "stp" // as the file calls it
	}
	k := findScalar(word)
	var whole Config
	whole.Switch.STP = *c
	if err := k.set(&whole, value); err != nil {
		return fmt.Errorf("%s %q: %w", key, value, err)
	}
	*c = whole.Switch.STP
	return nil
}
