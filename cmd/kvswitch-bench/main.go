// Command kvswitch-bench races kvswitch against other switches on this machine. It
// is what the verb `kvswitch bench` executes, and takes the same words; it is a
// program of its own so that nothing of the race is in the daemon.
//
// This package only wires: it reads flags, calls package bench and prints what
// comes back. It takes root.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes, those of every verb of kvswitch.
const (
	exitDone   = 0
	exitFailed = 1 // the race failed, or was stopped
	exitUsage  = 2 // the words could not be understood
)

// execute runs the verb and returns the exit code. What it prints is held back
// until it ends, so that a failure leaves no half of a document.
func execute(words []string, stdout, stderr io.Writer) int {
	out := bufio.NewWriter(stdout)
	root := rootCommand(out, stderr)
	root.SetArgs(verb(words))
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if flush := out.Flush(); err == nil && flush != nil {
		err = fmt.Errorf("write output: %w", flush)
	}
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(stderr, "kvswitch:", strings.Join(strings.Fields(err.Error()), " "))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line that can't be understood.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// rootCommand is kvswitch with but one verb, so that usage, errors and completion
// read as those of kvswitch do.
func rootCommand(out, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{Use: "kvswitch", SilenceErrors: true, SilenceUsage: true}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see `%s --help`", err, cmd.CommandPath())
	})
	// All verbs take it, so scripts may give it to this one. The contenders' sockets
	// are in directories of their own.
	root.PersistentFlags().String("run-dir", runDir(), "directory of control sockets (KVSWITCH_RUN_DIR)")
	root.AddCommand(benchCommand(out, stderr))
	return root
}

func runDir() string {
	if dir := os.Getenv("KVSWITCH_RUN_DIR"); dir != "" {
		return dir
	}
	return "/run/kvswitch"
}

// verb puts the verb before the words, or behind the word by which a shell asks
// for completions.
func verb(words []string) []string {
	at := 0
	if len(words) > 0 && (words[0] == cobra.ShellCompRequestCmd || words[0] == cobra.ShellCompNoDescRequestCmd) {
		at = 1
	}
	out := append([]string{}, words[:at]...)
	return append(append(out, "bench"), words[at:]...)
}

// version is set by the linker when the Makefile builds.
var version string

// buildVersion is what the Makefile said, else the module's version as the go
// command recorded it.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "" && info.Main.Version != "" {
		return info.Main.Version
	}
	if version == "" {
		return "(devel)"
	}
	return version
}
