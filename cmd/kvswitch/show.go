package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

// What brctl show, showmacs and showstp print, column for column, so that
// scripts that read brctl's output read this.

func (a *app) showCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:     "show [SWITCH]...",
		Aliases: []string{"list", "ls"},
		Short:   "Show the switches that run, or those named, as brctl show does",
		Args:    args(0, -1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			names, _ := ctl.Running(a.runDir)
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			names, err := a.switches(cmd, names)
			if err != nil {
				return err
			}
			list := make([]vswitch.Status, 0, len(names))
			for _, name := range names {
				a.name = name
				c, err := a.client()
				if err != nil {
					return err
				}
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				list = append(list, st)
			}
			switch {
			case !a.json:
				printShow(a.out, list)
				a.warnOfHolds(list)
				return nil
			case len(list) == 1:
				return a.printJSON(list[0])
			}
			return a.printJSON(list)
		},
	})
}

// switches are the names of those that a showing verb is about: those named, or
// the one of -s, or all that run. Where none runs it is one without a name, which
// brings the reason.
func (a *app) switches(cmd *cobra.Command, names []string) ([]string, error) {
	switch {
	case len(names) > 0 && cmd.Flags().Changed("switch"):
		return nil, usagef("%s: name switches, or give -s", cmd.Name())
	case len(names) > 0:
		for _, name := range names {
			if err := a.mean(name); err != nil {
				return nil, err
			}
		}
		return names, nil
	case a.name != "":
		return []string{a.name}, nil
	}
	running, err := ctl.Running(a.runDir)
	if err != nil || len(running) == 0 {
		return []string{""}, nil
	}
	return running, nil
}

// portNames are the names of the ports in brctl's order, by name.
func portNames(st *vswitch.Status) []string {
	var names []string
	for _, p := range st.Ports {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

func printShow(w io.Writer, list []vswitch.Status) {
	fmt.Fprintf(w, "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n")
	for i := range list {
		st := &list[i]
		held := map[string]string{}
		for _, p := range st.Ports {
			held[p.Name] = p.STP.Held
		}
		fmt.Fprintf(w, "%s\t\t%s\t%s\t\t", st.Name, st.BridgeID, yesNo(st.STP.Mode != "off"))
		for i, name := range portNames(st) {
			if i > 0 {
				fmt.Fprint(w, "\n\t\t\t\t\t\t\t")
			}
			fmt.Fprint(w, name)
			if guard := held[name]; guard != "" {
				fmt.Fprintf(w, "\t(held by %s)", guard)
			}
		}
		fmt.Fprintln(w)
	}
}

// warnOfHolds says on standard error what holds ports and what to do about it:
// brctl's table has no room for it.
func (a *app) warnOfHolds(list []vswitch.Status) {
	for i := range list {
		for j := range list[i].Ports {
			if p := &list[i].Ports[j]; p.STP.Held != "" {
				a.warn(holdText(p.Name, &p.STP))
			}
		}
	}
}

func (a *app) showmacsCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "showmacs [SWITCH]",
		Short: "Show the forwarding table, as brctl showmacs does",
		Args:  args(0, 1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if _, err := a.ofBridge(cmd, words, 0); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			entries, err := c.FDB(cmd.Context(), "", 0)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(entries)
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			printMACs(a.out, &st, entries)
			return nil
		},
	})
}

func printMACs(w io.Writer, st *vswitch.Status, entries []vswitch.FDBEntry) {
	numbers := map[string]int{}
	for _, p := range st.Ports {
		numbers[p.Name] = p.ID
	}
	slices.SortStableFunc(entries, func(a, b vswitch.FDBEntry) int {
		return cmp.Or(bytes.Compare(a.MAC[:], b.MAC[:]), cmp.Compare(a.VLAN, b.VLAN))
	})
	fmt.Fprintf(w, "port no\tmac addr\t\tis local?\tageing timer\n")
	for _, e := range entries {
		fmt.Fprintf(w, "%3d\t%v\t%s\t\t%s\n", numbers[e.Port], e.MAC, yesNo(e.Type == "local"), timer(e.AgeS))
	}
}

// timer is a time in seconds as brctl prints it.
func timer[T float64 | uint32](seconds T) string { return fmt.Sprintf("%7.2f", float64(seconds)) }

