package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Config is a whole switch as a file, or the flags of `kvswitch run`, describe
// it. Make one with Default and change it with Set and Parse, which remember
// what was said and what was left at its default.
type Config struct {
	Switch  vswitch.Config     // all but Logger
	Host    string             // the host interface's name; "" = the switch's; HostOff = none
	HostSet []vswitch.KeyValue // the host interface's settings, such as vlan=10
	MTU     int                // the host interface's; 0 = the first uplink's, else 1500
	Metrics string             // ADDR:PORT for Prometheus; "" = none
	Ports   []Port
	Static  []Static

	said map[string]bool // keys of scalar words that were given
}

// HostOff as Config.Host is a switch without a host interface.
const HostOff = "off"

// Port is a port of a Config.
type Port struct {
	Spec
	Uplink bool
}

// config is the port's configuration, checked when the port was parsed.
func (p Port) config() (vswitch.PortConfig, error) {
	cfg, err := p.Spec.PortConfig()
	cfg.Uplink = p.Uplink
	return cfg, err
}

// Static is a static entry of the forwarding table.
type Static struct {
	MAC  frame.MAC
	VLAN uint16
	Port string
}

func (e Static) String() string { return fmt.Sprintf("%v vlan %d on %s", e.MAC, e.VLAN, e.Port) }

// Default is a switch of which nothing was said.
func Default() *Config {
	c := &Config{said: map[string]bool{}}
	c.Switch.BusyPoll = vswitch.DefaultBusyPoll
	c.Switch.Name = vswitch.DefaultName
	c.Switch.Ageing = vswitch.DefaultAgeing
	c.Switch.Workers = 1
	c.Switch.MaxEntries = 65536
	c.Switch.STP = vswitch.STPConfig{Mode: "rstp", Priority: vswitch.DefaultPriority, PrioritySet: true,
		Hello: 2 * time.Second, MaxAge: 20 * time.Second, ForwardDelay: 15 * time.Second, TxHold: 6}
	return c
}

// HostName is the host interface's name, "" if there is none.
func (c *Config) HostName() string {
	switch c.Host {
	case "":
		return c.Switch.Name
	case HostOff:
		return ""
	}
	return c.Host
}

// hostKind checks the words of the host interface.
var hostKind = Kinds{{Name: "host", Netdev: true}}

// setHost reads NAME[,key=value]... or off.
func (c *Config) setHost(text string) error {
	name, pairs, err := splitWords(text)
	if err != nil {
		return err
	}
	spec, err := hostKind.spec("host", name, pairs)
	c.Host, c.HostSet = name, spec.Settings
	return err
}

// HostConfig is the host interface's configuration as a port.
func (c *Config) HostConfig() (vswitch.PortConfig, error) {
	cfg := vswitch.NewPortConfig("host")
	err := cfg.Set(c.HostSet...)
	return cfg, err
}

// Said reports whether a word was given rather than left at its default.
func (c *Config) Said(key string) bool { return c.said[key] }

