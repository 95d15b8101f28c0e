package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kvswitch/kvswitch/fdb"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Config is a whole switch as a file, or the flags of `kvswitch run`, describe
// it. Make one with Default and change it with Set and Parse, which remember
// what was said and what was left at its default.
type Config struct {
	Switch   vswitch.Config // all but Logger
	Host     string         // the host interface's name; "" = the switch's; HostOff = none
	HostSet  []KeyValue     // the host interface's settings, such as vlan=10
	MTU      int            // the host interface's; 0 = the first uplink's, else 1500
	InKernel string         // InKernelAuto or InKernelOff: forward in the kernel what can be
	Group    string         // whose members may control the switch; "" = the process's
	Metrics  string         // ADDR:PORT for Prometheus; "" = none
	Ports    []Port
	Static   []Static

	said      map[string]bool // keys of scalar words that were given
	unstarted bool            // no switch that runs: Nothing made it
}

// MinMTU is the least MTU of anything with IP on it (RFC 791), and the kernel's
// least for Ethernet (ETH_MIN_MTU).
const MinMTU = 68

// Values of Config.InKernel.
const (
	InKernelAuto = "auto"
	InKernelOff  = "off"
)

// HostOff as Config.Host is a switch without a host interface.
const HostOff = "off"

// Port is a port of a Config.
type Port struct {
	Spec
	Uplink  bool
	Network bool // as vswitch.PortConfig has it: by the device, not by a word

	also []string // other names that a running port goes by
}

// config is the port's configuration, checked when the port was parsed.
func (p Port) config() (vswitch.PortConfig, error) {
	cfg, err := p.Spec.PortConfig()
	cfg.Uplink, cfg.Network = p.Uplink, p.Network
	return cfg, err
}

// Static is a static entry of the forwarding table.
type Static struct {
	MAC  frame.MAC
	VLAN uint16
	Port string
}

func (e Static) String() string { return fmt.Sprintf("%v vlan %d on %s", e.MAC, e.VLAN, e.Port) }

// Default is a switch with every default.
func Default() *Config {
	return &Config{said: map[string]bool{}, InKernel: InKernelAuto, Switch: vswitch.Config{
		Name:       vswitch.DefaultName,
		Ageing:     vswitch.DefaultAgeing,
		MaxEntries: fdb.DefaultMax,
		Workers:    1,
		BusyPoll:   vswitch.DefaultBusyPoll,
		STP:        vswitch.DefaultSTP(),
	}}
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
	err := SetPort(&cfg, c.HostSet...)
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

// Check looks at what words say together: a port can't have the name of the
// host interface.
func (c *Config) Check() error {
	if host := c.HostName(); host != "" {
		if err := CheckNetdevName(host); err != nil {
			return fmt.Errorf("host interface: %w: choose another with host, or off", err)
		}
		if c.Port(host) != nil {
			return fmt.Errorf("port %s has the name of the host interface: choose another with host, or off", host)
		}
	}
	return nil
}
