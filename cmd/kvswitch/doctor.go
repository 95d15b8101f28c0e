package main

import (
	"fmt"
	"path/filepath"

	"github.com/kvswitch/kvswitch/switch/host/doctor"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"

	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this host has and lacks, a line each, with the mend",
		Args:  args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			dir, err := filepath.Abs(a.runDir)
			if err != nil {
				return err
			}
			findings := doctor.ThisHost(dir, qemu.VHostAvailable).Examine()
			if a.json {
				return a.printJSON(findings)
			}
			for _, f := range findings {
				line := fmt.Sprintf("%-8s %-17s %s", f.Status, f.Check, f.Text)
				if f.Mend != "" {
					line += " -> " + f.Mend
				}
				fmt.Fprintln(a.out, line)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return c
}