// Set applies one word of the file, such as ageing, with its value as text. On
// error c is unchanged; the error says what the word takes.
func (c *Config) Set(key, value string) error {
	k := findScalar(key)
	if k == nil {
		return fmt.Errorf("unknown key %q; known: %s", key, strings.Join(knownKeys(), " "))
	}
	next := *c
	if err := k.set(&next, value); err != nil {
		return fmt.Errorf("%s %q: %w", key, value, err)
	}
	*c = next
	c.said[key] = true
	return nil
}

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
			return n + words(c.HostSet)
		}
		return HostOff
	}},
	number("mtu", false, 68, frame.MaxMTU, func(c *Config) *int { return &c.MTU }),
	{"stp", true, func(c *Config, v string) error {
		if v != "rstp" && v != "stp" && v != "off" {
			return errors.New("want rstp, stp or off")
		}
		c.Switch.STP.Mode = v
		return nil
	}, func(c *Config) string { return c.Switch.STP.Mode }},
	{"priority", true, func(c *Config, v string) error {
		n, err := strconv.ParseUint(v, 0, 16)
		if err != nil {
			return errors.New("want a number from 0 to 65535")
		}
		c.Switch.STP.Priority, c.Switch.STP.PrioritySet = uint16(n), true
		return nil
	}, func(c *Config) string { return strconv.Itoa(int(c.Switch.STP.Priority)) }},
	seconds("hello", 1, 10, func(c *Config) *time.Duration { return &c.Switch.STP.Hello }),
	seconds("max-age", 6, 40, func(c *Config) *time.Duration { return &c.Switch.STP.MaxAge }),
	seconds("forward-delay", 4, 30, func(c *Config) *time.Duration { return &c.Switch.STP.ForwardDelay }),
	number("tx-hold", true, 1, 10, func(c *Config) *int { return &c.Switch.STP.TxHold }),
	seconds("ageing", 1, 1000000, func(c *Config) *time.Duration { return &c.Switch.Ageing }),
	number("max-entries", false, 1, 4<<20, func(c *Config) *int { return &c.Switch.MaxEntries }),
	{"vlan-filtering", false, func(c *Config, v string) error {
		on, err := parseOnOff(v)
		c.Switch.VLANFiltering = on
		return err
	}, func(c *Config) string {
		return map[bool]string{true: "on", false: "off"}[c.Switch.VLANFiltering]
	}},
	number("workers", false, 1, vswitch.MaxWorkers, func(c *Config) *int { return &c.Switch.Workers }),
	{"busy-poll", false, func(c *Config, v string) error {
		if v == "always" {
			c.Switch.BusyPoll = vswitch.BusyPollAlways
			return nil
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

func number(name string, live bool, lo, hi int, field func(*Config) *int) scalar {
	return scalar{name, live, func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("want a number from %d to %d", lo, hi)
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

// ParseSeconds reads a time in whole seconds: a Go duration such as 300s, or a
// bare number of seconds.
func ParseSeconds(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil {
		if d, err = time.ParseDuration(v + "s"); err != nil {
			return 0, fmt.Errorf("%q is not a time such as 300s", v)
		}
	}
	if d%time.Second != 0 || d < 0 {
		return 0, fmt.Errorf("%q is not a whole number of seconds", v)
	}
	return d, nil
}

func parseOnOff(v string) (bool, error) {
	switch v {
	case "on", "yes", "true", "1":
		return true, nil
	case "off", "no", "false", "0":
		return false, nil
	}
	return false, errors.New("want on or off")
}

// checkAddr refuses what can't be listened on.
func checkAddr(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("want ADDR:PORT such as 127.0.0.1:9200")
	}
	return nil
}

// AddPort adds a port; its name must be new.
func (c *Config) AddPort(p Port) error {
	for _, q := range c.Ports {
		if q.Name == p.Name {
			return fmt.Errorf("port %s is given twice", p.Name)
		}
	}
	c.Ports = append(c.Ports, p)
	return nil
}

// AddStatic adds a static entry; its address must be new in its VLAN.
func (c *Config) AddStatic(e Static) error {
	switch {
	case !e.MAC.IsUnicast():
		return errors.New("an fdb entry needs a mac, a station's")
	case e.Port == "":
		return errors.New("an fdb entry needs a port")
	}
	for _, q := range c.Static {
		if q.MAC == e.MAC && q.VLAN == e.VLAN {
			return fmt.Errorf("fdb entry %v in VLAN %d is given twice", e.MAC, e.VLAN)
		}
	}
	c.Static = append(c.Static, e)
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

// Check looks at what words say together: a port can't have the name of the
// host interface.
func (c *Config) Check() error {
	if host := c.HostName(); host != "" {
		if err := CheckNetdevName(host); err != nil {
			return fmt.Errorf("host interface: %w: choose another with host, or off", err)
		}
		if c.port(host) != nil {
			return fmt.Errorf("port %s has the name of the host interface: choose another with host, or off", host)
		}
	}
	return nil
}