func (a *app) showstpCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:   "showstp [SWITCH]",
		Short: "Show the spanning tree, as brctl showstp does",
		Args:  args(0, 1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if _, err := a.ofBridge(cmd, words, 0); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			tree, err := c.STP(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(tree)
			}
			printSTP(a.out, c.Name(), &tree)
			for _, line := range treeHolds(&tree) {
				a.warn(line)
			}
			return nil
		},
	})
}

func printSTP(w io.Writer, name string, t *vswitch.STPStatus) {
	fmt.Fprintf(w, "%s\n", name)
	fmt.Fprintf(w, " bridge id\t\t%v\n", t.BridgeID)
	fmt.Fprintf(w, " designated root\t%v\n", t.RootID)
	fmt.Fprintf(w, " root port\t\t%4d\t\t\tpath cost\t\t%4d\n", t.RootPort, t.RootPathCost)
	for _, row := range []struct {
		left, right string
		a, b        uint32
	}{
		{"max age\t\t", "bridge max age\t\t", t.MaxAge, t.BridgeMaxAge},
		{"hello time\t\t", "bridge hello time\t", t.Hello, t.BridgeHello},
		{"forward delay\t\t", "bridge forward delay\t", t.ForwardDelay, t.BridgeForwardDelay},
	} {
		fmt.Fprintf(w, " %s%s\t\t\t%s%s\n", row.left, timer(row.a), row.right, timer(row.b))
	}
	fmt.Fprintf(w, " ageing time\t\t%s\n", timer(t.AgeingS))
	// The hello, TCN and garbage collection timers are the ports' in RSTP, or
	// there are none; brctl's columns stay.
	fmt.Fprintf(w, " hello timer\t\t%s\t\t\ttcn timer\t\t%s\n", timer(helloTimer(t)), timer(0.0))
	fmt.Fprintf(w, " topology change timer\t%s\t\t\tgc timer\t\t%s\n", timer(t.TopologyChangeTimer), timer(0.0))
	flags := ""
	if t.TopologyChange {
		flags += "TOPOLOGY_CHANGE "
	}
	if t.TopologyChangeDetected {
		flags += "TOPOLOGY_CHANGE_DETECTED "
	}
	fmt.Fprintf(w, " flags\t\t\t%s\n\n\n", flags)
	ports := slices.SortedFunc(slices.Values(t.Ports), func(a, b vswitch.STPPortStatus) int { return cmp.Compare(a.Name, b.Name) })
	for i := range ports {
		printSTPPort(w, t, &ports[i])
	}
}

// helloTimer is the time to the next hello of the port that is first to send.
func helloTimer(t *vswitch.STPStatus) uint32 {
	var least uint32
	for _, p := range t.Ports {
		if h := p.Timers.HelloWhen; h > 0 && (least == 0 || h < least) {
			least = h
		}
	}
	return least
}

func printSTPPort(w io.Writer, t *vswitch.STPStatus, p *vswitch.STPPortStatus) {
	delay := p.Timers.FdWhile
	if p.State == stp.StateDisabled {
		delay = 0 // a disabled port's timer is held, not running (17.29)
	}
	fmt.Fprintf(w, "%s (%d)\n", p.Name, p.Port)
	fmt.Fprintf(w, " port id\t\t%v\t\t\tstate\t\t%15v\n", p.ID, p.State)
	fmt.Fprintf(w, " designated root\t%v\tpath cost\t\t%4d\n", p.DesignatedRoot, p.Cost)
	fmt.Fprintf(w, " designated bridge\t%v\tmessage age timer\t%s\n", p.DesignatedBridge, timer(p.Timers.RcvdInfoWhile))
	fmt.Fprintf(w, " designated port\t%v\t\t\tforward delay timer\t%s\n", p.DesignatedPort, timer(delay))
	fmt.Fprintf(w, " designated cost\t%4d\t\t\thold timer\t\t%s\n", p.DesignatedCost, timer(0.0))
	flags := ""
	if p.ConfigPending {
		flags += "CONFIG_PENDING "
	}
	if p.TopologyChangeAck {
		flags += "TOPOLOGY_CHANGE_ACK "
	}
	fmt.Fprintf(w, " flags\t\t\t%s\n\n", flags)
}
