package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/config"

	"github.com/spf13/cobra"
)

func (a *app) stpCommand() *cobra.Command {
	c := group("stp", "Show and change the spanning tree; stp on|off as brctl has it",
		a.stpShowCommand(), a.stpSetCommand(), a.stpPortCommand())
	for _, word := range []string{"on", "off"} {
		mode := map[string]string{"on": "rstp", "off": "off"}[word]
		c.AddCommand(a.talks(&cobra.Command{
			Use:     word,
			Aliases: map[string][]string{"on": {"yes"}, "off": {"no"}}[word],
			Short:   "Set mode " + mode,
			Args:    args(0, 0),
			RunE:    func(cmd *cobra.Command, _ []string) error { return a.setSTP(cmd, "mode", mode) },
		}))
	}
	return c
}

// setSTP changes one parameter of the bridge.
func (a *app) setSTP(cmd *cobra.Command, key, value string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.SetSTP(cmd.Context(), []vswitch.KeyValue{{Key: key, Value: value}})
}

func (a *app) stpSetCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "set key=value...",
		Short: "Change parameters of the bridge: " + strings.Join(config.STPKeys, " "),
		Args:  args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := pairs(args)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.SetSTP(cmd.Context(), list)
		},
	})
}

// stpPortKeys are the keys of `stp port`.
var stpPortKeys = []string{"cost", "prio", "edge", "p2p", "bpdu-guard", "bpdu-filter", "root-guard", "tcn-guard", "loop-guard", "recover"}

func (a *app) stpPortCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "port NAME key=value...",
		Short: "Change a port's part in the spanning tree",
		Long: "Change a port's part in the spanning tree. Keys: " + strings.Join(stpPortKeys, " ") + `

recover=300s lets a port that BPDU guard disabled come back after that time;
recover=now brings it back at once. mcheck=now makes the port find out anew
which protocol version its neighbours speak.`,
		Args:              portArgs(2, -1),
		ValidArgsFunction: a.completePorts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := pairs(args[1:])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			// What is done once is told apart from what is kept.
			var once []func() error
			list = slices.DeleteFunc(list, func(kv vswitch.KeyValue) bool {
				switch {
				case kv.Key == "recover" && kv.Value == "now":
					once = append(once, func() error { return c.RecoverPort(cmd.Context(), args[0]) })
				case kv.Key == "mcheck" && kv.Value == "now":
					once = append(once, func() error { return c.Mcheck(cmd.Context(), args[0]) })
				default:
					return false
				}
				return true
			})
			for _, kv := range list {
				if !slices.Contains(stpPortKeys, kv.Key) {
					return usagef("stp port: unknown key %q; known: %s", kv.Key, strings.Join(stpPortKeys, " "))
				}
			}
			if len(list) > 0 {
				if err := c.SetPort(cmd.Context(), args[0], list); err != nil {
					return err
				}
			}
			for _, f := range once {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

func (a *app) stpShowCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "show",
		Short: "Show the bridge and its ports in the spanning tree",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.STP(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			return a.printTree(&t)
		},
	})
}

func (a *app) printTree(t *vswitch.STPStatus) error {
	root := t.RootID.String()
	if t.RootPort == 0 {
		root += " (this switch)"
	} else {
		root += fmt.Sprintf(" by %s, cost %d", t.RootPortName, t.RootPathCost)
	}
	changes := count64(t.TopologyChanges)
	if t.LastTopologyChangePortName != "" {
		changes += fmt.Sprintf(", the last %s ago, %s on %s", secs(t.SinceTopologyChange), t.LastTopologyChangeBy, t.LastTopologyChangePortName)
	}
	err := a.facts([][2]string{
		{"mode", t.Mode},
		{"bridge id", t.BridgeID.String()},
		{"root id", root},
		{"times in force", fmt.Sprintf("hello %ds, max age %ds, forward delay %ds", t.Hello, t.MaxAge, t.ForwardDelay)},
		{"times as root", fmt.Sprintf("hello %ds, max age %ds, forward delay %ds, hold count %d", t.BridgeHello, t.BridgeMaxAge, t.BridgeForwardDelay, t.TxHold)},
		{"topology changes", changes},
	})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, p := range t.Ports {
		rows = append(rows, []string{p.Name, p.ID.String(), p.Role.String(), p.State.String(), count(p.Cost), yesNo(p.Edge), yesNo(p.PointToPoint),
			p.DesignatedBridge.String(), p.DesignatedPort.String(), count64(p.Counters.RxConfig + p.Counters.RxTCN + p.Counters.RxRST),
			count64(p.Counters.TxConfig + p.Counters.TxTCN + p.Counters.TxRST), orDash(p.GuardReason)})
	}
	fmt.Fprintln(a.out)
	return a.table("PORT ID ROLE STATE COST EDGE P2P DESIGNATED-BRIDGE DESIGNATED-PORT RX-BPDUS TX-BPDUS GUARD", rows)
}

func count64(n uint64) string { return count(n) }

func secs(n uint64) string { return fmt.Sprintf("%ds", n) }
