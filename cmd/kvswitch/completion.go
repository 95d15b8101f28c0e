package main

import (
	"bytes"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/daemon"

	"github.com/spf13/cobra"
)

// What the shell offers for what is half typed. It asks the switches that run and
// the host, and says nothing where they don't answer.

// offer is a completion's answer; open is one that goes on behind a colon, a comma
// or an equals sign.
func offer(words []string) ([]string, cobra.ShellCompDirective) {
	return words, cobra.ShellCompDirectiveNoFileComp
}

func open(words []string) ([]string, cobra.ShellCompDirective) {
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completePorts completes the first n arguments of a verb with port names: those
// of the switch that is meant, of all that run while none is.
func (a *app) completePorts(n int) cobra.CompletionFunc {
	return a.completePortsBut("", n)
}

// completePortsBut leaves out the ports of one kind.
func (a *app) completePortsBut(kind string, n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return offer(nil)
		}
		switches := []string{a.name}
		if a.name == "" {
			switches, _ = ctl.Running(a.runDir)
		}
		var names []string
		for _, s := range switches {
			if config.CheckName(s) != nil {
				continue
			}
			ports, _ := ctl.NewClient(a.runDir, s).Ports(cmd.Context())
			for _, p := range ports {
				if (kind == "" || p.Kind != kind) && !slices.Contains(names, p.Name) {
					names = append(names, p.Name)
				}
			}
		}
		return offer(names)
	}
}

// thenKeys completes a port's name and then key=value words.
func (a *app) thenKeys(usages []string) cobra.CompletionFunc {
	ports := a.completePorts(1)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return ports(cmd, args, toComplete)
		}
		return completeKeys(usages)(cmd, args, toComplete)
	}
}

// completeKeys completes key=value words; usages are key=VALUES: what it does, in
// which VALUES is words with bars between them or stands for something.
func completeKeys(usages []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return completeKey("", toComplete, usages)
	}
}

// completeKey completes one key=value word behind what stands before it.
func completeKey(before, word string, usages []string) ([]string, cobra.ShellCompDirective) {
	key, _, chosen := strings.Cut(word, "=")
	var words []string
	for _, u := range usages {
		name, values, _ := strings.Cut(u, "=")
		values, _, _ = strings.Cut(values, ":")
		switch {
		case !chosen:
			words = append(words, before+name+"=")
		case name == key && fixedValues.MatchString(values):
			for v := range strings.SplitSeq(values, "|") {
				words = append(words, before+name+"="+v)
			}
			if before == "" {
				return offer(words)
			}
		}
	}
	return open(words)
}

// fixedValues are words to choose from; what stands for something else is written
// in capitals.
var fixedValues = regexp.MustCompile(`^[a-z0-9]+(\|[a-z0-9]+)*$`)

// usageOfKey finds key=word|word in a kind's line of help.
var usageOfKey = regexp.MustCompile(`([a-z-]+)=([a-z]+(?:\|[a-z]+)+)`)

// completeSpec completes KIND:NAME[,key=value]...
func completeSpec(_ *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return offer(nil)
	}
	kinds := daemon.Kinds()
	kindName, rest, found := strings.Cut(toComplete, ":")
	if !found {
		var words []string
		for _, k := range kinds {
			words = append(words, k.Name+":")
		}
		return open(words)
	}
	kind, err := kinds.Find(kindName)
	if err != nil {
		return offer(nil)
	}
	if !strings.Contains(rest, ",") {
		if kind.Name != config.NetdevKind {
			return open(nil) // a name of the user's choice
		}
		var words []string
		for _, name := range interfaces() {
			words = append(words, kindName+":"+name)
		}
		return open(words)
	}
	usages := config.PortKeyUsage()
	for _, k := range kind.Keys {
		u := k + "="
		for _, m := range usageOfKey.FindAllStringSubmatch(kind.Usage, -1) {
			if m[1] == k {
				u = m[0]
			}
		}
		usages = append(usages, u)
	}
	last := strings.LastIndex(toComplete, ",") + 1
	return completeKey(toComplete[:last], toComplete[last:], usages)
}

// completeUplink completes an interface or a SPEC.
func completeUplink(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if strings.Contains(toComplete, ":") {
		return completeSpec(cmd, nil, toComplete)
	}
	words, _ := completeSpec(cmd, nil, toComplete)
	return open(append(interfaces(), words...))
}

// completeInterfaces completes up to most arguments with names of network
// interfaces that are not there yet.
func completeInterfaces(most int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return offer(nil)
		}
		return offer(slices.DeleteFunc(interfaces(), func(name string) bool { return slices.Contains(args, name) }))
	}
}

// interfaces are the names of the host's, but loopback.
func interfaces() []string {
	all, _ := net.Interfaces()
	var names []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

// oneOf completes a flag with one of these.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// completeFlags gives flags of a verb what completes them.
func completeFlags(c *cobra.Command, by map[string]cobra.CompletionFunc) {
	for name, f := range by {
		if err := c.RegisterFlagCompletionFunc(name, f); err != nil {
			panic(err) // the verb has no such flag
		}
	}
}

// bashCompletion prints cobra's script for bash, with one thing in another order.
// bash replaces only what stands behind the last colon or equals sign, and the
// script takes what is before them off its answers: first that before the last
// colon, after which it doesn't find what is before the equals sign of a SPEC. The
// other way round, which works for words with either, there is nothing left to do
// for the colon.
func bashCompletion(root *cobra.Command) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		var script bytes.Buffer
		if err := root.GenBashCompletionV2(&script, !noDescriptions(c)); err != nil {
			return err
		}
		const colon, equals = "    __kvswitch_handle_special_char \"$cur\" :\n", "    __kvswitch_handle_special_char \"$cur\" =\n"
		_, err := c.OutOrStdout().Write(bytes.Replace(script.Bytes(), []byte(colon+equals), []byte(equals+colon), 1))
		return err
	}
}

// noDescriptions is cobra's flag of its completion verbs.
func noDescriptions(c *cobra.Command) bool {
	off, err := c.Flags().GetBool("no-descriptions")
	return err == nil && off
}
