package qemu

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// MetadataNamespace is the XML namespace of the element by which a domain's
// metadata names its switch and gives its ports their settings, by the names of
// their taps and in the words of a port's SPEC. libvirt itself takes <vlan> and
// <port isolated='yes'/> only with bridges that it knows.
//
//	<metadata>
//	  <kvs:switch xmlns:kvs="https://github.com/kvswitch/kvswitch" name="kvs1">
//	    <kvs:port dev="web0" settings="vlan=10,isolated=on"/>
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

// TapPort is an `<interface type='ethernet'>` of a libvirt domain that the
// switch is to have as a port.
type TapPort struct {
	Switch   string            // "" is the default one
	Tap      string            // name of the netdev
	Settings []config.KeyValue // of the port, such as vlan=10; the switch checks them
	MAC      frame.MAC         // of the guest; zero if not given
	MTU      int               // 0 if not given
}

// Spec is what the switch is to attach.
func (p *TapPort) Spec() config.Spec {
	return config.Spec{Kind: config.NetdevKind, Name: p.Tap, Settings: p.Settings}
}

// domainXML is what matters here of libvirt's format (formatdomain).
type domainXML struct {
	XMLName  xml.Name `xml:"domain"`
	Metadata struct {
		Switch switchXML `xml:"https://github.com/kvswitch/kvswitch switch"`
	} `xml:"metadata"`
	Interfaces []interfaceXML `xml:"devices>interface"`
}

type switchXML struct {
	Name  string `xml:"name,attr"`
	Ports []struct {
		Dev      string `xml:"dev,attr"`
		Settings string `xml:"settings,attr"`
	} `xml:"https://github.com/kvswitch/kvswitch port"`
}

// settings are what the metadata says of a tap's port.
func (x *switchXML) settings(tap string) string {
	for _, p := range x.Ports {
		if p.Dev == tap {
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
	Script *struct{} `xml:"script"`
	VLAN   *vlanXML  `xml:"vlan"`
	Port   struct {
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

// ParseDomain reads a libvirt domain and returns the taps that a switch is to
// have. Interfaces of other types are not among them, nor those with a <script>,
// which attaches its tap itself (kvswitch-ifup).
func ParseDomain(r io.Reader) ([]TapPort, error) {
	limited := &io.LimitedReader{R: r, N: maxDomainXML + 1}
	var d domainXML
	err := xml.NewDecoder(limited).Decode(&d)
	switch {
	case limited.N <= 0:
		return nil, fmt.Errorf("read domain XML: longer than %d bytes", maxDomainXML)
	case err != nil:
		return nil, fmt.Errorf("read domain XML: %w", err)
	}
	ports := []TapPort{}
	for i, nic := range d.Interfaces {
		if nic.Type != "ethernet" || nic.Script != nil {
			continue
		}
		p, err := nic.tapPort(&d.Metadata.Switch)
		if err != nil {
			return nil, fmt.Errorf("domain XML: interface %d: %w", i+1, err)
		}
		if p.Switch != NotOurs {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

func (x *interfaceXML) tapPort(domain *switchXML) (p TapPort, err error) {
	p.Switch = domain.Name
	if name, ok := strings.CutPrefix(x.Alias.Name, aliasPrefix); ok {
		p.Switch, _, _ = strings.Cut(name, "_")
	}
	if p.Switch == NotOurs {
		return p, nil
	}
	p.Tap = x.Target.Dev
	if p.Tap == "" {
		return p, errors.New("it has no <target dev='…'/>: give it one")
	}
	if err := link.CheckName(p.Tap); err != nil {
		return p, err
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
	if s := domain.settings(p.Tap); s != "" {
		words, err := config.ParseWords(strings.Split(s, ","))
		if err != nil {
			return p, fmt.Errorf("settings of %s: %w", p.Tap, err)
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
