package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/daemon"
	"github.com/kvswitch/kvswitch/switch/port/sock"

	"github.com/spf13/cobra"
)

func (a *app) portCommand() *cobra.Command {
	return noun("port", "Attach, detach, change and show ports", a.portShowCommand(),
		a.portAddCommand(), a.portDelCommand(), a.portSetCommand())
}

// specHelp is the help on SPECs.
func specHelp() string {
	var b strings.Builder
	b.WriteString("A SPEC is KIND:NAME[,key=value]... Kinds and their own keys:\n")
	for _, k := range daemon.Kinds() {
		fmt.Fprintf(&b, "  %-10s %s\n", k.Name, k.Usage)
	}
	b.WriteString("Keys of every port:\n")
	b.WriteString("  " + strings.Join(config.PortKeyUsage(), "\n  "))
	return b.String()
}

func (a *app) portAddCommand() *cobra.Command {
	var uplink bool
	c := a.talks(&cobra.Command{
		Use:               "add SPEC",
		Short:             "Attach a port: netdev:tap0, stream:vm3,path=/run/vm3.sock, …",
		Long:              "Attach a port.\n\n" + specHelp(),
		Args:              args(1, 1),
		ValidArgsFunction: completeSpec,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := portSpec(args[0])
			if err != nil {
				return err
			}
			return a.addPort(cmd, ctl.NewPort{Spec: spec, Uplink: uplink})
		},
	})
	c.Flags().BoolVar(&uplink, "uplink", false, "the port leads to other switches, not to a virtual machine")
	return c
}

// portSpec checks a SPEC as the switch will, and makes the paths in it absolute:
// the switch's working directory is another one.
func portSpec(text string) (string, error) {
	spec, err := daemon.Kinds().ParseSpec(text)
	if err != nil {
		return "", usageError{err}
	}
	for i, w := range spec.Device {
		end := w.Key == "local" || w.Key == "remote"
		if w.Key != "path" && !(end && sock.IsPath(w.Value)) || w.Value == "" || w.Value[0] == '@' {
			continue // no path, or one that the switch will refuse
		}
		path, err := filepath.Abs(w.Value)
		if err != nil {
			return "", err
		}
		if strings.Contains(path, ",") {
			return "", usagef("%s=%s: a SPEC can't hold the comma in %s", w.Key, w.Value, path)
		}
		spec.Device[i].Value = path
	}
	return spec.String(), nil
}

func (a *app) addPort(cmd *cobra.Command, p ctl.NewPort) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	st, err := c.AddPort(cmd.Context(), p)
	if err != nil {
		return err
	}
	a.tellHold(cmd.Context(), c, st.Name)
	return nil
}

func (a *app) portDelCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:               "del NAME",
		Short:             "Detach a port",
		Args:              portArgs(1, 1),
		ValidArgsFunction: a.completePortsBut("host", 1), // the host interface stays
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.DelPort(cmd.Context(), args[0])
		},
	})
}

func (a *app) portSetCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:               "set NAME key=value...",
		Short:             "Change settings of a port, all of them or none",
		Long:              "Change settings of a port, all of them or none. Keys:\n  " + strings.Join(config.PortKeyUsage(), "\n  "),
		Args:              portArgs(2, -1),
		ValidArgsFunction: a.thenKeys(config.PortKeyUsage()),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.setPort(cmd, args[0], args[1:]...) },
	})
}

func (a *app) setPort(cmd *cobra.Command, name string, words ...string) error {
	list, err := pairs(words)
	if err != nil {
		return err
	}
	if err := checkSettings(list); err != nil {
		return err
	}
	return a.setPortWords(cmd, name, list)
}

// setPortWords is setPort with words that were checked.
func (a *app) setPortWords(cmd *cobra.Command, name string, list []config.KeyValue) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.SetPort(cmd.Context(), name, list); err != nil {
		return err
	}
	if slices.ContainsFunc(list, guards) {
		a.tellHold(cmd.Context(), c, name)
	}
	return nil
}

// guards reports a setting that may make a guard trip.
func guards(w config.KeyValue) bool {
	switch w.Key {
	case "edge", "bpdu-guard", "bpdu-filter", "root-guard":
		return true
	}
	return false
}

func (a *app) portShowCommand() *cobra.Command {
	return a.shows(&cobra.Command{
		Use:               "show [NAME]",
		Short:             "Show the ports, or all there is to know of one",
		Args:              portArgs(0, 1),
		ValidArgsFunction: a.completePorts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				p, err := c.Port(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(p)
				}
				return a.printPort(&p)
			}
			ports, err := c.Ports(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(ports)
			}
			return a.printPorts(ports)
		},
	})
}

