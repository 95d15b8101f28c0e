package main

import (
	"errors"
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
)

// ifup and ifdown are QEMU's script= and downscript= for a tap that QEMU made:
// called with the tap's name, they attach it to the switch and detach it.

func (a *app) ifupCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "ifup TAP",
		Short: "Attach a tap that QEMU made and set it up: QEMU's script=",
		Long: `Attach a tap that QEMU made and set it up. As QEMU's script= it is called with
the tap's name; a link to this program named kvswitch-ifup does the same:

  qemu-system-x86_64 -netdev tap,id=n0,script=/usr/local/bin/kvswitch-ifup,downscript=/usr/local/bin/kvswitch-ifdown …

The switch is the one of -s, of KVSWITCH_SWITCH, or the only one that runs. After
a restart of the switch it attaches the tap of a guest that runs on.`,
		Args:              args(1, 1),
		ValidArgsFunction: completeInterfaces(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.ifup(cmd, args[0]) },
	})
}

func (a *app) ifup(cmd *cobra.Command, tap string) error {
	if err := config.CheckNetdevName(tap); err != nil {
		return usagef("ifup: %w", err)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(tap)
	if err != nil {
		return fmt.Errorf("ifup %s: %w", tap, err)
	}
	st, err := c.Status(cmd.Context())
	if err != nil {
		return err
	}
	// A guest of a segment with large frames must be able to take them.
	if host := st.HostPort; host != nil && host.MTU > link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, host.MTU); err != nil {
			return fmt.Errorf("ifup %s: set MTU %d: %w", tap, host.MTU, err)
		}
	}
	// The port comes before the link: once up, the host's own stack would speak
	// on the tap until the port shields it.
	port := ctl.NewPort{Spec: config.Spec{Kind: config.NetdevKind, Name: tap}.String(), Guest: true}
	if _, err := c.AddPort(cmd.Context(), port); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		err = fmt.Errorf("ifup %s: set it up: %w", tap, err)
		return errors.Join(err, c.DelGuestPort(cmd.Context(), tap))
	}
	return nil
}

func (a *app) ifdownCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "ifdown TAP",
		Short: "Detach a tap: QEMU's downscript=",
		Args:  portArgs(1, 1),

		ValidArgsFunction: a.completePortsBut("host", 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			err = c.DelPort(cmd.Context(), args[0])
			if errors.Is(err, vswitch.ErrNoPort) {
				return nil // detached by hand before: what downscript wants is so
			}
			return err
		},
	})
}
