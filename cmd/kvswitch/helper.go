package main

import (
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"

	"github.com/spf13/cobra"
)

// helperCommand is a drop-in for qemu-bridge-helper. Its arguments are not
// flags of ours: QEMU writes them, in its own form. kvswitch-bridge-helper is the
// same as a program of its own, fit to be run by who wants nothing else.
func (a *app) helperCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bridge-helper [--use-vnet] --br=SWITCH --fd=N",
		Short: "Give QEMU a tap of the switch: -netdev bridge,br=SWITCH,helper=",
		Long: `Give QEMU a tap of the switch, in the place of qemu-bridge-helper; the program
kvswitch-bridge-helper does the same and nothing else:

  qemu-system-x86_64 -netdev bridge,id=n0,br=kvs0,helper=/usr/local/bin/kvswitch-bridge-helper …

It needs no privilege and no setuid bit: the running switch makes the tap for
users whom /etc/kvswitch/bridge.conf, else QEMU's bridge.conf, allows it.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, words []string) error {
			if len(words) == 1 && (words[0] == "--help" || words[0] == "-h") {
				return cmd.Help()
			}
			h, err := bridgehelper.ParseArgs(a.takeRunDir(words))
			if err != nil {
				return usagef("bridge-helper: %w", err)
			}
			return bridgehelper.Run(cmd.Context(), a.runDir, h)
		},
	}
}

// takeRunDir takes our own flag off the words that begin with it: with QEMU's
// words unparsed, cobra also hands over what stands before the verb.
func (a *app) takeRunDir(words []string) []string {
	for len(words) > 0 {
		dir, joined := strings.CutPrefix(words[0], "--run-dir=")
		switch {
		case joined:
			a.runDir, words = dir, words[1:]
		case words[0] == "--run-dir" && len(words) > 1:
			a.runDir, words = words[1], words[2:]
		default:
			return words
		}
	}
	return words
}
