package main

import (
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

func (a *app) vlanCommand() *cobra.Command {
	return noun("vlan", "Show and change the VLANs of ports", a.vlanShowCommand(), a.vlanAddCommand(), a.vlanDelCommand())
}

func (a *app) vlanShowCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "show",
		Short: "Show the VLANs of every port",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			ports, err := c.VLANs(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(ports)
			}
			var rows [][]string
			for _, p := range ports {
				pvid := "-"
				if p.PVID != 0 {
					pvid = count(p.PVID)
				}
				rows = append(rows, []string{p.Port, p.Mode, pvid, orDash(strings.Join(p.Untagged, "+")), orDash(strings.Join(p.Tagged, "+"))})
			}
			return a.table("PORT MODE PVID UNTAGGED TAGGED", rows)
		},
	})
}

func (a *app) vlanAddCommand() *cobra.Command {
	var pvid, untagged bool
	c := a.talks(&cobra.Command{
		Use:               "add PORT VID[-VID] [--pvid] [--untagged]",
		Short:             "Make a port a member of VLANs",
		Args:              portArgs(2, 2),
		ValidArgsFunction: a.completePorts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := ctl.NewVLANs{Port: args[0], VIDs: args[1], PVID: pvid, Untagged: untagged}
			if _, err := v.Set(); err != nil {
				return usageError{err}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.AddVLANs(cmd.Context(), v)
		},
	})
	c.Flags().BoolVar(&pvid, "pvid", false, "untagged frames that come in are in this VLAN")
	c.Flags().BoolVar(&untagged, "untagged", false, "frames leave without a tag")
	return c
}

func (a *app) vlanDelCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:               "del PORT VID[-VID]",
		Short:             "End a port's membership of VLANs",
		Args:              portArgs(2, 2),
		ValidArgsFunction: a.completePorts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := config.ParseVIDs(args[1]); err != nil {
				return usageError{err}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.DelVLANs(cmd.Context(), args[0], args[1])
		},
	})
}
