package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

// brctlCommands are brctl's words that change something, with brctl's arguments:
// the bridge's name comes first, or is left out where it is not needed.
func (a *app) brctlCommands() []*cobra.Command {
	// word is a verb with n arguments after the bridge's name, the first of which
	// is a port's name if it is named so.
	word := func(use, short string, n int, do func(*cobra.Command, []string) error) *cobra.Command {
		c := a.talks(&cobra.Command{
			Use: use, Short: short, Args: args(n, n+1),
			RunE: func(cmd *cobra.Command, words []string) error {
				words, err := a.ofBridge(cmd, words, n)
				if err != nil {
					return err
				}
				return do(cmd, words)
			},
		})
		if n == 2 {
			c.ValidArgsFunction = a.completePorts(1)
		}
		return c
	}
	port := func(use, short, key string, convert func(string) (string, error)) *cobra.Command {
		return word(use, short, 2, func(cmd *cobra.Command, words []string) error {
			if err := config.CheckName(words[0]); err != nil {
				return usagef("%s: %w", cmd.Name(), err)
			}
			value, err := convert(words[1])
			if err != nil {
				return err
			}
			return a.setPort(cmd, words[0], key+"="+value)
		})
	}
	asIs := func(v string) (string, error) { return v, nil }
	return []*cobra.Command{
		a.addifCommand(), a.delifCommand(),
		noBridge("addbr", "Say how a switch is started: it is a process",
			"start it with `kvswitch run --name NAME`, or for good with `systemctl enable --now kvswitch@NAME`"),
		noBridge("delbr", "Say how a switch is ended",
			"end its `kvswitch run` (SIGTERM, Ctrl-C), or `systemctl disable --now kvswitch@NAME`"),
		word("setageing [SWITCH] TIME", "Set how long a station is remembered, in seconds; 0 learns nothing", 1, a.setageing),
		word("setbridgeprio [SWITCH] PRIO", "Set the bridge's priority, 0–65535", 1, a.setTree("priority")),
		word("setfd [SWITCH] TIME", "Set the bridge's forward delay in seconds", 1, a.setTree("forward-delay")),
		word("sethello [SWITCH] TIME", "Set the bridge's hello time in seconds", 1, a.setTree("hello")),
		word("setmaxage [SWITCH] TIME", "Set the bridge's max age in seconds", 1, a.setTree("max-age")),
		port("setpathcost [SWITCH] PORT COST", "Set a port's path cost", "cost", asIs),
		port("setportprio [SWITCH] PORT PRIO", "Set a port's priority, 0–63 as brctl counts", "prio", brctlPriority),
		port("hairpin [SWITCH] PORT on|off", "Let frames leave where they came in", "hairpin", asIs),
	}
}

// noBridge is a word of brctl's that has no meaning for a process, and says what
// has.
func noBridge(word, short, how string) *cobra.Command {
	return &cobra.Command{
		Use: word + " NAME", Short: short, Args: portArgs(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, words []string) error {
			return fmt.Errorf("%s %s: a switch is a process: %s", word, words[0], strings.ReplaceAll(how, "NAME", words[0]))
		},
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

func (a *app) setageing(cmd *cobra.Command, words []string) error {
	ageing, err := config.ParseAgeing(words[0])
	if err != nil {
		return usagef("setageing %q: %w", words[0], err)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.SetAgeing(cmd.Context(), ageing)
}

// setTree is a verb that sets one parameter of the tree.
func (a *app) setTree(key string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, words []string) error {
		return a.setSTP(cmd, config.KeyValue{Key: key, Value: words[0]})
	}
}

func (a *app) addifCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "addif [SWITCH] IF...",
		Short: "Attach network interfaces, as brctl addif does",
		Args:  args(1, -1),

		ValidArgsFunction: completeInterfaces(math.MaxInt),
		RunE: func(cmd *cobra.Command, words []string) error {
			names, err := a.interfaces(cmd, words)
			if err != nil {
				return err
			}
			for i, name := range names {
				err := a.addPort(cmd, ctl.NewPort{Spec: config.Spec{Kind: config.NetdevKind, Name: name}.String()})
				if err != nil {
					return errors.Join(err, a.delPorts(cmd, names[:i])) // all of them or none
				}
			}
			return nil
		},
	})
}

func (a *app) delifCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:               "delif [SWITCH] IF...",
		Short:             "Detach network interfaces, as brctl delif does",
		Args:              args(1, -1),
		ValidArgsFunction: a.completePortsBut("host", 1),
		RunE: func(cmd *cobra.Command, words []string) error {
			names, err := a.interfaces(cmd, words)
			if err != nil {
				return err
			}
			return a.delPorts(cmd, names)
		},
	})
}

// interfaces are the names of interfaces among the words of addif and delif: the
// first of several is the bridge's, unless -s names another.
func (a *app) interfaces(cmd *cobra.Command, words []string) ([]string, error) {
	names := words
	if !cmd.Flags().Changed("switch") || words[0] == a.name {
		var err error
		if names, err = a.ofBridge(cmd, words, 1); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		check := config.CheckName
		if cmd.Name() == "addif" {
			check = config.CheckInterface
		}
		if err := check(name); err != nil {
			return nil, usagef("%s: %w", cmd.Name(), err)
		}
	}
	return names, nil
}

// delPorts detaches ports, as many as can be.
func (a *app) delPorts(cmd *cobra.Command, names []string) (err error) {
	if len(names) == 0 {
		return nil
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	for _, name := range names {
		err = errors.Join(err, c.DelPort(cmd.Context(), name))
	}
	return err
}
