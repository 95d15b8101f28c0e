package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

// warn says on standard error what goes with a verb that has done its work.
func (a *app) warn(line string) { fmt.Fprintln(a.stderr, "kvswitch: warning:", line) }

// holdText is what there is to say of a port that a guard holds.
func holdText(name string, p *vswitch.PortSTPStatus) string {
	text := fmt.Sprintf("port %s is held by %s: %s", name, p.Held, p.Guard)
	if p.Mend != "" {
		text += ": " + p.Mend
	}
	return text
}

// A switch beyond the port speaks at once when the link comes up: what a guard
// makes of it is known within holdWait, which tests that can't count on time make
// longer.
var holdWait = 200 * time.Millisecond

const holdLook = 20 * time.Millisecond

// tellHolds waits for guards to trip, as long as one may, and says which ports
// they hold now. look brings the ports that the verb was about; held are those
// that were held before.
func (a *app) tellHolds(look func() ([]vswitch.PortStatus, error), held []string) {
	for end := time.Now().Add(holdWait); ; time.Sleep(holdLook) {
		ports, err := look()
		if err != nil {
			return // it has gone meanwhile: the verb itself was done
		}
		armed := false
		ports = slices.DeleteFunc(ports, func(p vswitch.PortStatus) bool { return slices.Contains(held, p.Name) })
		for i := range ports {
			p := &ports[i]
			if p.STP.Held != "" {
				a.warn(holdText(p.Name, &p.STP))
				held = append(held, p.Name)
				continue
			}
			armed = armed || p.Link == "up" && (p.STP.BPDUGuard || p.Settings["root-guard"] == "on")
		}
		if !armed || !time.Now().Before(end) {
			return
		}
	}
}

// tellHold is tellHolds for one port.
func (a *app) tellHold(ctx context.Context, c *ctl.Client, name string) {
	a.tellHolds(func() ([]vswitch.PortStatus, error) {
		p, err := c.Port(ctx, name)
		return []vswitch.PortStatus{p}, err
	}, nil)
}

// heldPorts are the names of the ports that guards hold.
func heldPorts(ctx context.Context, c *ctl.Client) (names []string) {
	ports, _ := c.Ports(ctx)
	for _, p := range ports {
		if p.STP.Held != "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// thenTellHolds does what changes many ports, and says which of them it cost.
func (a *app) thenTellHolds(ctx context.Context, c *ctl.Client, change func() error) error {
	held := heldPorts(ctx, c)
	if err := change(); err != nil {
		return err
	}
	a.tellHolds(func() ([]vswitch.PortStatus, error) { return c.Ports(ctx) }, held)
	return nil
}
