package qemu

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// MetadataNamespace is the XML namespace of the element by which a domain's
// metadata names its switch and gives its ports their settings, by the names of
// their taps or, for taps that libvirt names, the MACs of their cards, and in the
// words of a port's SPEC. libvirt itself takes <vlan> and <port isolated='yes'/>
// only with bridges that it knows.
//
//	<metadata>
//	  <kvs:switch xmlns:kvs="https://github.com/kvswitch/kvswitch" name="kvs1">
//	    <kvs:port dev="web0" settings="vlan=10,isolated=on"/>
//	    <kvs:port mac="52:54:00:6a:1d:02" settings="vlan=20"/>
//	  </kvs:switch>
//	</metadata>
const MetadataNamespace = "https://github.com/kvswitch/kvswitch"

// An interface's <alias name="ua-switch-NAME"/>, or ua-switch-NAME_rest where
// rest makes it unique, says whose port it is; NotOurs as NAME is nobody's. It
// goes before the metadata.
const (
	aliasPrefix = "ua-switch-"
	NotOurs     = "none"
)

// maxDomainXML is the longest description of a domain that is read, in bytes;
// libvirt's own limit for one is 4 MiB.
const maxDomainXML = 4 << 20

// Domain is a guest of libvirt, as far as it concerns a switch.
type Domain struct {
	UUID string
	Taps []TapPort
}

// TapPort is an `<interface type='ethernet'>` of a libvirt domain that the
// switch is to have as a port.
type TapPort struct {
	Switch   string            // "" is the default one
	Tap      string            // name of the netdev; "" while libvirt has chosen none, and when it has forgotten it
	Script   bool              // its <script> attaches it (kvswitch-ifup) whenever libvirt makes the tap
	Settings []config.KeyValue // of the port, such as vlan=10; the switch checks them
	MAC      frame.MAC         // of the guest; zero if not given
	MTU      int               // 0 if not given
}

// Spec is what the switch is to attach.
func (p *TapPort) Spec() config.Spec {
	return config.Spec{Kind: config.NetdevKind, Name: p.Tap, Settings: p.Settings}
}

// label is what the interface is called in messages.
func (p *TapPort) label() string {
	if p.Tap == "" {
		return p.MAC.String()
	}
	return p.Tap
}

// domainXML is what matters here of libvirt's format (formatdomain).
type domainXML struct {
	XMLName  xml.Name `xml:"domain"`
	UUID     string   `xml:"uuid"`
	Metadata struct {
		Switch switchXML `xml:"https://github.com/kvswitch/kvswitch switch"`
	} `xml:"metadata"`
	Interfaces []interfaceXML `xml:"devices>interface"`
}

type switchXML struct {
	Name  string `xml:"name,attr"`
	Ports []struct {
		Dev      string `xml:"dev,attr"`
		MAC      string `xml:"mac,attr"`
		Settings string `xml:"settings,attr"`
	} `xml:"https://github.com/kvswitch/kvswitch port"`
}

// settings are what the metadata says of a tap's port: first by the tap's name,
// else by its card's MAC.
func (x *switchXML) settings(tap string, mac frame.MAC) string {
	for _, p := range x.Ports {
		if p.Dev != "" && p.Dev == tap {
			return p.Settings
		}
	}
	for _, p := range x.Ports {
		if m, err := frame.ParseMAC(p.MAC); err == nil && m == mac {
			return p.Settings
		}
	}
	return ""
}

type interfaceXML struct {
	Type string `xml:"type,attr"`
	MAC  struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	Script *struct {
		Path string `xml:"path,attr"`
	} `xml:"script"`
	VLAN *vlanXML `xml:"vlan"`
	Port struct {
		Isolated string `xml:"isolated,attr"`
	} `xml:"port"`
	MTU struct {
		Size string `xml:"size,attr"`
	} `xml:"mtu"`
	Alias struct {
		Name string `xml:"name,attr"`
	} `xml:"alias"`
}

type vlanXML struct {
	Trunk string `xml:"trunk,attr"`
	Tags  []struct {
		ID         string `xml:"id,attr"`
		NativeMode string `xml:"nativeMode,attr"`
	} `xml:"tag"`
}

// ScriptName is the program that attaches a tap as its <script>.
const ScriptName = "kvswitch-ifup"

