package stp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The part of the script player that looks and prints.

// roleLetter and stateLetter abbreviate as the scripts do.
func roleLetter(r Role) string {
	return [...]string{RoleDisabled: "X", RoleRoot: "R", RoleDesignated: "D", RoleAlternate: "A", RoleBackup: "B"}[r]
}

func stateLetter(s State) string {
	return [...]string{StateDisabled: "x", StateDiscarding: "d", StateLearning: "l", StateForwarding: "f",
		StateListening: "li", StateBlocking: "b"}[s]
}

// check compares one bridge's ports, cost and root.
func (p *player) check(args []string) error {
	if len(args) < 2 || args[1] != "=" {
		return errors.New("want NAME = ROLE/STATE...")
	}
	br, err := p.bridge(args[0])
	if err != nil {
		return err
	}
	args = args[2:]
	st := br.b.Status()
	var want []string
	for len(args) > 0 && strings.Contains(args[0], "/") {
		want, args = append(want, args[0]), args[1:]
	}
	var got []string
	for i, ps := range st.Ports {
		got = append(got, roleLetter(ps.Role)+"/"+stateLetter(ps.State))
		if q := br.ports[i]; q.forwarding != (ps.State == StateForwarding) || q.learning != (ps.State == StateForwarding || ps.State == StateLearning) {
			return fmt.Errorf("port %v is %v, and its datapath was told learning %v, forwarding %v", q, ps.State, q.learning, q.forwarding)
		}
	}
	if len(want) > 0 && !slices.Equal(got, want) {
		return fmt.Errorf("got %s", strings.Join(got, " "))
	}
	for ; len(args) >= 2; args = args[2:] {
		switch args[0] {
		case "cost":
			if n, err := strconv.ParseUint(args[1], 10, 32); err != nil || st.RootPathCost != uint32(n) {
				return fmt.Errorf("got root path cost %d", st.RootPathCost)
			}
		case "root":
			root, err := p.bridge(args[1])
			if err != nil {
				return err
			}
			if st.RootID != root.cfg.ID {
				return fmt.Errorf("got root %v", st.RootID)
			}
		default:
			return fmt.Errorf("unknown word %q", args[0])
		}
	}
	if len(args) != 0 {
		return fmt.Errorf("what is %q?", args)
	}
	return nil
}

// doUntil lets time pass in milliseconds until a check holds.
func (p *player) doUntil(args []string) error {
	i := slices.Index(args, "within")
	if i < 0 {
		return errors.New("want CHECK within DURATION")
	}
	d, err := parseDuration(args[i+1:])
	if err != nil {
		return err
	}
	p.begin()
	for end := p.s.now + d; ; p.s.run(time.Millisecond) {
		err := p.check(args[:i])
		if err == nil || p.s.now >= end {
			return err
		}
	}
}

func (p *player) forget() {
	for _, br := range p.s.bridges {
		for _, q := range br.ports {
			q.flushes = 0
		}
	}
}

// doFlushed compares the ports flushed since the last time.
func (p *player) doFlushed(want []string) error {
	var got []string
	for _, br := range p.s.bridges {
		for _, q := range br.ports {
			if q.flushes > 0 {
				got = append(got, q.String())
			}
		}
	}
	p.forget()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %s", strings.Join(got, " "))
	}
	return nil
}

// checkStats compares counters, and other fields of the port's status, by their
// names in JSON.
func (q *simPort) checkStats(args []string) error {
	st := q.br.b.Status().Ports[q.num-1]
	var fields, counters map[string]any
	for _, v := range []struct {
		from any
		to   *map[string]any
	}{{st, &fields}, {st.Counters, &counters}} {
		b, err := json.Marshal(v.from)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, v.to); err != nil {
			return err
		}
	}
	for _, a := range args {
		key, want, _ := strings.Cut(a, "=")
		got, ok := counters[key]
		if !ok {
			got, ok = fields[key]
		}
		if !ok {
			return fmt.Errorf("no counter %q", key)
		}
		if fmt.Sprint(got) != want {
			return fmt.Errorf("got %s=%v", key, got)
		}
	}
	return nil
}

// print writes an output of a bridge into the transcript.
func (p *player) print(br *simBridge, o Output) {
	line := func(format string, a ...any) {
		fmt.Fprintf(&p.out, "%9.3f  %s\n", p.s.now.Seconds(), fmt.Sprintf(format, a...))
	}
	at := func(num uint16) string {
		q := br.ports[num-1]
		lan := "-"
		if q.lan != nil {
			lan = q.lan.name
		}
		return fmt.Sprintf("%v.%d (%s)", br, num, lan)
	}
	switch o := o.(type) {
	case Flush:
		line("%s flushes its addresses", at(o.Port))
	case SetAgeing:
		if o.Seconds == 0 {
			line("%v ages addresses as usual", br)
		} else {
			line("%v ages addresses in %d s", br, o.Seconds)
		}
	case SendBPDU:
		if m, err := ParseBPDU(o.PDU); err != nil {
			p.t.Errorf("%s sends % x: %v", at(o.Port), o.PDU, err)
		} else if p.trace {
			line("%s sends %v", at(o.Port), m)
		}
	case Event:
		switch o.Kind {
		case RoleChanged, StateChanged:
			q := br.ports[o.Port-1]
			now := fmt.Sprintf("%v, %v", o.Role, o.State)
			if o.Role == RoleDisabled {
				now = "disabled"
			}
			if p.shown[q] != now {
				p.shown[q] = now
				line("%s is %s", at(o.Port), now)
			}
		case RootChanged:
			if o.Port == 0 {
				line("%v is the root", br)
			} else {
				line("%v takes %v for the root, by %s", br, o.Root, at(o.Port))
			}
		case TopologyChanged:
			line("%s topology change %s", at(o.Port), o.Reason)
		case GuardTripped:
			line("%s %v: %s", at(o.Port), o.Guard, o.Reason)
		case GuardCleared:
			line("%s %v lets go", at(o.Port), o.Guard)
		case VersionChanged:
			line("%s speaks %s now", at(o.Port), o.Reason)
		case EdgeChanged:
			line("%s is %s", at(o.Port), map[string]string{"edge": "an edge port", "not edge": "not an edge port"}[o.Reason])
		}
	}
}

// show prints every bridge and port.
func (p *player) show() {
	for _, br := range p.s.bridges {
		if br.dead {
			fmt.Fprintf(&p.out, "         %v is dead\n", br)
			continue
		}
		st := br.b.Status()
		fmt.Fprintf(&p.out, "         %v %v root %v cost %d\n", br, st.BridgeID, st.RootID, st.RootPathCost)
		for i, ps := range st.Ports {
			lan := "-"
			if l := br.ports[i].lan; l != nil {
				lan = l.name
			}
			fmt.Fprintf(&p.out, "           %d (%s) %-10v %-10v %v cost %d, designated %v %v at %d\n",
				ps.Port, lan, ps.Role, ps.State, ps.ID, ps.Cost, ps.DesignatedBridge, ps.DesignatedPort, ps.DesignatedCost)
		}
	}
}
