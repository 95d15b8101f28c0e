package main

import (
	"fmt"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/daemon"

	"github.com/spf13/cobra"
)

func (a *app) restoreCommand() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "restore [NAME]",
		Short: "Undo what a switch that runs no more has left behind",
		Long: `Undo what the switch NAME has left behind, or all that run no more: remove the
host interfaces that were kept (run --keep-host), and with them their addresses. A
switch that runs keeps what it has. It prints what it did.`,
		Args:              args(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
				if err := config.CheckName(name); err != nil {
					return usagef("restore: %w", err)
				}
			}
			done, err := daemon.Restore(a.runDir, name, dry)
			for _, line := range done {
				fmt.Fprintln(a.out, line)
			}
			return err
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only print what would be done")
	return c
}
