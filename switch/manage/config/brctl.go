package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kvswitch/kvswitch/stp"
)

// Times are a bridge's times in seconds.
type Times struct{ Hello, MaxAge, ForwardDelay int }

// BrctlTime sets one of t, by its key of `stp set`, as brctl does, which takes
// each for itself. The standard has conditions between them (802.1D-2004 17.14):
//
//	2 × (forward delay − 1) ≥ max age ≥ 2 × (hello time + 1)
//
// so the others follow, as little as they must. What brctl takes and the standard
// doesn't (a forward delay of 0, with which the kernel's bridge has ports forward
// at once, or 2) becomes the nearest that it does.
func BrctlTime(t Times, key, value string) (Times, error) {
	d, err := ParseSeconds(value)
	if err != nil {
		return t, err
	}
	v := int(d / time.Second)
	check := func(lo, hi int) error {
		if v < lo || v > hi {
			return fmt.Errorf("%q: want %d to %d seconds", value, lo, hi)
		}
		return nil
	}
	switch key {
	case "forward-delay":
		err = check(0, stp.MaxForwardDelay)
		t.ForwardDelay = max(v, stp.MinForwardDelay)
		t.MaxAge = min(t.MaxAge, 2*(t.ForwardDelay-1))
		t.Hello = min(t.Hello, t.MaxAge/2-1)
	case "max-age":
		err = check(stp.MinMaxAge, stp.MaxMaxAge)
		t.MaxAge = v
		t.ForwardDelay = max(t.ForwardDelay, (v+1)/2+1)
		t.Hello = min(t.Hello, v/2-1)
	case "hello":
		err = check(stp.MinHello, stp.MaxHello)
		t.Hello = v
		t.MaxAge = max(t.MaxAge, 2*(v+1))
		t.ForwardDelay = max(t.ForwardDelay, (t.MaxAge+1)/2+1)
	default:
		err = errors.New("no such time")
	}
	return t, err
}

// Words are the times as `stp set` takes them.
func (t Times) Words() []KeyValue {
	return []KeyValue{
		{"hello", strconv.Itoa(t.Hello)},
		{"max-age", strconv.Itoa(t.MaxAge)},
		{"forward-delay", strconv.Itoa(t.ForwardDelay)},
	}
}

// Surprises are what BrctlTime made of was beyond what it was asked for, a line
// each.
func (t Times) Surprises(was Times, key, value string) (lines []string) {
	before, now := was.Words(), t.Words()
	for i, w := range now {
		switch asked, _ := ParseSeconds(value); {
		case w.Key == key:
			if got, _ := ParseSeconds(w.Value); got != asked {
				lines = slices.Insert(lines, 0, fmt.Sprintf("%s is %ss: IEEE 802.1D has no less; edge ports, as guests' are, don't wait for it", key, w.Value))
			}
		case before[i].Value != w.Value:
			lines = append(lines, fmt.Sprintf("%s went from %ss to %ss with it: IEEE 802.1D wants 2×(forward-delay−1) ≥ max-age ≥ 2×(hello+1)", w.Key, before[i].Value, w.Value))
		}
	}
	return lines
}
