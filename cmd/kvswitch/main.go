// Command kvswitch is a layer-2 switch for virtual machines in one process, and
// the command line that controls it.
//
// This package only reads flags, turns signals into calls of package daemon, and
// prints what package ctl's client brings. Everything is decided elsewhere.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	if err := refuseSetuid(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()); err != nil {
		fmt.Fprintln(os.Stderr, "kvswitch:", err)
		os.Exit(exitFailed)
	}
	os.Exit(execute(os.Args, os.Stdout, os.Stderr))
}

// refuseSetuid keeps everything that this program can do from whoever may run it:
// it believes its caller's environment and opens the files that it is told to.
func refuseSetuid(uid, euid, gid, egid int) error {
	if uid == euid && gid == egid {
		return nil
	}
	return errors.New("it has a setuid or setgid bit, which would give root's rights to everybody: take it away with chmod a-s; QEMU's helper= is kvswitch-bridge-helper, which needs none")
}

// Exit codes of every verb.
const (
	exitDone   = 0
	exitFailed = 1 // the request failed
	exitUsage  = 2 // it could not be understood
)

// execute runs the command line and returns the exit code. What a verb prints
// is held back until it ends, so that a failure leaves no half of a document.
func execute(argv []string, stdout, stderr io.Writer) int {
	a := &app{out: bufio.NewWriter(stdout), stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	words := arguments(argv)
	if ask, ok := completesBench(root, words); ok {
		_ = becomeBench(ask) // where it is not installed there is nothing to complete
	}
	root.SetArgs(words)
	root.SetOut(a.out)
	root.SetErr(stderr)
	strict(root) // after SetOut: a completion keeps the output that it finds
	err := root.ExecuteContext(context.Background())
	for _, c := range a.clients {
		c.Close()
	}
	if flush := a.out.Flush(); err == nil && flush != nil {
		err = fmt.Errorf("write output: %w", flush)
	}
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSaid) {
		return exitFailed
	}
	fmt.Fprintln(stderr, "kvswitch:", oneLine(err))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// arguments makes the verb out of the name that the program was called by, so
// that links to it serve as QEMU's scripts: kvswitch-ifup is kvswitch ifup.
func arguments(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if verb, ok := strings.CutPrefix(filepath.Base(argv[0]), "kvswitch-"); ok {
		for _, v := range calledAs {
			if v == verb {
				return append([]string{verb}, argv[1:]...)
			}
		}
	}
	return argv[1:]
}

// calledAs are the verbs that a link's name stands for. (kvswitch-bridge-helper is
// a program of its own.)
var calledAs = []string{"ifup", "ifdown"}

// errSaid is a failure that the verb has said all about.
var errSaid = errors.New("said")

// usageError is a command line that can't be understood.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// oneLine is the error as the contract wants it: one line, with what to do when
// the kernel only says that something is not permitted.
func oneLine(err error) string {
	text := config.OneLine(err)
	if errors.Is(err, unix.EPERM) && !strings.Contains(text, "CAP_") && os.Geteuid() != 0 {
		text += ": run as root, or give the program its capabilities: setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon+ep " + self()
	}
	return text
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		return "kvswitch"
	}
	return path
}

// group is a command that only has verbs below it.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: nearby}
	c.AddCommand(verbs...)
	c.RunE = wantVerb(verbs)
	return c
}

// noun is a group whose first verb shows: it is what the noun alone means, and
// list and ls mean it, too.
func noun(use, short string, shows *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	for _, name := range []string{"show", "list", "ls"} {
		if shows.Name() != name {
			shows.Aliases = append(shows.Aliases, name)
		}
	}
	c := group(use, short, append([]*cobra.Command{shows}, verbs...)...)
	c.Flags().AddFlagSet(shows.Flags())
	want := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return want(cmd, args)
		}
		return shows.RunE(cmd, args)
	}
	return c
}

// nearby is how many letters a word may differ from a verb that is suggested for it.
const nearby = 2

// suggestion is what the user may have meant by word, in brackets, or nothing.
func suggestion(c *cobra.Command, word string) string {
	if word == "" {
		return "" // every verb begins so
	}
	s := c.SuggestionsFor(word)
	if len(s) == 0 {
		return ""
	}
	return " (did you mean " + strings.Join(s, " or ") + "?)"
}

// wantVerb says which verbs there are.
func wantVerb(verbs []*cobra.Command) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, v := range verbs {
			names = append(names, v.Name())
		}
		if len(args) > 0 {
			return usagef("%s: unknown verb %q%s: want one of %s", cmd.CommandPath(), args[0], suggestion(cmd, args[0]), strings.Join(names, ", "))
		}
		return usagef("%s: want one of %s", cmd.CommandPath(), strings.Join(names, ", "))
	}
}

// strict makes the verbs that cobra brings refuse what they don't know, as ours
// do: its own print help, and exit as if all were well.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run = nil
			c.RunE = func(_ *cobra.Command, words []string) error {
				topic, rest, err := root.Find(words)
				if err != nil || len(rest) > 0 {
					hint := ""
					if topic != nil && len(rest) > 0 {
						hint = suggestion(topic, rest[0])
					}
					return usagef("help: unknown verb %q%s: see `kvswitch help`", strings.Join(words, " "), hint)
				}
				topic.InitDefaultHelpFlag()
				if topic.DisableFlagParsing { // --help is one of the words that are its own affair
					return topic.RunE(topic, []string{"--help"})
				}
				return topic.Help()
			}
		case "completion":
			c.Args, c.RunE = cobra.ArbitraryArgs, wantVerb(c.Commands())
			for _, shell := range c.Commands() {
				shell.Args = args(0, 0)
				if shell.Name() == "bash" {
					shell.RunE = bashCompletion(root)
				}
			}
		}
	}
}
