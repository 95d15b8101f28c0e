package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the program's version",
		Args:  args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			return a.printVersion()
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return c
}

func (a *app) printVersion() error {
	_, err := fmt.Fprintf(a.out, "kvswitch %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// version is set by the linker when the Makefile builds.
var version string

// buildVersion is what the Makefile said, else the module's version as the go
// command recorded it: a tag, or a pseudo-version made from the commit.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
