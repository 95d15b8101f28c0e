package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// benchProgram is what the verb bench executes: a daemon that runs as root has no
// use for generators, plots and other switches.
const benchProgram = "kvswitch-bench"

// benchCommand hands all of its words to the program, --help included.
func (a *app) benchCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "bench",
		Short:              "Race against the kernel's bridge and other switches on this machine",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, words []string) error { return becomeBench(words) },
	}
}

// becomeBench replaces this process by the program: what is typed, signalled and
// waited for reaches it as if it had been called itself. It returns only if that
// can't be done.
func becomeBench(words []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: find own program: %w", err)
	}
	path, err := findBench(self)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	env := os.Environ()
	if os.Getenv("KVSWITCH_BIN") == "" { // the switch that races is this one
		env = append(slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "KVSWITCH_BIN=") }), "KVSWITCH_BIN="+self)
	}
	err = syscall.Exec(path, append([]string{path}, words...), env)
	return fmt.Errorf("bench: execute %s: %w", path, err)
}

// findBench looks beside this program, links resolved, where it is when both were
// built or installed together, and then in PATH. Neither lends anybody a right:
// who can write where this program lies could replace this program; PATH is the
// caller's own, as for all that they type, the current directory is never taken
// from it, and what file capabilities gave to us ends with exec.
func findBench(self string) (string, error) {
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), benchProgram)); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(benchProgram)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%s is not installed: not beside %s and not in PATH; make install installs both, make build builds both", benchProgram, self)
	}
	return path, err
}

// completesBench reports that a shell asks for words of the verb bench, and what
// the program is to be asked for instead.
func completesBench(root *cobra.Command, words []string) ([]string, bool) {
	if len(words) < 2 || words[0] != cobra.ShellCompRequestCmd && words[0] != cobra.ShellCompNoDescRequestCmd {
		return nil, false
	}
	last := len(words) - 1
	c, rest, err := root.Find(words[1:last])
	if err != nil || c.Name() != "bench" || c.Parent() != root {
		return nil, false
	}
	return slices.Concat(words[:1], rest, words[last:]), true
}
