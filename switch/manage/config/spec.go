package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Kind is a way to attach something to the switch.
type Kind struct {
	Name   string   // "netdev"
	Netdev bool     // a port's name is the name of a network interface
	Alt    bool     // or one of its other names (altname), which may be longer
	Keys   []string // words of a SPEC that Open understands, besides PortKeyNames
	Usage  string   // one line of help: what it attaches and what its keys mean
	// Check says what is wrong with the words that are Open's to judge, as far as
	// that can be known without opening anything; nil = nothing is known.
	Check func(Spec) error
	// Open makes the port. It must leave nothing behind when it fails.
	Open func(Spec) (frame.Port, error)
}

// Kinds are the ways of attachment that a program offers.
type Kinds []Kind

// Find returns the kind with that name.
func (ks Kinds) Find(name string) (Kind, error) {
	for _, k := range ks {
		if k.Name == name {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("unknown kind of port %q: want one of %s", name, ks.names())
}

func (ks Kinds) names() string {
	var names []string
	for _, k := range ks {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// Open makes the port that a SPEC describes.
func (ks Kinds) Open(s Spec) (frame.Port, error) {
	k, err := ks.Find(s.Kind)
	if err != nil {
		return nil, err
	}
	return k.Open(s)
}

// Spec is a port as an operator describes it: KIND:NAME[,key=value]...
type Spec struct {
	Kind, Name string
	Device     []KeyValue // words for the kind's Open
	Settings   []KeyValue // words for SetPort
}

// ParseSpec reads KIND:NAME[,key=value]... and checks all of it: kind, name,
// keys, and the values of settings. Values of the kind's own keys are its
// Open's to judge.
func (ks Kinds) ParseSpec(text string) (Spec, error) {
	kind, rest, ok := strings.Cut(text, ":")
	if !ok {
		return Spec{}, fmt.Errorf("parse port %q: want KIND:NAME[,key=value]..., such as netdev:tap0; kinds: %s", text, ks.names())
	}
	name, pairs, err := splitWords(rest)
	if err != nil {
		return Spec{}, fmt.Errorf("parse port %q: %w", text, err)
	}
	s, err := ks.spec(kind, name, pairs)
	if err != nil {
		return Spec{}, fmt.Errorf("parse port %q: %w", text, err)
	}
	return s, nil
}

// splitWords takes NAME[,key=value]... apart.
func splitWords(text string) (name string, words []KeyValue, err error) {
	parts := strings.Split(text, ",")
	words, err = ParseWords(parts[1:])
	return parts[0], words, err
}

// TapKind is the kind of port of a tap that the switch makes.
const TapKind = "tap"

// NetdevKind is the kind of port of a network interface, and UplinkKind the one
// that an uplink has when nothing else is said.
const (
	NetdevKind = "netdev"
	UplinkKind = NetdevKind
)

// ParseUplink reads a port that leads to other switches: IF[,key=value]..., or a
// whole SPEC.
func (ks Kinds) ParseUplink(text string) (Spec, error) {
	if name, _, _ := strings.Cut(text, ","); !strings.Contains(name, ":") {
		text = UplinkKind + ":" + text
	}
	return ks.ParseSpec(text)
}

// spec builds a Spec from its parts and checks them.
func (ks Kinds) spec(kind, name string, pairs []KeyValue) (Spec, error) {
	k, err := ks.Find(kind)
	if err != nil {
		return Spec{}, err
	}
	check := CheckName
	if k.Netdev {
		check = CheckNetdevName
	}
	if k.Alt {
		check = CheckInterface
	}
	if err := check(name); err != nil {
		return Spec{}, err
	}
	s := Spec{Kind: kind, Name: name}
	settings := PortKeyNames()
	pairs = slices.Clone(pairs)
	for i, p := range pairs {
		if !slices.Contains(k.Keys, p.Key) {
			p.Key = PortKey(p.Key)
			pairs[i] = p
		}
		own := slices.Contains(k.Keys, p.Key)
		if !own && !slices.Contains(settings, p.Key) {
			known := slices.Concat(k.Keys, settings)
			return Spec{}, fmt.Errorf("unknown key %q for a %s port; known: %s", p.Key, kind, strings.Join(known, " "))
		}
		if slices.ContainsFunc(pairs[:i], func(q KeyValue) bool { return q.Key == p.Key }) {
			return Spec{}, fmt.Errorf("%s is given twice", p.Key)
		}
		if err := checkValue(p.Value); err != nil {
			return Spec{}, fmt.Errorf("%s=%q: %w", p.Key, p.Value, err)
		}
		if own {
			s.Device = append(s.Device, p)
		} else {
			s.Settings = append(s.Settings, p)
		}
	}
	if _, err := s.PortConfig(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

// checkValue refuses what a SPEC could not be written with again.
func checkValue(v string) error {
	if !utf8.ValidString(v) {
		return errors.New("it is not UTF-8 text")
	}
	for _, r := range v {
		if r == ',' || unicode.IsControl(r) {
			return fmt.Errorf("a value can't hold the character %q", r)
		}
	}
	return nil
}

// String is the SPEC that ParseSpec reads back as s.
func (s Spec) String() string { return s.Attachment() + JoinWords(s.Settings) }

// Attachment is the SPEC without its settings: what can't change while the
// port is attached.
func (s Spec) Attachment() string { return s.Kind + ":" + s.Name + JoinWords(s.Device) }

// Value is the value of one of the kind's own keys, "" if it was not given.
func (s Spec) Value(key string) string {
	for _, p := range s.Device {
		if p.Key == key {
			return p.Value
		}
	}
	return ""
}

// PortConfig is the port's configuration: the defaults and s.Settings, with the
// attachment noted so that Running can find it again.
func (s Spec) PortConfig() (vswitch.PortConfig, error) {
	cfg := vswitch.NewPortConfig(s.Kind)
	cfg.Spec = s.Attachment()
	err := SetPort(&cfg, s.Settings...)
	return cfg, err
}

// maxNetdevName is IFNAMSIZ without its terminating zero.
const maxNetdevName = 15

// maxName is the longest name of anything else: it shows in tables, and in the
// names of sockets.
const maxName = 63

// CheckNetdevName refuses what the kernel would not take as the name of a
// network interface (dev_valid_name), and the names that a SPEC can't hold.
func CheckNetdevName(name string) error {
	if len(name) > maxNetdevName {
		return fmt.Errorf("name %q is too long: a network interface's has at most %d bytes", name, maxNetdevName)
	}
	if strings.Contains(name, "%") {
		return fmt.Errorf("name %q: a network interface's can't hold %q", name, '%')
	}
	return CheckName(name)
}

// maxAltName is ALTIFNAMSIZ without its terminating zero.
const maxAltName = 127

// CheckInterface refuses what can't be the name of a network interface that is
// there, nor another name that it goes by (altname), and what a SPEC can't hold.
func CheckInterface(name string) error {
	switch {
	case len(name) <= maxNetdevName:
		return CheckNetdevName(name)
	case len(name) > maxAltName:
		return fmt.Errorf("name %q is too long: a network interface's has at most %d bytes, an altname %d", name, maxNetdevName, maxAltName)
	}
	return checkRunes(name)
}

// CheckName refuses names that could not be told apart from the words around
// them, or that would leave a directory when used in a path.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is missing")
	case len(name) > maxName:
		return fmt.Errorf("name %q is too long: at most %d bytes", name, maxName)
	case name == "." || name == "..":
		return fmt.Errorf("name %q is not allowed", name)
	}
	return checkRunes(name)
}

func checkRunes(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("name %q is not UTF-8 text", name)
	}
	for _, r := range name {
		if strings.ContainsRune("/:,=", r) || unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("name %q: it can't hold the character %q", name, r)
		}
	}
	return nil
}