// ParseDomain reads a libvirt domain and which taps a switch is to have of it.
// Interfaces of other types are not among them, nor those whose <script> is
// somebody else's.
func ParseDomain(r io.Reader) (*Domain, error) {
	limited := &io.LimitedReader{R: r, N: maxDomainXML + 1}
	var x domainXML
	err := xml.NewDecoder(limited).Decode(&x)
	switch {
	case limited.N <= 0:
		return nil, fmt.Errorf("read domain XML: longer than %d bytes", maxDomainXML)
	case err != nil:
		return nil, fmt.Errorf("read domain XML: %w", err)
	}
	d := &Domain{UUID: strings.ToLower(strings.TrimSpace(x.UUID))}
	for i, nic := range x.Interfaces {
		if nic.Type != "ethernet" || nic.Script != nil && path.Base(nic.Script.Path) != ScriptName {
			continue
		}
		p, err := nic.tapPort(&x.Metadata.Switch)
		if err != nil {
			return nil, fmt.Errorf("domain XML: interface %d: %w", i+1, err)
		}
		if p.Switch != NotOurs {
			d.Taps = append(d.Taps, p)
		}
	}
	return d, nil
}

func (x *interfaceXML) tapPort(domain *switchXML) (p TapPort, err error) {
	p.Switch = domain.Name
	if name, ok := strings.CutPrefix(x.Alias.Name, aliasPrefix); ok {
		p.Switch, _, _ = strings.Cut(name, "_")
	}
	if p.Switch == NotOurs {
		return p, nil
	}
	p.Tap, p.Script = x.Target.Dev, x.Script != nil
	if p.Tap != "" {
		if err := link.CheckName(p.Tap); err != nil {
			return p, err
		}
	}
	if strings.Contains(p.Tap, ",") {
		return p, fmt.Errorf("interface name %q: a comma can't be part of a port's name", p.Tap)
	}
	if x.MAC.Address != "" {
		if p.MAC, err = frame.ParseMAC(x.MAC.Address); err != nil {
			return p, err
		}
	}
	if x.MTU.Size != "" {
		if p.MTU, err = config.Number(x.MTU.Size, config.MinMTU, frame.MaxMTU); err != nil {
			return p, fmt.Errorf("<mtu> %q: %w", x.MTU.Size, err)
		}
	}
	if x.VLAN != nil {
		if p.Settings, err = x.VLAN.words(); err != nil {
			return p, fmt.Errorf("<vlan>: %w", err)
		}
	}
	if x.Port.Isolated == "yes" {
		p.Settings = append(p.Settings, config.KeyValue{Key: "isolated", Value: "on"})
	}
	if s := domain.settings(p.Tap, p.MAC); s != "" {
		words, err := config.ParseWords(strings.Split(s, ","))
		if err != nil {
			return p, fmt.Errorf("settings of %s: %w", p.label(), err)
		}
		p.Settings = append(p.Settings, words...)
	}
	return p, nil
}

// words are the SPEC's for a <vlan>: one tag alone is an access port; several,
// or trunk='yes', a trunk, on which at most one tag is the native VLAN.
func (x *vlanXML) words() ([]config.KeyValue, error) {
	var ids []string
	var native []config.KeyValue
	for _, tag := range x.Tags {
		if _, err := config.Number(tag.ID, vswitch.MinVID, vswitch.MaxVID); err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag.ID, err)
		}
		if slices.Contains(ids, tag.ID) {
			return nil, fmt.Errorf("tag %s is given twice", tag.ID)
		}
		ids = append(ids, tag.ID)
		switch tag.NativeMode {
		case "":
		case "untagged":
			native = append(native, config.KeyValue{Key: "native", Value: tag.ID})
		case "tagged":
			native = append(native, config.KeyValue{Key: "native-tagged", Value: tag.ID})
		default:
			return nil, fmt.Errorf("nativeMode %q: want tagged or untagged", tag.NativeMode)
		}
	}
	switch {
	case len(ids) == 0:
		return nil, errors.New("it has no <tag id='…'/>")
	case len(native) > 1:
		return nil, errors.New("more than one tag has a nativeMode")
	case len(ids) == 1 && x.Trunk != "yes" && len(native) == 0:
		return []config.KeyValue{{Key: "vlan", Value: ids[0]}}, nil
	}
	return append([]config.KeyValue{{Key: "trunk", Value: strings.Join(ids, "+")}}, native...), nil
}
