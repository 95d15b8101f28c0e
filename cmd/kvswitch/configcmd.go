package main

import (
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/switch/manage/daemon"

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
	}), a.configCheckCommand())
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a file for run --config, a line for each mistake",
		Long: `Say what is wrong with a file for run --config: a line for each mistake, with its
place, and exit status 1. It needs no switch and changes nothing. Whether the
host has what the file names is known only when the switch starts.`,
		Args: args(1, 1),
		RunE: func(_ *cobra.Command, words []string) error {
			return a.check(&daemon.Options{File: words[0]})
		},
	}
}

// check prints what is wrong with the options of a daemon.
func (a *app) check(o *daemon.Options) error {
	r, err := o.Check()
	var wrong *daemon.OptionError
	if errors.As(err, &wrong) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	for _, line := range r.Lines() {
		fmt.Fprintln(a.stderr, line)
	}
	if len(r.Mistakes) > 0 {
		return errSaid
	}
	what := o.File
	if what == "" {
		what = "flags"
	}
	_, err = fmt.Fprintf(a.out, "%s: ok\n", what)
	return err
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
