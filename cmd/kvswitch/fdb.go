package main

import (
	"fmt"
	"strconv"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

func (a *app) fdbCommand() *cobra.Command {
	return noun("fdb", "Show and change the forwarding table", a.fdbShowCommand(),
		a.fdbAddCommand(), a.fdbDelCommand(), a.fdbFlushCommand())
}

// portFlag and vlanFlag are the values of --port and --vlan, zero if the flag was
// not given. An empty value, as a script's unset variable makes it, is refused:
// it would mean every port and every VLAN.
type (
	portFlag string
	vlanFlag uint16
)

func (p *portFlag) Set(text string) error {
	*p = portFlag(text)
	return config.CheckName(text)
}

func (p *portFlag) String() string { return string(*p) }
func (p *portFlag) Type() string   { return "string" }

func (v *vlanFlag) Set(text string) error {
	vid, err := config.ParseVID(text)
	*v = vlanFlag(vid)
	return err
}

func (v *vlanFlag) String() string { return strconv.Itoa(int(*v)) }
func (v *vlanFlag) Type() string   { return "string" }

// portAndVLAN gives a verb the flags --port and --vlan.
func (a *app) portAndVLAN(c *cobra.Command, port *portFlag, vlan *vlanFlag) *cobra.Command {
	if port != nil {
		c.Flags().Var(port, "port", "a port's name")
		c.RegisterFlagCompletionFunc("port", a.completePorts(1))
	}
	c.Flags().Var(vlan, "vlan", "a VLAN's id, 1–4094")
	return c
}

func macArg(text string) (frame.MAC, error) {
	m, err := frame.ParseMAC(text)
	if err != nil {
		return m, usageError{err}
	}
	return m, nil
}

func (a *app) fdbShowCommand() *cobra.Command {
	var port portFlag
	var vlan vlanFlag
	return a.portAndVLAN(a.shows(&cobra.Command{
		Use:   "show [--port P] [--vlan V]",
		Short: "Show which station is on which port",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			entries, err := c.FDB(cmd.Context(), string(port), uint16(vlan))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(entries)
			}
			var rows [][]string
			for _, e := range entries {
				rows = append(rows, []string{e.MAC.String(), count(e.VLAN), e.Port, e.Type, fmt.Sprintf("%.1fs", e.AgeS)})
			}
			return a.table("MAC VLAN PORT TYPE AGE", rows)
		},
	}), &port, &vlan)
}

func (a *app) fdbAddCommand() *cobra.Command {
	var port portFlag
	var vlan vlanFlag
	var static bool
	c := a.portAndVLAN(a.talks(&cobra.Command{
		Use:   "add MAC --port P [--vlan V] [--static]",
		Short: "Put a station on a port",
		Args:  args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mac, err := macArg(args[0])
			if err != nil {
				return err
			}
			if !mac.IsUnicast() {
				return usagef("fdb add %v: it is no station's address", mac)
			}
			if port == "" {
				return usagef("fdb add: which port? give --port")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.AddFDB(cmd.Context(), ctl.NewEntry{MAC: mac, VLAN: uint16(vlan), Port: string(port), Static: static})
		},
	}), &port, &vlan)
	c.Flags().BoolVar(&static, "static", false, "the entry neither ages nor moves")
	return c
}

func (a *app) fdbDelCommand() *cobra.Command {
	var vlan vlanFlag
	return a.portAndVLAN(a.talks(&cobra.Command{
		Use:   "del MAC [--vlan V]",
		Short: "Forget a station",
		Args:  args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mac, err := macArg(args[0])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.DelFDB(cmd.Context(), mac, uint16(vlan))
		},
	}), nil, &vlan)
}

func (a *app) fdbFlushCommand() *cobra.Command {
	var port portFlag
	var vlan vlanFlag
	return a.portAndVLAN(a.talks(&cobra.Command{
		Use:   "flush [--port P] [--vlan V]",
		Short: "Forget what was learned; static entries stay",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			_, err = c.FlushFDB(cmd.Context(), string(port), uint16(vlan))
			return err
		},
	}), &port, &vlan)
}
