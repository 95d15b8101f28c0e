package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

func (a *app) monitorCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:       "monitor [port|stp|fdb|guard|vm]...",
		Short:     "Print events as they happen, a line each",
		ValidArgs: []string{"port", "stp", "fdb", "guard", "vm"},
		Args:      args(0, -1),
		RunE: func(cmd *cobra.Command, groups []string) error {
			for _, g := range groups {
				if !slices.Contains(cmd.ValidArgs, g) {
					return usagef("monitor: unknown kind of event %q: want %s", g, strings.Join(cmd.ValidArgs, ", "))
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return c.Events(ctx, func(e vswitch.Event) error {
				kind, _, _ := strings.Cut(e.Event, ".")
				if len(groups) > 0 && !slices.Contains(groups, kind) && e.Event != vswitch.EventEventsLost {
					return nil
				}
				return a.printEvent(e)
			})
		},
	})
}

// printEvent prints one event and lets it out at once.
func (a *app) printEvent(e vswitch.Event) error {
	if a.json {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", b)
	} else {
		fmt.Fprintln(a.out, eventLine(e))
	}
	return a.out.Flush()
}

func eventLine(e vswitch.Event) string {
	line := e.Time.Format("15:04:05.000000") + " " + e.Event
	add := func(key, value string) {
		if value != "" {
			line += " " + key + "=" + value
		}
	}
	add("port", e.Port)
	if e.MAC != nil {
		add("mac", e.MAC.String())
	}
	if e.VLAN != 0 {
		add("vlan", count(e.VLAN))
	}
	add("from", e.From)
	add("to", e.To)
	if e.Count != 0 {
		add("count", count(e.Count))
	}
	if e.Reason != "" {
		add("reason", fmt.Sprintf("%q", e.Reason))
	}
	return line
}

func (a *app) statsCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:               "stats [NAME]",
		Short:             "Show counters, those of guests' rings too, and every reason for which frames were dropped",
		Args:              portArgs(0, 1),
		ValidArgsFunction: a.completePorts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := stats(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			return a.printStats(list)
		},
	})
}

// stats are the counters of all ports, or of the one in args.
func stats(ctx context.Context, c *ctl.Client, args []string) ([]ctl.PortStats, error) {
	if len(args) == 0 {
		return c.Stats(ctx)
	}
	if _, err := c.Port(ctx, args[0]); err != nil {
		return nil, err
	}
	list, err := c.Stats(ctx)
	return slices.DeleteFunc(list, func(p ctl.PortStats) bool { return p.Name != args[0] }), err
}

func (a *app) printStats(list []ctl.PortStats) error {
	var rows, drops, rings [][]string
	for _, p := range list {
		rows = append(rows, []string{p.Name, count(p.RX.Frames), count(p.RX.Bytes), count(p.RX.Dropped), count(p.TX.Frames), count(p.TX.Bytes), count(p.TX.Dropped)})
		for _, reason := range slices.SortedFunc(maps.Keys(p.Drops), cmp.Compare) {
			drops = append(drops, []string{p.Name, reason, count(p.Drops[reason])})
		}
		for _, r := range p.Rings {
			rings = append(rings, []string{p.Name, count(r.Ring), count(r.Frames), count(r.Kicks), count(r.Calls), count(r.Polls), count(r.Errors)})
		}
	}
	if err := a.table("NAME RX-FRAMES RX-BYTES RX-DROPPED TX-FRAMES TX-BYTES TX-DROPPED", rows); err != nil {
		return err
	}
	for _, more := range []struct {
		head string
		rows [][]string
	}{
		{"NAME RING FRAMES KICKS CALLS POLLS ERRORS", rings},
		{"NAME DROP-REASON FRAMES", drops},
	} {
		if len(more.rows) == 0 {
			continue
		}
		fmt.Fprintln(a.out)
		if err := a.table(more.head, more.rows); err != nil {
			return err
		}
	}
	return nil
}
