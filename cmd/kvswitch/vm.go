package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/daemon"

	"github.com/spf13/cobra"
)

func (a *app) vmCommand() *cobra.Command {
	return noun("vm", "Plug network cards into running virtual machines over QMP", a.vmListCommand(),
		a.vmAttachCommand(), a.vmDetachCommand())
}

// qmpPath is the path of a monitor's socket as the switch, whose working
// directory is another one, can use it.
func qmpPath(path string) (string, error) {
	if path == "" {
		return "", usagef("which machine? give --qmp, the path of its QMP socket")
	}
	return filepath.Abs(path)
}

func (a *app) vmAttachCommand() *cobra.Command {
	var n ctl.NewNIC
	var mac string
	var vlan vlanFlag
	var settings []string
	c := a.shows(&cobra.Command{
		Use:   "attach --qmp SOCK",
		Short: "Plug a network card into a running machine",
		Long: `Plug a network card into the machine whose QMP socket is SOCK (-qmp
unix:SOCK,server=on,wait=off): makes the tap, opens vhost_net where the host has
it, hands both to QEMU, adds the device and attaches the tap to the switch. If a
step fails, those before it are undone. It prints the card's id, port and MAC.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if n.QMP, err = qmpPath(n.QMP); err != nil {
				return err
			}
			if mac != "" {
				if n.MAC, err = macArg(mac); err != nil {
					return err
				}
			}
			if vlan != 0 {
				settings = append(settings, "vlan="+vlan.String())
			}
			if _, err := pairs(settings); err != nil {
				return err
			}
			n.Settings = strings.Join(settings, ",")
			if err := n.Check(daemon.Kinds()); err != nil {
				return usagef("vm attach: %w", err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			nic, err := c.AttachVM(cmd.Context(), n)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(nic)
			}
			_, err = fmt.Fprintf(a.out, "%s port %s mac %v vhost %s\n", nic.ID, nic.Port, nic.MAC, vhostText(nic.VHost, nic.VHostReason))
			return err
		},
	})
	f := c.Flags()
	f.StringVar(&n.QMP, "qmp", "", "path of the machine's QMP socket")
	f.StringVar(&n.ID, "id", "", "id of the device (default the first free of net1, net2, …)")
	f.StringVar(&mac, "mac", "", "address of the card (default one made up, 52:54:00:…)")
	f.StringVar(&n.Model, "model", "", "QEMU's device (default virtio-net-pci)")
	f.StringVar(&n.Bus, "bus", "", "where it is plugged in; q35 needs a root port")
	f.IntVar(&n.Queues, "queues", 1, "queue pairs")
	f.StringVar(&n.VHost, "vhost", "auto", "let the kernel's vhost_net work the rings: auto, on or off")
	f.Var(&vlan, "vlan", "VLAN that the machine is in")
	f.StringArrayVar(&settings, "set", nil, "another setting of its port, key=value (may be repeated)")
	completeFlags(c, map[string]cobra.CompletionFunc{
		"vhost": oneOf("auto", "on", "off"), "model": oneOf("virtio-net-pci", "virtio-net-pci-non-transitional", "e1000", "e1000e"),
		"set": completeKeys(config.PortKeyUsage()), "id": cobra.NoFileCompletions, "mac": cobra.NoFileCompletions,
		"bus": cobra.NoFileCompletions, "queues": cobra.NoFileCompletions, "vlan": cobra.NoFileCompletions,
	})
	return c
}

func vhostText(on bool, reason string) string {
	switch {
	case on:
		return "on"
	case reason != "":
		return "off: " + reason
	}
	return "off"
}

func (a *app) vmDetachCommand() *cobra.Command {
	var qmp, id string
	c := a.talks(&cobra.Command{
		Use:   "detach --qmp SOCK --id ID",
		Short: "Unplug a network card; returns when the machine has let go of it",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := qmpPath(qmp)
			if err != nil {
				return err
			}
			if id == "" {
				return usagef("which card? give --id; `kvswitch vm list` has them")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.DetachVM(cmd.Context(), path, id)
		},
	})
	c.Flags().StringVar(&qmp, "qmp", "", "path of the machine's QMP socket")
	c.Flags().StringVar(&id, "id", "", "id of the device")
	return c
}

func (a *app) vmListCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "list",
		Short: "Show the guests' cards: those that were plugged in, and who holds the taps of other ports",
		Long: `Show the guests' cards: those that vm attach has plugged in, with what QEMU says of
them, and the guests behind other taps that are ports, as /proc has them. Of those
it is not known what only QEMU knows (-). It takes CAP_SYS_PTRACE to see the guests
of other users than the switch's own. VHOST tells whether the kernel's vhost_net
works the rings; why not is in --json, and in what vm attach prints.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.VMs(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			var rows [][]string
			for _, n := range list {
				name := n.Guest
				if name == "" {
					name = n.UUID
				}
				mac := ""
				if !n.MAC.IsZero() {
					mac = n.MAC.String()
				}
				vhost := "off"
				switch {
				case n.VHost:
					vhost = "on"
				case n.QMP == "" && n.VHostReason != "":
					vhost = "" // which of the guest's cards have it can't be seen
				}
				rows = append(rows, []string{orDash(name), orDash(n.ID), n.Port, orDash(mac), orDash(strings.Join(n.GuestMACs, "+")),
					count(n.Queues), orDash(n.QMP), orDash(vhost)})
			}
			return a.table("VM ID PORT MAC GUEST-MACS QUEUES QMP VHOST", rows)
		},
	})
}