func (a *app) printPorts(ports []vswitch.PortStatus) error {
	var rows [][]string
	for _, p := range ports {
		rows = append(rows, []string{p.Name, p.Kind, count(p.ID), p.Link, p.STP.State, p.STP.Role, yesNo(p.STP.Edge), yesNo(p.Uplink),
			numberText(p.MTU), rate(p.SpeedBps), count(p.RX.Frames), count(p.TX.Frames), count(p.RX.Dropped + p.TX.Dropped)})
	}
	err := a.table("NAME KIND ID LINK STATE ROLE EDGE UPLINK MTU SPEED RX TX DROPPED", rows)
	first := true
	for i := range ports {
		if p := &ports[i]; p.STP.Held != "" {
			if first {
				fmt.Fprintln(a.out)
			}
			first = false
			fmt.Fprintln(a.out, holdText(p.Name, &p.STP))
		}
	}
	return err
}

func (a *app) printPort(p *vswitch.PortStatus) error {
	link := p.Link
	if p.LinkReason != "" {
		link += ": " + p.LinkReason
	}
	rows := [][2]string{
		{"name", p.Name}, {"kind", p.Kind}, {"id", count(p.ID)}, {"link", link},
		{"mac", macText(p.MAC)}, {"mtu", numberText(p.MTU)}, {"speed", rate(p.SpeedBps)}, {"uplink", yesNo(p.Uplink)},
		{"stp", fmt.Sprintf("%s %s, cost %d, port id %s, edge %s, bpdu-guard %s", p.STP.State, p.STP.Role, p.STP.Cost, p.STP.PortID, yesNo(p.STP.Edge), onOff(p.STP.BPDUGuard))},
	}
	if p.STP.Held != "" {
		rows = append(rows, [2]string{"guard", p.STP.Held + ": " + p.STP.Guard}, [2]string{"mend", p.STP.Mend})
	}
	rows = append(rows,
		[2]string{"vlan", vlanText(&p.VLAN)},
		[2]string{"offloads", offloads(p)},
		[2]string{"learned", count(p.Learned)},
		[2]string{"rx", traffic(p.RX)},
		[2]string{"tx", traffic(p.TX)},
		[2]string{"in kernel", inKernelText(&p.InKernel)})
	for _, k := range slices.Sorted(maps.Keys(p.Settings)) {
		rows = append(rows, [2]string{"setting " + k, p.Settings[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(p.Drops)) {
		if n := p.Drops[k]; n > 0 {
			rows = append(rows, [2]string{"drop " + k, count(n)})
		}
	}
	for _, w := range p.Warnings {
		rows = append(rows, [2]string{"warning", w})
	}
	return a.facts(append(rows, detail("", p.Detail)...))
}

// inKernelText says what of a port's traffic never left the kernel.
func inKernelText(k *vswitch.InKernelStatus) string {
	text := "no"
	switch {
	case k.Active:
		text = "yes"
	case k.Why != "":
		text += ": " + k.Why
	}
	if k.RxFrames+k.TxFrames > 0 {
		text += fmt.Sprintf(", %d frames in, %d out", k.RxFrames, k.TxFrames)
	}
	return text
}

func traffic(t vswitch.Traffic) string {
	return fmt.Sprintf("%d frames, %d bytes, %d dropped", t.Frames, t.Bytes, t.Dropped)
}

func vlanText(v *vswitch.PortVLANStatus) string {
	pvid := "none"
	if v.PVID != 0 {
		pvid = count(v.PVID)
	}
	return fmt.Sprintf("%s, pvid %s, untagged %s, tagged %s", v.Mode, pvid, orDash(strings.Join(v.Untagged, "+")), orDash(strings.Join(v.Tagged, "+")))
}

func offloads(p *vswitch.PortStatus) string {
	var on []string
	for _, o := range []struct {
		name string
		has  bool
	}{{"csum", p.Offloads.Csum}, {"tso4", p.Offloads.TSO4}, {"tso6", p.Offloads.TSO6}, {"uso", p.Offloads.USO}} {
		if o.has {
			on = append(on, o.name)
		}
	}
	return orDash(strings.Join(on, " "))
}

// detail flattens what a kind of port adds, decoded from JSON, into rows with
// dotted names.
func detail(prefix string, v any) [][2]string {
	join := func(k string) string {
		if prefix == "" {
			return k
		}
		return prefix + "." + k
	}
	var rows [][2]string
	switch v := v.(type) {
	case nil:
	case map[string]any:
		for _, k := range slices.SortedFunc(maps.Keys(v), cmp.Compare) {
			rows = append(rows, detail(join(k), v[k])...)
		}
	case []any:
		if text, ok := plainList(v); ok {
			return [][2]string{{prefix, text}}
		}
		for i, e := range v {
			rows = append(rows, detail(join(count(i)), e)...)
		}
	default:
		rows = append(rows, [2]string{prefix, plain(v)})
	}
	return rows
}

// plainList is a list of plain values on one line.
func plainList(list []any) (string, bool) {
	var words []string
	for _, e := range list {
		switch e.(type) {
		case map[string]any, []any:
			return "", false
		}
		words = append(words, plain(e))
	}
	return orDash(strings.Join(words, " ")), true
}

// plain is a value as text; a number without an exponent.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
