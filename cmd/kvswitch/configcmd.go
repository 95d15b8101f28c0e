package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	return noun("config", "Print the running configuration, check a file", a.talks(&cobra.Command{
		Use:   "dump",
		Short: "Print the running state as a file for run --config",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			text, err := c.Config(cmd.Context())
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		},
	}))
}

func (a *app) reloadCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "reload",
		Short: "Make the switch read its --config file anew: all of the difference is applied, or nothing",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var changes []string
			err = a.thenTellHolds(cmd.Context(), c, func() (err error) {
				changes, err = c.Reload(cmd.Context())
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string][]string{"changes": changes})
			}
			if len(changes) == 0 {
				fmt.Fprintln(a.out, "nothing to change")
			}
			for _, ch := range changes {
				fmt.Fprintln(a.out, ch)
			}
			return nil
		},
	})
}
