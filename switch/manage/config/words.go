package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
)

// KeyValue is one word of a SPEC, or of a verb: key=value.
type KeyValue struct{ Key, Value string }

// ParseWords reads key=value words. Keys must differ; what they mean is not
// looked at.
func ParseWords(texts []string) ([]KeyValue, error) {
	var list []KeyValue
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not key=value", text)
		}
		if slices.ContainsFunc(list, func(kv KeyValue) bool { return kv.Key == key }) {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		list = append(list, KeyValue{key, value})
	}
	return list, nil
}

// JoinWords writes words as a SPEC has them: ",key=value" for each.
func JoinWords(list []KeyValue) string {
	var b strings.Builder
	for _, w := range list {
		b.WriteString("," + w.Key + "=" + w.Value)
	}
	return b.String()
}

// onOff reads a flag, in any of the words that brctl, bridge, ip and YAML 1.1 have
// for it. What is neither is for the caller to refuse.
func onOff(text string) (on, ok bool) {
	switch strings.ToLower(text) {
	case "on", "yes", "true", "1", "y":
		return true, true
	case "off", "no", "false", "0", "n":
		return false, true
	}
	return false, false
}

// Flag reads on or off, for the values that only a kind's Open knows.
func Flag(text string) (bool, error) {
	on, ok := onOff(text)
	if !ok {
		return false, fmt.Errorf("%q is neither on nor off", text)
	}
	return on, nil
}

func onOffText(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// Number reads a number from lo to hi: decimal, also with zeros in front, or with
// 0x, 0o or 0b as brctl's and YAML's readers take them, and with underscores
// between digits. The error says what is wanted, not what was given.
func Number(text string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		var v int64
		v, err = strconv.ParseInt(text, 0, strconv.IntSize)
		n = int(v)
	}
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("want a number from %d to %d", lo, hi)
	}
	return n, nil
}

// units are systemd's names of those that Go calls otherwise.
var units = strings.NewReplacer(" ", "", "sec", "s", "min", "m", "hr", "h")

// ParseSeconds reads a time in whole seconds: a Go duration such as 300s, a bare
// number of seconds as brctl has it, also with decimals that are zero, or a time
// as systemd writes it, such as 5min or 1min 30s.
func ParseSeconds(text string) (time.Duration, error) {
	plain := units.Replace(text)
	d, err := time.ParseDuration(plain)
	if err != nil {
		if d, err = time.ParseDuration(plain + "s"); err != nil {
			return 0, fmt.Errorf("%q is not a time such as 300s", text)
		}
	}
	if d%time.Second != 0 || d < 0 {
		return 0, fmt.Errorf("%q is not a whole number of seconds", text)
	}
	return d, nil
}

// ParseVID reads one VLAN id, 1–4094.
func ParseVID(text string) (uint16, error) {
	v, err := strconv.ParseUint(text, 10, 16)
	if err != nil || v < vswitch.MinVID || v > vswitch.MaxVID {
		return 0, fmt.Errorf("parse VLAN id %q: want a number from %d to %d", text, vswitch.MinVID, vswitch.MaxVID)
	}
	return uint16(v), nil
}

// ParseVIDs reads a set of VLAN ids as VIDSet.String writes it; commas serve as
// well as plus signs. An empty set is an error.
func ParseVIDs(text string) (vswitch.VIDSet, error) {
	var s vswitch.VIDSet
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == ',' }) {
		first, last, isRange := strings.Cut(part, "-")
		lo, err := ParseVID(first)
		if err != nil {
			return vswitch.VIDSet{}, err
		}
		hi := lo
		if isRange {
			if hi, err = ParseVID(last); err != nil {
				return vswitch.VIDSet{}, err
			}
		}
		if hi < lo {
			return vswitch.VIDSet{}, fmt.Errorf("parse VLAN range %q: %d is below %d", part, hi, lo)
		}
		s.AddRange(lo, hi)
	}
	if s == (vswitch.VIDSet{}) {
		return s, fmt.Errorf("parse VLAN list %q: it names no VLAN; write ids and ranges such as 10-20+30", text)
	}
	return s, nil
}

// Hint adds to what a switch refuses what to type about it, if anything helps.
func Hint(err error) error {
	var member *vswitch.NotMemberError
	var entry *vswitch.NoEntryError
	switch {
	case errors.Is(err, vswitch.ErrHostPort):
		return fmt.Errorf("%w; start with --no-host to have none", err)
	case errors.As(err, &member):
		return fmt.Errorf("%w; `vlan add` it first", err)
	case errors.As(err, &entry) && entry.Assumed:
		return fmt.Errorf("%w; name another with --vlan", err)
	}
	return err
}

// OneLine is an error as every answer has it: on one line.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
