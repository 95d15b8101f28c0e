package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/spf13/cobra"
)

// app is what the verbs share: where they write, and which switch is meant.
type app struct {
	out    *bufio.Writer
	stdout io.Writer // what out writes to, to be asked what it is
	stderr io.Writer
	runDir string
	name   string // -s; "" = the only one running
	json   bool

	clients []*ctl.Client // to be closed when the verb has ended
}

func (a *app) rootCommand() *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:   "kvswitch",
		Short: "A layer-2 switch for virtual machines, without the kernel's bridge module",
		Long: `kvswitch connects network cards, virtual machines and the host on one Ethernet
segment, as the kernel's bridge does, in one process.

  kvswitch run --uplink eth0      start a switch with a network card
  kvswitch show                   see it, as brctl show prints it
  kvswitch port add netdev:tap0   attach the tap of a virtual machine`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return usagef("unknown verb %q%s: see `kvswitch help`", args[0], suggestion(cmd, args[0]))
			case version:
				return a.printVersion()
			}
			return cmd.Help()
		},
		SuggestionsMinimumDistance: nearby,
	}
	root.Flags().BoolVarP(&version, "version", "V", false, "print the program's version")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see `%s --help`", err, cmd.CommandPath())
	})
	runDir := os.Getenv("KVSWITCH_RUN_DIR")
	if runDir == "" {
		runDir = ctl.DefaultRunDir
	}
	root.PersistentFlags().StringVar(&a.runDir, "run-dir", runDir, "directory of control sockets (KVSWITCH_RUN_DIR)")
	root.AddCommand(
		a.runCommand(),
		a.showCommand(), a.showmacsCommand(), a.showstpCommand(),
		a.portCommand(),
		a.fdbCommand(), a.vlanCommand(), a.stpCommand(),
		a.monitorCommand(), a.statsCommand(),
		a.ifupCommand(), a.ifdownCommand(), a.helperCommand(), a.vmCommand(), a.libvirtCommand(),
		a.configCommand(), a.reloadCommand(), a.restoreCommand(), a.doctorCommand(), a.benchCommand(),
		versionCommand(a),
	)
	root.AddCommand(a.brctlCommands()...)
	return root
}

// talks makes a verb one that speaks to a running switch.
func (a *app) talks(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.name, "switch", "s", os.Getenv("KVSWITCH_SWITCH"), "the switch's name; not needed while only one runs (KVSWITCH_SWITCH)")
	c.RegisterFlagCompletionFunc("switch", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names, _ := ctl.Running(a.runDir)
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	return c
}

// shows makes a verb one that speaks to a running switch and prints.
func (a *app) shows(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return a.talks(c)
}

// client is the client of the switch that is meant.
func (a *app) client() (*ctl.Client, error) {
	if a.name != "" {
		if err := config.CheckName(a.name); err != nil {
			return nil, usagef("-s: %w", err)
		}
	}
	name, err := ctl.Choose(a.runDir, a.name)
	if err != nil {
		return nil, err
	}
	c := ctl.NewClient(a.runDir, name)
	c.OnWarning(a.warn)
	a.clients = append(a.clients, c)
	return c, nil
}

// ofBridge takes a bridge's name off the words of one of brctl's verbs: before the
// n that it needs there may be one, as brctl has it. It means the switch, as -s
// does.
func (a *app) ofBridge(cmd *cobra.Command, words []string, n int) ([]string, error) {
	if len(words) <= n {
		return words, nil
	}
	if cmd.Flags().Changed("switch") && a.name != words[0] {
		return nil, usagef("%s: is switch %s meant, or %s of -s?", cmd.Name(), words[0], a.name)
	}
	if err := a.mean(words[0]); err != nil {
		return nil, err
	}
	return words[1:], nil
}

// mean makes name the switch that is meant. One that does not run, while others
// do, is a word that was meant otherwise, as a rule.
func (a *app) mean(name string) error {
	a.name = name
	running, err := ctl.Running(a.runDir)
	if err == nil && len(running) > 0 && !slices.Contains(running, name) && config.CheckName(name) == nil {
		return fmt.Errorf("switch %s is not running; running: %s", name, strings.Join(running, ", "))
	}
	return nil
}

// args checks the number of arguments: at least lo, at most hi unless hi < 0.
func args(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < lo || hi >= 0 && len(args) > hi {
			return usagef("want %q", cmd.UseLine())
		}
		return nil
	}
}

// portArgs checks the number of arguments, the first of which is a port's name
// if it is there, and that name: an empty one, as a script's unset variable
// makes it, or one with a slash would make another request.
func portArgs(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		if err := args(lo, hi)(cmd, words); err != nil || len(words) == 0 {
			return err
		}
		if err := config.CheckName(words[0]); err != nil {
			return usagef("%s: %w", strings.TrimPrefix(cmd.CommandPath(), "kvswitch "), err)
		}
		return nil
	}
}

// pairs reads key=value words.
func pairs(words []string) ([]config.KeyValue, error) {
	list, err := config.ParseWords(words)
	if err != nil {
		return nil, usageError{err}
	}
	return list, nil
}

// checkSettings tries words on a port that is none, as the switch will on a real
// one: what is wrong in itself is told without asking it.
func checkSettings(list []config.KeyValue) error {
	scratch := vswitch.NewPortConfig("")
	if err := config.SetPort(&scratch, list...); err != nil {
		return usageError{err}
	}
	return nil
}

// printJSON prints v as one document.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows in columns, two spaces apart.
func (a *app) table(header string, rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(strings.Fields(header), "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// facts prints names and values in two columns.
func (a *app) facts(rows [][2]string) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
	}
	return w.Flush()
}

// rate is a number of bits a second with k, M or G.
func rate(bps uint64) string {
	if bps == 0 {
		return "-"
	}
	for _, u := range []struct {
		unit uint64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if bps >= u.unit {
			return strconv.FormatFloat(float64(bps)/float64(u.unit), 'g', 4, 64) + u.name
		}
	}
	return strconv.FormatUint(bps, 10)
}

func count[T uint64 | int | uint32 | uint16](n T) string { return fmt.Sprint(n) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// macText and numberText show that a port has no address, or no limit of its own.
func macText(m frame.MAC) string {
	if m.IsZero() {
		return "-"
	}
	return m.String()
}

func numberText(n int) string {
	if n == 0 {
		return "-"
	}
	return count(n)
}

// orDash shows that there is nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
