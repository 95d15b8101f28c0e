package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"

	"github.com/spf13/cobra"
)

func (a *app) stpCommand() *cobra.Command {
	c := noun("stp", "Show and change the spanning tree; stp [SWITCH] on|off as brctl has it", a.stpShowCommand(),
		a.stpSetCommand(), a.stpPortCommand())
	want := c.RunE
	c.RunE = func(cmd *cobra.Command, words []string) error {
		if mode := stpMode(words); mode != "" {
			if _, err := a.ofBridge(cmd, words, 1); err != nil {
				return err
			}
			return a.setSTP(cmd, config.KeyValue{Key: "mode", Value: mode})
		}
		return want(cmd, words)
	}
	for _, word := range []string{"on", "off"} {
		mode := map[string]string{"on": "rstp", "off": "off"}[word]
		c.AddCommand(a.talks(&cobra.Command{
			Use:     word,
			Aliases: map[string][]string{"on": {"yes", "1"}, "off": {"no", "0"}}[word],
			Short:   "Set mode " + mode,
			Args:    args(0, 0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.setSTP(cmd, config.KeyValue{Key: "mode", Value: mode})
			},
		}))
	}
	return c
}

// stpMode is the mode that brctl's words BRIDGE on|off ask for, "" if they are
// others.
func stpMode(words []string) string {
	if len(words) != 2 {
		return ""
	}
	switch words[1] {
	case "on", "yes", "1":
		return "rstp"
	case "off", "no", "0":
		return "off"
	}
	return ""
}

// setSTP changes parameters of the bridge, all of them or none.
func (a *app) setSTP(cmd *cobra.Command, list ...config.KeyValue) error {
	scratch := config.Default().Switch.STP
	for _, kv := range list {
		if err := config.SetSTP(&scratch, kv.Key, kv.Value); err != nil {
			return usagef("%s: %w", cmd.Name(), err)
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	change := func() error { return c.SetSTP(cmd.Context(), list) }
	if slices.ContainsFunc(list, func(w config.KeyValue) bool { return w.Key == "mode" }) {
		return a.thenTellHolds(cmd.Context(), c, change)
	}
	return change()
}

func (a *app) stpSetCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "set key=value...",
		Short: "Change parameters of the bridge: " + strings.Join(config.STPKeys, " "),
		Args:  args(1, -1),

		ValidArgsFunction: completeKeys(stpUsages()),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := pairs(args)
			if err != nil {
				return err
			}
			return a.setSTP(cmd, list...)
		},
	})
}

// stpPortKeys are the keys of `stp port`.
var stpPortKeys = []string{"cost", "prio", "edge", "p2p", "bpdu-guard", "bpdu-filter", "root-guard", "tcn-guard", "loop-guard", "recover", "mcheck"}

// stpUsages and stpPortUsages are the keys with what they take, for completion.
func stpUsages() (usages []string) {
	for _, k := range config.STPKeys {
		usages = append(usages, k+"="+map[string]string{"mode": "rstp|stp|off"}[k])
	}
	return usages
}

func stpPortUsages() (usages []string) {
	for _, u := range config.PortKeyUsage() {
		key, _, _ := strings.Cut(u, "=")
		if slices.Contains(stpPortKeys, key) && key != "recover" {
			usages = append(usages, u)
		}
	}
	return append(usages, "recover=now|300s", "mcheck=now")
}

func (a *app) stpPortCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:   "port NAME key=value...",
		Short: "Change a port's part in the spanning tree",
		Long: "Change a port's part in the spanning tree. Keys: " + strings.Join(stpPortKeys, " ") + `

recover=300s lets a port that BPDU guard disabled come back after that time;
recover=now brings it back at once. mcheck=now makes the port find out anew
which protocol version its neighbours speak.`,
		Args:              portArgs(2, -1),
		ValidArgsFunction: a.thenKeys(stpPortUsages()),
		RunE: func(cmd *cobra.Command, args []string) error {
			kept, once, err := stpPortWords(args[1:])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(kept) > 0 {
				return a.setPortWords(cmd, args[0], kept)
			}
			for _, key := range once {
				do := c.RecoverPort
				if key == "mcheck" {
					do = c.Mcheck
				}
				if err := do(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			a.tellHold(cmd.Context(), c, args[0])
			return nil
		},
	})
}

// stpPortWords reads the words of `stp port`: settings that are kept, or keys of
// what is done once. Not both: the latter needs a tree, and would fail without
// one when the settings have been changed.
func stpPortWords(words []string) (kept []config.KeyValue, once []string, err error) {
	list, err := pairs(words)
	if err != nil {
		return nil, nil, err
	}
	for _, kv := range list {
		switch {
		case kv.Value == "now" && (kv.Key == "recover" || kv.Key == "mcheck"):
			once = append(once, kv.Key)
		case kv.Key == "mcheck":
			return nil, nil, usagef("stp port: mcheck=%s: want mcheck=now", kv.Value)
		case !slices.Contains(stpPortKeys, kv.Key):
			return nil, nil, usagef("stp port: unknown key %q; known: %s", kv.Key, strings.Join(stpPortKeys, " "))
		default:
			kept = append(kept, kv)
		}
	}
	if len(once) > 0 && len(kept) > 0 {
		return nil, nil, usagef("stp port: %s=now is done once and the rest is kept: give them in two commands", once[0])
	}
	return kept, once, checkSettings(kept)
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
	times := fmt.Sprintf("hello %ds, max age %ds, forward delay %ds, hold count %d", t.BridgeHello, t.BridgeMaxAge, t.BridgeForwardDelay, t.TxHold)
	if t.Mode == vswitch.ModeOff.String() {
		return a.facts([][2]string{
			{"mode", "off: every port whose link is up forwards; `kvswitch stp on` starts the tree"},
			{"bridge id", t.BridgeID.String()},
			{"times when on", times},
		})
	}
	err := a.facts([][2]string{
		{"mode", t.Mode},
		{"bridge id", t.BridgeID.String()},
		{"root id", root},
		{"times in force", fmt.Sprintf("hello %ds, max age %ds, forward delay %ds", t.Hello, t.MaxAge, t.ForwardDelay)},
		{"times as root", times},
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
	err = a.table("PORT ID ROLE STATE COST EDGE P2P DESIGNATED-BRIDGE DESIGNATED-PORT RX-BPDUS TX-BPDUS GUARD", rows)
	for i, line := range treeHolds(t) {
		if i == 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintln(a.out, line)
	}
	return err
}

// treeHolds are the ports that guards hold, and what to do about them, a line each.
func treeHolds(t *vswitch.STPStatus) (lines []string) {
	for i := range t.Ports {
		if p := &t.Ports[i]; p.Guard != stp.NoGuard {
			lines = append(lines, holdText(p.Name, &vswitch.PortSTPStatus{Held: p.Guard.String(), Guard: p.GuardReason, Mend: p.Mend}))
		}
	}
	return lines
}

func count64(n uint64) string { return count(n) }

func secs(n uint64) string { return fmt.Sprintf("%ds", n) }
