package main

import (
	"strconv"

	"github.com/kvswitch/kvswitch/switch/manage/config"

	"github.com/spf13/cobra"
)

// brctlCommands are brctl's remaining words, with the same arguments but the
// bridge's name.
func (a *app) brctlCommands() []*cobra.Command {
	bridge := func(use, short, key string) *cobra.Command {
		return a.talks(&cobra.Command{
			Use: use, Short: short, Args: args(1, 1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.setSTP(cmd, config.KeyValue{Key: key, Value: args[0]})
			},
		})
	}
	port := func(use, short, key string, convert func(string) (string, error)) *cobra.Command {
		return a.talks(&cobra.Command{
			Use: use, Short: short, Args: portArgs(2, 2), ValidArgsFunction: a.completePorts(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				value, err := convert(args[1])
				if err != nil {
					return err
				}
				return a.setPort(cmd, args[0], key+"="+value)
			},
		})
	}
	asIs := func(v string) (string, error) { return v, nil }
	return []*cobra.Command{
		a.setageingCommand(),
		bridge("setbridgeprio PRIO", "Set the bridge's priority, 0–65535", "priority"),
		bridge("setfd TIME", "Set the bridge's forward delay in seconds", "forward-delay"),
		bridge("sethello TIME", "Set the bridge's hello time in seconds", "hello"),
		bridge("setmaxage TIME", "Set the bridge's max age in seconds", "max-age"),
		port("setpathcost PORT COST", "Set a port's path cost", "cost", asIs),
		port("setportprio PORT PRIO", "Set a port's priority, 0–63 as brctl counts", "prio", brctlPriority),
		port("hairpin PORT on|off", "Let frames leave where they came in", "hairpin", asIs),
	}
}

// brctlPriority turns brctl's six bits of port priority (0–63, default 32) into
// the standard's (0–240 in steps of 16, default 128): the port id is the same.
func brctlPriority(v string) (string, error) {
	n, err := strconv.ParseUint(v, 0, 8)
	if err != nil || n > 63 || n%4 != 0 {
		return "", usagef("setportprio: %q: want a multiple of 4 from 0 to 60, as brctl counts (`stp port NAME prio=` takes 0 to 240)", v)
	}
	return strconv.FormatUint(n*4, 10), nil
}

func (a *app) setageingCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "setageing TIME",
		Short: "Set how long a station is remembered, in seconds",
		Args:  args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scratch := config.Default()
			if err := scratch.Set("ageing", args[0]); err != nil {
				return usagef("setageing: %w", err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.SetAgeing(cmd.Context(), scratch.Switch.Ageing)
		},
	})
}
